"""The Responses API on a real balancer: objects and events."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from paddler.balancer.services.openai.responses import echoed_format
from paddler.messages import link as wire
from paddler.messages.link import FrameKind
from paddler.messages.openai.responses import TextOptions
from tests.balancer.services.openai.test_chat import INVALID, say_calls
from tests.balancer.services.running import Agent, Running, on_balancer
from tests.net.peers import Answer

PATH = "/v1/responses"
SMALLEST: dict[str, Any] = {"model": "m", "input": "Hi"}
WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
CALLING = SMALLEST | {"tools": [WEATHER]}


def events_of(answer: Answer) -> list[dict[str, Any]]:
    """The events of a stream, whose numbers and names are checked."""
    assert answer.status == 200
    assert answer.headers.get("content-type") == "text/event-stream"
    *blocks, rest = answer.body.split(b"\n\n")
    assert rest == b""
    events = []
    for number, block in enumerate(blocks):
        name, data = block.split(b"\n")
        event = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode()
        assert event["sequence_number"] == number
        events.append(event)
    return events


async def say_all(agent: Agent, *, reason: str = "stop", calls: bool = False) -> wire.StartStream:
    """A thought, two pieces of text and maybe calls."""
    start = await agent.hear_start()
    agent.say(start.stream_id, FrameKind.REASONING, rb"\"hm\"")
    agent.say(start.stream_id, FrameKind.CONTENT, b"a")
    agent.say(start.stream_id, FrameKind.UNDETERMINABLE, rb"\n")
    agent.say(start.stream_id, FrameKind.TOOL_CALL, b"hidden")
    if calls:
        say_calls(agent, start.stream_id)
    agent.finish(start.stream_id, reason)
    return start


@pytest.mark.parametrize(("reason", "status"), [("stop", "completed"), ("length", "incomplete")])
def test_a_whole_response_has_its_items_in_order(reason: str, status: str) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.openai, PATH, CALLING))
        await say_all(agent, reason=reason, calls=True)
        response = json.loads((await asked).body)
        assert response["id"].startswith("resp_")
        assert response["status"] == status
        details = {"reason": "max_output_tokens"} if reason == "length" else None
        assert response["incomplete_details"] == details
        assert response["usage"] == {
            "input_tokens": 5,
            "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 8,
        }
        thought, message, first, second = response["output"]
        assert thought == {
            "type": "reasoning",
            "id": "rs_0",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": '"hm"'}],
            "status": "completed",
        }
        assert message == {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": status,
            "content": [{"type": "output_text", "text": "a\n", "annotations": [], "logprobs": []}],
        }
        assert first.pop("call_id").startswith("call_")
        assert first == {
            "type": "function_call",
            "id": "fc_2",
            "name": "get_weather",
            "arguments": '{"a":1}',
            "status": status,
        }
        assert second["call_id"] == "functions.get_weather:1"

    on_balancer(test)


def test_a_response_tells_what_it_was_asked() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        body = CALLING | {"instructions": "Be", "temperature": 0.5, "metadata": {"a": "b"}}
        body |= {"tool_choice": {"type": "function", "name": "get_weather", "unknown": 1}}
        asked = asyncio.create_task(running.post(running.openai, PATH, body))
        await say_all(agent)
        response = json.loads((await asked).body)
        assert response["instructions"] == "Be"
        assert (response["temperature"], response["top_p"]) == (0.5, 1)
        assert response["metadata"] == {"a": "b"}
        assert response["tool_choice"] == {"type": "function", "name": "get_weather"}
        assert response["tools"] == [WEATHER | {"description": None, "strict": None}]
        assert response["text"] == {"format": {"type": "text"}}

    on_balancer(test)


SCHEMA = {"type": "json_schema", "name": "n", "schema": {}, "strict": True}


@pytest.mark.parametrize(
    ("wanted", "echoed"),
    [
        (None, {"type": "text"}),
        ({"type": "new", "name": "x"}, {"type": "text"}),
        ({"type": "json_object", "unknown": 1}, {"type": "json_object"}),
        (SCHEMA, SCHEMA),
        (
            {"type": "json_schema", "schema": {}},
            {"type": "json_schema", "name": "schema", "schema": {}},
        ),
    ],
)
def test_a_response_tells_the_format_that_was_understood(wanted: Any, echoed: Any) -> None:
    text = msgspec.convert({"format": wanted}, TextOptions)
    assert echoed_format(text) == echoed


WHITE_SPACE_AND_CALLS = (
    (FrameKind.CONTENT, rb" \n"),
    (FrameKind.CALL, wire.encode(wire.CallDelta(0, name="get_weather", arguments="{}"))),
    (FrameKind.CONTENT, rb"\t"),
    (FrameKind.CALL, wire.encode(wire.CallDelta(1, name="get_weather", arguments="{}"))),
    (FrameKind.CONTENT, rb"\n"),
)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("frames", "told"),
    [
        (WHITE_SPACE_AND_CALLS, ["{}", "{}"]),
        ([(FrameKind.CONTENT, rb" \n"), (FrameKind.CONTENT, b"a ")], [" \na "]),
        ([(FrameKind.CONTENT, rb" \n"), (FrameKind.CONTENT, b" ")], [" \n "]),
    ],
)
def test_white_space_around_calls_is_no_message(frames: Any, told: list[str], stream: bool) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(
            running.post(running.openai, PATH, CALLING | {"stream": stream})
        )
        start = await agent.hear_start()
        for kind, payload in frames:
            agent.say(start.stream_id, kind, payload)
        agent.finish(start.stream_id)
        answer = await asked
        response = events_of(answer)[-1]["response"] if stream else json.loads(answer.body)
        assert [
            item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
            for item in response["output"]
        ] == told

    on_balancer(test)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
    ],
)
def test_a_stored_response_is_not_there_and_told_why(method: str, path: str) -> None:
    async def test(running: Running) -> None:
        answer = await running.ask(running.openai, method, path)
        assert answer.status == 404
        error = json.loads(answer.body)["error"]
        assert error["message"] == "Response 'resp_1' does not exist: nothing is stored here"

    on_balancer(test)


def test_events_tell_each_item_from_its_beginning_to_its_end() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.openai, PATH, CALLING | {"stream": True}))
        await say_all(agent, calls=True)
        events = events_of(await asked)
        message = ["output_item.added", "content_part.added", *["output_text.delta"] * 2]
        message += ["output_text.done", "content_part.done", "output_item.done"]
        call = ["output_item.added", "function_call_arguments.delta"]
        ending = ["function_call_arguments.done", "output_item.done"]
        assert [event["type"].removeprefix("response.") for event in events] == [
            *("created", "in_progress"),
            *("output_item.added", "reasoning_text.delta", "reasoning_text.done"),
            "output_item.done",
            *message,
            *(*call, "function_call_arguments.delta", *ending),
            *(*call, *ending),
            "completed",
        ]
        assert events[0]["response"]["status"] == "in_progress"
        assert events[0]["response"]["output"] == []
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        final = events[-1]["response"]
        assert final["output"] == done
        assert [item["id"] for item in done] == ["rs_0", "msg_1", "fc_2", "fc_3"]
        assert final["id"] == events[0]["response"]["id"]
        assert final["usage"]["total_tokens"] == 8
        deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
        assert deltas == ["a", "\n"]
        arguments = [e for e in events if e["type"] == "response.function_call_arguments.done"]
        assert [e["arguments"] for e in arguments] == ['{"a":1}', "{}"]
        assert [e["name"] for e in arguments] == ["get_weather"] * 2

    on_balancer(test)


def test_a_response_that_met_its_limit_is_incomplete() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.openai, PATH, SMALLEST | {"stream": True}))
        await say_all(agent, reason="length")
        last = events_of(await asked)[-1]
        assert last["type"] == "response.incomplete"
        assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
        assert last["response"]["output"][-1]["status"] == "incomplete"

    on_balancer(test)


def test_a_stream_that_moved_to_another_agent_begins_once() -> None:
    async def test(running: Running) -> None:
        first = await Agent.join(running, "id-1")
        asked = asyncio.create_task(running.post(running.openai, PATH, SMALLEST | {"stream": True}))
        await first.hear_start()
        second = await Agent.join(running, "id-2")
        first.leave()
        await say_all(second)
        types = [event["type"] for event in events_of(await asked)]
        assert types.count("response.created") == 1

    on_balancer(test)


@pytest.mark.parametrize(("result", "message"), [(INVALID, "arguments are wrong"), (None, "no")])
def test_a_failure_within_a_stream_is_its_last_event(result: bytes | None, message: str) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.openai, PATH, SMALLEST | {"stream": True}))
        start = await agent.hear_start()
        agent.say(start.stream_id, FrameKind.CONTENT, b"x")
        if result is not None:
            agent.say(start.stream_id, FrameKind.RESULT, result)
            agent.finish(start.stream_id)
        else:
            agent.fail(start.stream_id, {"SamplerError": message})
        last = events_of(await asked)[-1]
        assert last["type"] == "response.failed"
        assert last["response"]["status"] == "failed"
        assert last["response"]["error"] == {"code": "server_error", "message": message}

    on_balancer(test)


@pytest.mark.parametrize("stream", [True, False])
def test_a_failure_before_a_slot_is_found_has_its_status(stream: bool) -> None:
    async def test(running: Running) -> None:
        answer = await running.post(running.openai, PATH, SMALLEST | {"stream": stream})
        assert answer.status == 503
        assert answer.headers.get("retry-after") == "1"

    on_balancer(test, "--max-buffered-requests", "0")


def test_calls_that_the_schema_forbids_are_an_error_of_the_whole_response() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.openai, PATH, CALLING))
        start = await agent.hear_start()
        agent.say(start.stream_id, FrameKind.RESULT, INVALID)
        agent.finish(start.stream_id)
        assert (await asked).status == 500

    on_balancer(test)


def test_a_request_that_cannot_be_names_the_field() -> None:
    async def test(running: Running) -> None:
        answer = await running.post(running.openai, PATH, SMALLEST | {"store": True})
        assert answer.status == 400
        assert json.loads(answer.body)["error"]["param"] == "store"

    on_balancer(test)
