"""The fetching process as a process: environment in, one line per event out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paddler.agent.models.causes import Cause, issue_of
from paddler.agent.models.fetch import outcome
from paddler.messages.fetch import FetchEvent, FetchFailed, UrlJob
from tests.agent.models.ggufs import gguf_bytes
from tests.hub import FileServer

CONTENT = gguf_bytes(200_000)
HUB_JOB = {"type": "hub", "repo_id": "org/repo", "revision": "main", "filename": "m.gguf"}


def start(job: dict[str, Any] | None, **environ: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "paddler.agent.models.fetch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environ,
    )
    assert process.stdin is not None
    process.stdin.write(b"" if job is None else json.dumps(job).encode() + b"\n")
    process.stdin.close()
    return process


def run(job: dict[str, Any] | None, **environ: str) -> tuple[list[dict[str, Any]], str]:
    """The messages and the log."""
    process = start(job, **environ)
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        lines = [json.loads(line) for line in process.stdout]
        return lines, process.stderr.read().decode()


def test_a_hub_job_obeys_the_hubs_environment(server: FileServer, tmp_path: Path) -> None:
    server.add_to_hub("m.gguf", CONTENT)
    (tmp_path / "token").write_text("hf_secret\n")
    hub = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path)}
    messages, log = run(HUB_JOB, **hub)
    assert messages[0] == {
        "type": "receiving",
        "filename": "m.gguf",
        "received": 0,
        "total": 200_000,
    }
    assert messages[-1]["type"] == "fetched"
    path = Path(messages[-1]["path"])
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "hub")
    assert {s.headers.get("authorization") for s in server.gets("/resolve/")} == {
        "Bearer hf_secret"
    }
    assert log == ""
    server.requests.clear()
    assert run(HUB_JOB, **hub, HF_HUB_OFFLINE="1")[0] == [messages[-1]]
    assert server.requests == []
    elsewhere, _ = run(HUB_JOB, **hub, HF_HUB_CACHE=str(tmp_path / "elsewhere"))
    assert Path(elsewhere[-1]["path"]).is_relative_to(tmp_path / "elsewhere")


def test_a_url_job_obeys_paddlers_environment(server: FileServer, tmp_path: Path) -> None:
    server.add("/m.gguf", CONTENT)
    job = {"type": "url", "url": server.url("/m.gguf")}
    messages, log = run(job, PADDLER_CACHE_DIR=str(tmp_path))
    assert Path(messages[-1]["path"]).parent == tmp_path / "downloaded-models"
    assert log == ""


def test_a_failure_is_told_with_its_issue(tmp_path: Path) -> None:
    job = {"type": "url", "url": "nowhere"}
    messages, log = run(job, PADDLER_CACHE_DIR=str(tmp_path))
    assert messages == [
        {
            "type": "failed",
            "issue": {"DownloadUrlIsMalformed": {"model_path": "nowhere"}},
            "reason": "the address begins with neither http:// nor https://",
        }
    ]
    assert log == ""


def test_without_a_job_there_is_nothing_to_do() -> None:
    assert run(None) == ([], "")


def test_an_agent_that_is_gone_ends_it_without_a_word(server: FileServer, tmp_path: Path) -> None:
    file = server.add("/m.gguf", CONTENT, holds_at=100_000)
    process = start({"type": "url", "url": server.url("/m.gguf")}, PADDLER_CACHE_DIR=str(tmp_path))
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdout.readline()
        process.stdout.close()
        file.go.set()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_an_error_that_nobody_foresaw_is_logged_and_told(
    caplog: pytest.LogCaptureFixture, server: FileServer, tmp_path: Path
) -> None:
    def report(event: FetchEvent) -> None:
        raise LookupError("a bug")

    server.add("/m.gguf", CONTENT)
    job = UrlJob(server.url("/m.gguf"))
    os.environ["PADDLER_CACHE_DIR"] = str(tmp_path)
    try:
        answer = outcome(job, report)
    finally:
        del os.environ["PADDLER_CACHE_DIR"]
    assert answer == FetchFailed(issue_of(Cause.INTERRUPTED, job), "LookupError('a bug')")
    assert "a bug" in caplog.text
