"""Operators at work on a real fleet."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import Fleet, get, wait_until
from tests.tiny_gguf import write_tiny_gguf


def command(fleet: Fleet, *words: str) -> subprocess.Popen[str]:
    """``paddler`` with these words, for this fleet."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "paddler", *words],
        env=os.environ
        | {
            "PADDLER_MANAGEMENT_ADDR": f"127.0.0.1:{fleet.management}",
            "PADDLER_INFERENCE_ADDR": f"127.0.0.1:{fleet.inference}",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(fleet: Fleet, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    with command(fleet, *words) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.fixture
def tiny_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet of one agent, and nothing that it is to run."""
    with Fleet(tmp_path) as fleet:
        fleet.start_agent("tiny", 1)
        wait_until(fleet.snapshot, "the agent is there")
        yield fleet


def test_a_model_is_set_missed_and_set_again(tiny_fleet: Fleet, tmp_path: Path) -> None:
    fleet = tiny_fleet
    old, new = (write_tiny_gguf(tmp_path / f"{seed}.gguf", seed=seed) for seed in (1, 2))

    def set_model(path: Path) -> None:
        small = ["--set", "context_size=512", "--set", "n_batch=512"]
        code, out, err = run(fleet, "model", "set", str(path), "--wait", *small)
        assert (code, out.splitlines()[-1], err) == (0, "Applied on 1 agent.", "")
        (agent,) = fleet.snapshot()
        assert (agent["model_path"], agent["slots_total"]) == (str(path), 1)

    set_model(old)
    code, _, err = run(fleet, "model", "set", "/typo.gguf", "--wait")
    assert (code, err) == (
        1,
        "Error: tiny: ModelFileDoesNotExist: /typo.gguf; "
        "put the file there on the agent's machine, or correct the path\n",
    )
    set_model(new)  # while the old one serves, beside its issue
    code, out, _ = run(fleet, "chat", "Hello", "--max-tokens", "3")
    assert code == 0
    assert out
    assert run(fleet, "model", "set", "none", "--wait")[0] == 0
    assert fleet.snapshot()[0]["model_path"] is None


def test_whoever_follows_outlives_a_restarted_balancer(tiny_fleet: Fleet) -> None:
    fleet = tiny_fleet
    with (
        command(fleet, "events", "--follow", "--json") as events,
        command(fleet, "status", "--watch", "--json") as status,
    ):
        assert events.stdout is not None
        assert status.stdout is not None
        before = json.loads(events.stdout.readline())
        assert before["kind"] == "agent_joined"
        assert json.loads(status.stdout.readline())["agents"]
        assert fleet.balancer is not None
        fleet.balancer.signal(signal.SIGKILL)
        fleet.balancer.wait()
        fleet.start_balancer()
        after = json.loads(events.stdout.readline())
        assert after["kind"] == "agent_joined"
        assert after["id"] > before["id"]
        restarted_at = time.monotonic()
        while not json.loads(status.stdout.readline())["agents"]:
            assert time.monotonic() - restarted_at < 20
        for process in (events, status):
            process.send_signal(signal.SIGINT)
        assert [process.wait(10) for process in (events, status)] == [0, 0]
        assert events.stderr is not None
        lost, back = events.stderr.read().splitlines()
        assert lost.startswith("lost the balancer at 127.0.0.1:")
        assert back.endswith(" is back")


def test_what_an_agent_runs_is_told_while_it_comes_and_after_it_has_gone(
    tmp_path: Path,
) -> None:
    model = write_tiny_gguf(tmp_path / "model.gguf", metadata={"general.license": "mit"})
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)  # whoever loads it waits for what never comes
    with Fleet(tmp_path) as fleet:

        def tell(what: str) -> Any:
            (agent,) = fleet.snapshot()
            status, body = get(fleet.management, f"/api/v1/agent/{agent['id']}/{what}")
            assert status == 200
            return json.loads(body)

        override = {"content": "{{ messages[0].content }}"}
        fleet.put_model(pipe, chat_template=override["content"])
        fleet.start_agent("tiny", 1)
        wait_until(fleet.snapshot, "the agent is there")
        assert tell("chat_template_override") == override
        assert tell("model_metadata") is None
        assert fleet.slots_ready() == 0
        fleet.put_model(model, context_size=512)
        fleet.wait_slots(1)
        assert tell("chat_template_override") is None
        metadata = tell("model_metadata")["metadata"]
        assert metadata["general.license"] == "mit"
        assert metadata["llama.attention.layer_norm_rms_epsilon"] == "0.000010"
        assert metadata["tokenizer.ggml.add_bos_token"] == "true"
        assert metadata["llama.block_count"] == "1"
        assert not any("tokens" in key for key in metadata)
        assert list(metadata) == sorted(metadata)
        assert all(isinstance(value, str) for value in metadata.values())
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(b"GGUF" + bytes(100))
        fleet.put_model(broken)
        wait_until(lambda: fleet.snapshot()[0]["issues"], "the issue is shown")
        assert tell("model_metadata")["metadata"] == metadata
        fleet.put_model(None)
        wait_until(
            lambda: fleet.snapshot()[0]["state_application_status"] == "Applied", "it is idle"
        )
        assert tell("model_metadata")["metadata"] == metadata
