"""What is wrong with a model, as operators see it, and how it ends."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paddler.messages.state import DEFAULT_DESIRED_STATE
from tests.e2e.fleet import Fleet, ask, conversation, get, request, tokens_of, wait_until
from tests.hub import FileServer
from tests.tiny_gguf import write_tiny_gguf

SMALL = {"context_size": 512, "n_batch": 512}


@pytest.fixture(scope="module")
def tiny_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.start_agent("tiny", 1)
        wait_until(fleet.snapshot, "the agent is there")
        yield fleet


def wait_issues(fleet: Fleet, *issues: Any) -> None:
    wait_until(lambda: fleet.snapshot()[0]["issues"] == [*issues], f"the issues are {issues}")


def test_a_model_without_a_template_is_told_until_one_is_set(
    tiny_fleet: Fleet, tmp_path: Path
) -> None:
    fleet = tiny_fleet
    (before,) = fleet.snapshot()
    model = write_tiny_gguf(tmp_path / "bare.gguf", chat_template=None)
    fleet.put_model(model, **SMALL)
    wait_issues(fleet, {"UnableToFindChatTemplate": {"model_path": str(model)}})
    (now,) = fleet.snapshot()
    assert (now["id"], now["slots_total"]) == (before["id"], 0)
    # Embeddings need none.
    fleet.put_model(model, enable_embeddings=True, **SMALL)
    fleet.wait_slots(1)
    wait_issues(fleet)
    body = {"input_batch": [{"id": "1", "content": "Hello"}], "normalization_method": "None"}
    status, said = request(
        fleet.inference, "POST", "/api/v1/generate_embedding_batch", json.dumps(body).encode()
    )
    assert (status, b'"Embedding"' in said) == (200, True)
    # Nor does it matter whose template it is, or that nobody uses it.
    fleet.put_model(model, enable_embeddings=True, chat_template="{{ messages }}", **SMALL)
    path = f"/api/v1/agent/{before['id']}/chat_template_override"
    assert json.loads(get(fleet.management, path)[1]) == {"content": "{{ messages }}"}
    fleet.put_model(model, chat_template="{{ messages[0].content }}", **SMALL)
    wait_until(lambda: fleet.snapshot()[0]["uses_chat_template_override"], "it is used")
    fleet.wait_slots(1)
    assert tokens_of(ask(fleet.inference, conversation("Hello", 2)))


def test_a_template_that_does_not_compile_is_told_and_replaced_within_seconds(
    tiny_fleet: Fleet, tmp_path: Path
) -> None:
    fleet = tiny_fleet
    model = write_tiny_gguf(tmp_path / "model.gguf")
    broken = "{{invalid jinja template"
    fleet.put_model(model, chat_template=broken, **SMALL)
    wait_until(
        lambda: "ChatTemplateDoesNotCompile" in (fleet.snapshot()[0]["issues"] or [{}])[0],
        "the issue is shown",
    )
    (issue,) = fleet.snapshot()[0]["issues"]
    detail = issue["ChatTemplateDoesNotCompile"]
    assert detail["error"].startswith("line 1: ")
    assert detail["model_path"] == {"model_path": str(model)}
    assert detail["template_content"] == broken
    replaced_at = time.monotonic()
    fleet.put_model(model, chat_template="{{ messages[0].content }}", **SMALL)
    wait_issues(fleet)
    fleet.wait_slots(1)
    assert time.monotonic() - replaced_at < 3


def test_more_slots_than_the_engine_has_are_blamed_one_by_one(tmp_path: Path) -> None:
    model = write_tiny_gguf(tmp_path / "model.gguf")
    with Fleet(tmp_path) as fleet:
        fleet.put_model(model, **SMALL)
        fleet.start_agent("greedy", 257)
        wait_until(
            lambda: [len(agent["issues"]) for agent in fleet.snapshot()] == [257], "issues", 10
        )
        issues = [issue["SlotCannotStart"] for issue in fleet.snapshot()[0]["issues"]]
        assert [issue["slot_index"] for issue in issues] == list(range(257))
        assert all(issue["error"] for issue in issues)


def test_a_healthy_start_shows_no_issue_even_where_agents_share_a_cold_cache(
    tmp_path: Path,
) -> None:
    model = write_tiny_gguf(tmp_path / "model.gguf").read_bytes()
    with FileServer() as server, Fleet(tmp_path) as fleet:
        server.add("/model.gguf", model)
        connection = http.client.HTTPConnection("127.0.0.1", fleet.management, timeout=60)
        connection.request("GET", "/api/v1/agents/stream")
        stream = connection.getresponse()
        state = msgspec.to_builtins(DEFAULT_DESIRED_STATE)
        state["inference_parameters"] |= SMALL
        fleet.put_state(state | {"model": {"Url": {"url": server.url("/model.gguf")}}})
        env = {"PADDLER_CACHE_DIR": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1"}
        for name in ("a", "b"):
            fleet.start_agent(name, 1, env=env)
        seen: list[Any] = []
        for line in stream:
            if line.startswith(b"data: "):
                agents = json.loads(line.removeprefix(b"data: "))["agents"]
                seen += [issue for agent in agents for issue in agent["issues"]]
                if sum(agent["slots_total"] for agent in agents) == 2:
                    break
        stream.close()
        connection.close()
        assert seen == []
