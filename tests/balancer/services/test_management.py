"""What operators call, on a real balancer."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paddler.balancer.services import management
from paddler.messages import link as wire
from paddler.messages.state import DEFAULT_DESIRED_STATE
from tests.balancer.services.running import (
    DESIRED_STATE,
    JSON_TYPE,
    Agent,
    Running,
    hello,
    on_balancer,
)
from tests.net.peers import Answer

DEFAULT: dict[str, Any] = msgspec.to_builtins(DEFAULT_DESIRED_STATE)
ASKED: dict[str, Any] = DEFAULT | {"model": {"LocalToAgent": "/models/a.gguf"}}


def test_the_desired_state_is_read_as_it_was_put() -> None:
    async def test(running: Running) -> None:
        before = await running.get(running.management, DESIRED_STATE)
        assert before.headers.get("content-type") == "application/json"
        assert json.loads(before.body) == DEFAULT
        put = await running.put_state(ASKED)
        assert (put.status, put.body) == (204, b"")
        after = await running.get(running.management, DESIRED_STATE)
        assert json.loads(after.body) == ASKED

    on_balancer(test)


def test_the_applicable_state_follows() -> None:
    async def test(running: Running) -> None:
        await running.put_state(ASKED | {"chat_template_override": {"content": "unused"}})
        answer = await running.get(running.management, "/api/v1/balancer_applicable_state")
        assert json.loads(answer.body) == {
            key: ASKED[key]
            for key in (
                *("chat_template_override", "inference_parameters"),
                *("model", "multimodal_projection"),
            )
        }

    on_balancer(test)


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (DEFAULT | {"model": "Some"}, "$.model"),
        (DEFAULT | {"extra": 1}, "unknown field `extra`"),
        (
            DEFAULT | {"inference_parameters": DEFAULT["inference_parameters"] | {"top_p": 7}},
            "<= 1.0 - at `$.inference_parameters.top_p`",
        ),
        ({}, "missing required field `inference_parameters`"),
        ([], "Expected `object`, got `array`"),
    ],
)
def test_a_state_that_cannot_be_is_refused_by_name(state: object, names: str) -> None:
    async def test(running: Running) -> None:
        answer = await running.put_state(state)
        assert answer.status == 400
        assert answer.headers.get("content-type") == "text/plain; charset=utf-8"
        assert names in answer.body.decode()
        assert running.balancer.state.desired == DEFAULT_DESIRED_STATE

    on_balancer(test)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"model":"\xff"}', b"[" * 100_000])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    async def test(running: Running) -> None:
        answer = await running.ask(running.management, "PUT", DESIRED_STATE, body, JSON_TYPE)
        assert answer.status == 400
        assert answer.body.startswith(b"Json deserialize error: ")

    on_balancer(test)


@pytest.mark.parametrize("fields", ["", "Content-Type: text/plain\r\n"])
def test_a_body_that_is_not_called_json_is_refused(fields: str) -> None:
    async def test(running: Running) -> None:
        body = json.dumps(ASKED).encode()
        answer = await running.ask(running.management, "PUT", DESIRED_STATE, body, fields)
        assert (answer.status, answer.body) == (400, b"Content type error")

    on_balancer(test)


def test_a_state_past_its_limit_is_refused_before_it_is_read() -> None:
    async def test(running: Running) -> None:
        fields = JSON_TYPE + "Content-Length: 2097153\r\n"
        answer = await running.ask(running.management, "PUT", DESIRED_STATE, fields=fields)
        assert answer.status == 413

    on_balancer(test)


def test_a_state_that_cannot_be_stored_is_told(tmp_path: Path) -> None:
    path = tmp_path / "state.json"

    async def test(running: Running) -> None:
        (tmp_path / "state.json.new").mkdir()
        answer = await running.put_state(ASKED)
        assert answer.status == 500
        assert answer.body.decode() == f"cannot write {path}: Is a directory"
        assert answer.headers.get("content-type") == "text/plain; charset=utf-8"
        # The old state stays in force, here and for agents.
        assert json.loads((await running.get(running.management, DESIRED_STATE)).body) == DEFAULT
        applicable = await running.get(running.management, "/api/v1/balancer_applicable_state")
        assert json.loads(applicable.body)["model"] == "None"
        agent = await Agent.join(running)
        (tmp_path / "state.json.new").rmdir()
        assert (await running.put_state(ASKED)).status == 204
        told = await agent.hear()  # of this state, and of none before
        assert isinstance(told, wire.SetState)
        assert msgspec.to_builtins(told.state.model) == ASKED["model"]

    on_balancer(test, "--state-database", f"file://{path}")


def test_a_stored_state_outlives_the_balancer(tmp_path: Path) -> None:
    flags = ("--state-database", f"file://{tmp_path}/state.json")

    async def put(running: Running) -> None:
        assert (await running.put_state(ASKED)).status == 204

    async def look(running: Running) -> None:
        assert json.loads((await running.get(running.management, DESIRED_STATE)).body) == ASKED

    on_balancer(put, *flags)
    on_balancer(look, *flags)


@pytest.mark.parametrize(
    "model",
    [
        {"Url": {"url": "https://example.invalid/m.gguf"}},
        {"Url": {"url": "no address at all"}},
        {"HuggingFace": {"filename": "q/m.gguf", "repo_id": "owner/repo", "revision": "main"}},
        {"LocalToAgent": "/tmp/does-not-exist.gguf"},
        {"LocalToAgent": ""},
        "None",
    ],
)
def test_every_kind_of_model_comes_back_from_the_file_as_it_was_put(
    model: Any, tmp_path: Path
) -> None:
    flags = ("--state-database", f"file://{tmp_path}/state.json")
    state = DEFAULT | {
        "model": model,
        "multimodal_projection": model,
        "chat_template_override": {"content": "{{ messages }}\n"},
        "use_chat_template_override": True,
    }

    async def put(running: Running) -> None:
        assert (await running.put_state(state)).status == 204

    async def look(running: Running) -> None:
        assert json.loads((await running.get(running.management, DESIRED_STATE)).body) == state
        agent = await Agent.dial(running)
        agent.send(hello())
        assert isinstance(await agent.hear(), wire.Welcome)
        told = await agent.hear()
        assert isinstance(told, wire.SetState)
        assert msgspec.to_builtins(told.state.model) == model

    on_balancer(put, *flags)
    on_balancer(look, *flags)


# --- questions to an agent ----------------------------------------------------------------------

METADATA = "/api/v1/agent/id-1/model_metadata"
OVERRIDE = "/api/v1/agent/id-1/chat_template_override"


async def hear_question(agent: Agent) -> wire.Question:
    message = await agent.hear()
    assert isinstance(message, wire.Question)
    return message


def is_empty(answer: Answer, status: int) -> bool:
    """Whether an answer is this status and nothing else."""
    return (answer.status, answer.body, answer.headers.get("content-type")) == (status, b"", None)


@pytest.mark.parametrize(
    ("path", "ask", "value", "body"),
    [
        (
            METADATA,
            wire.AskMetadata(),
            {"metadata": {"general.architecture": "llama", "z": "1"}},
            b'{"metadata":{"general.architecture":"llama","z":"1"}}',
        ),
        (METADATA, wire.AskMetadata(), None, b"null"),
        (OVERRIDE, wire.AskTemplateOverride(), {"content": "{{ x }}"}, b'{"content":"{{ x }}"}'),
        (OVERRIDE, wire.AskTemplateOverride(), None, b"null"),
    ],
)
def test_what_an_agent_answers_is_told(path: str, ask: wire.Ask, value: Any, body: bytes) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.get(running.management, path))
        question = await hear_question(agent)
        assert question.ask == ask
        agent.send(wire.Answer(question.number, value))
        answer = await asked
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers.get("content-type") == "application/json"

    on_balancer(test)


@pytest.mark.parametrize("path", [METADATA, OVERRIDE])
def test_an_agent_that_is_not_there_leaves_an_empty_404(path: str) -> None:
    async def test(running: Running) -> None:
        for at in (path, path.replace("id-1", "%2F..%2Fx"), path.replace("id-1", "%00%FF")):
            assert is_empty(await running.get(running.management, at), 404)

    on_balancer(test)


@pytest.mark.parametrize("path", [METADATA, OVERRIDE])
def test_an_agent_that_leaves_instead_of_answering_leaves_an_empty_502(path: str) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.get(running.management, path))
        await hear_question(agent)
        agent.leave()
        assert is_empty(await asked, 502)

    on_balancer(test)


@pytest.mark.parametrize("path", [METADATA, OVERRIDE])
def test_an_agent_that_does_not_answer_leaves_an_empty_504(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert management.ASK_TIMEOUT_S == 3.0
    monkeypatch.setattr(management, "ASK_TIMEOUT_S", 0.05)

    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.get(running.management, path))
        question = await hear_question(agent)
        assert is_empty(await asked, 504)
        agent.send(wire.Answer(question.number, {"metadata": {}}))  # nobody waits any more
        again = asyncio.create_task(running.get(running.management, path))
        agent.send(wire.Answer((await hear_question(agent)).number, None))
        assert (await again).body == b"null"

    on_balancer(test)


# --- the fleet ----------------------------------------------------------------------------------


def test_agents_and_buffered_requests_are_counted() -> None:
    async def test(running: Running) -> None:
        assert await running.agents() == []
        agent = await Agent.join(running)
        (shown,) = await running.agents()
        assert shown == {
            "desired_slots_total": 1,
            "download_current": 0,
            "download_filename": None,
            "download_indeterminate": True,
            "download_total": 0,
            "id": "id-1",
            "issues": [],
            "model_path": None,
            "name": "gpu-1",
            "slots_processing": 0,
            "slots_total": 1,
            "state_application_status": "Fresh",
            "uses_chat_template_override": False,
        }
        waiting = await running.get(running.management, "/api/v1/buffered_requests")
        assert json.loads(waiting.body) == {"buffered_requests_current": 0}
        agent.leave()
        await agent.closed()

    on_balancer(test)
