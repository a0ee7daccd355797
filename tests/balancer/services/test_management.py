"""What operators call, on a real balancer."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paddler.messages.state import DEFAULT_DESIRED_STATE
from tests.balancer.services.running import DESIRED_STATE, JSON_TYPE, Agent, Running, on_balancer

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
        assert json.loads((await running.get(running.management, DESIRED_STATE)).body) == DEFAULT

    on_balancer(test, "--state-database", f"file://{path}")


def test_a_stored_state_outlives_the_balancer(tmp_path: Path) -> None:
    flags = ("--state-database", f"file://{tmp_path}/state.json")

    async def put(running: Running) -> None:
        assert (await running.put_state(ASKED)).status == 204

    async def look(running: Running) -> None:
        assert json.loads((await running.get(running.management, DESIRED_STATE)).body) == ASKED

    on_balancer(put, *flags)
    on_balancer(look, *flags)


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
