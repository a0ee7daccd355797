"""Chat completions on a real balancer: what becomes of an agent's answer."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from paddler.balancer.services.openai.answers import usage_of
from paddler.balancer.services.openai.chat import finish_reason
from paddler.messages import link as wire
from paddler.messages.inference import TokenUsage
from paddler.messages.link import Finished, FrameKind, Sampling
from tests.balancer.services.running import Agent, Running, on_balancer
from tests.balancer.services.test_inference import EMBEDDING
from tests.net.peers import Answer

CHAT = "/v1/chat/completions"
SMALLEST: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


# --- answers ------------------------------------------------------------------------------------


def test_usage_counts_every_kind_of_token() -> None:
    usage = TokenUsage(
        prompt_tokens=10,
        cached_prompt_tokens=4,
        content_tokens=2,
        reasoning_tokens=3,
        undeterminable_tokens=1,
    )
    assert msgspec.to_builtins(usage_of(usage)) == {
        "prompt_tokens": 10,
        "completion_tokens": 6,
        "total_tokens": 16,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }


@pytest.mark.parametrize(
    ("reason", "has_calls", "expected"),
    [
        ("stop", False, "stop"),
        ("length", False, "length"),
        ("cancelled", False, "stop"),
        ("stop", True, "tool_calls"),
        ("length", True, "length"),
    ],
)
def test_an_answer_stopped_called_or_met_its_limit(
    reason: str, has_calls: bool, expected: str
) -> None:
    assert finish_reason(Finished(TokenUsage(), reason), has_calls=has_calls) == expected


# --- on a real balancer -------------------------------------------------------------------------


def events_of(answer: Answer) -> list[dict[str, Any]]:
    """The events of a stream, whose end is checked."""
    assert answer.status == 200
    assert answer.headers.get("content-type") == "text/event-stream"
    *events, done, rest = answer.body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


def error_of(answer: Answer) -> tuple[int, str, str]:
    error = json.loads(answer.body)["error"]
    return answer.status, error["type"], error["message"]


def test_a_whole_answer_is_one_object() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        body = SMALLEST | {"model": 'a "b"', "temperature": 0, "seed": 3}
        asked = asyncio.create_task(running.post(running.openai, CHAT, body))
        start = await agent.hear_start()
        assert start.sampling == Sampling(temperature=0.0, seed=3)
        agent.say(start.stream_id, FrameKind.CONTENT, rb"a\n")
        agent.say(start.stream_id, FrameKind.REASONING, b"hm")
        agent.say(start.stream_id, FrameKind.TOOL_CALL, b"hidden")
        agent.say(start.stream_id, FrameKind.RESULT, b'{"ToolCallParsed":[]}')
        agent.say(start.stream_id, FrameKind.UNDETERMINABLE, rb"\"b\"")
        agent.finish(start.stream_id, "length")
        answer = await asked
        completion = json.loads(answer.body)
        assert answer.status == 200
        assert completion.pop("system_fingerprint").startswith("fp_")
        assert completion.pop("id").startswith("chatcmpl-")
        assert completion.pop("created") > 1_700_000_000
        assert completion == {
            "object": "chat.completion",
            "model": 'a "b"',
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": 'a\n"b"',
                        "refusal": None,
                        "annotations": [],
                        "reasoning_content": "hm",
                    },
                    "logprobs": None,
                    "finish_reason": "length",
                }
            ],
            "usage": msgspec.to_builtins(
                usage_of(TokenUsage(prompt_tokens=5, cached_prompt_tokens=3, content_tokens=3))
            ),
            "service_tier": "default",
        }

    on_balancer(test)


@pytest.mark.parametrize("options", [None, {}, {"include_usage": True}])
def test_a_streamed_answer_is_a_chunk_for_each_token(options: dict[str, bool] | None) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        body = SMALLEST | {"stream": True, "stream_options": options}
        asked = asyncio.create_task(running.post(running.openai, CHAT, body))
        start = await agent.hear_start()
        agent.say(start.stream_id, FrameKind.CONTENT, rb"a \"\u0000\" b")
        agent.say(start.stream_id, FrameKind.REASONING, b"hm")
        agent.say(start.stream_id, FrameKind.TOOL_CALL, b"hidden")
        agent.say(start.stream_id, FrameKind.RESULT, b'{"ToolCallParsed":[]}')
        agent.say(start.stream_id, FrameKind.UNDETERMINABLE, b"c")
        agent.finish(start.stream_id)
        events = events_of(await asked)
        assert len({(event["id"], event["created"], event["model"]) for event in events}) == 1
        if options:
            usage = events.pop()
            assert usage["choices"] == []
            assert usage["usage"]["total_tokens"] == 8
        assert all("usage" not in event for event in events)
        choices = [choice for event in events for choice in event["choices"]]
        assert [choice["delta"] for choice in choices] == [
            {"role": "assistant", "content": "", "refusal": None},
            {"content": 'a "\0" b'},
            {"reasoning_content": "hm"},
            {"content": "c"},
            {},
        ]
        assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["stop"]

    on_balancer(test)


@pytest.mark.parametrize("stream", [True, False])
def test_a_failure_before_the_first_token_has_its_status(stream: bool) -> None:
    async def test(running: Running) -> None:
        answer = await running.post(running.openai, CHAT, SMALLEST | {"stream": stream})
        status, _, message = error_of(answer)
        assert (status, message) == (503, "Buffered requests overflow")
        assert answer.headers.get("retry-after") == "1"

    on_balancer(test, "--max-buffered-requests", "0")


def test_a_mistake_that_the_agent_found_has_its_status() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.openai, CHAT, SMALLEST))
        start = await agent.hear_start()
        agent.fail(start.stream_id, {"ChatTemplateError": "no user turn"})
        assert error_of(await asked) == (400, "invalid_request_error", "no user turn")

    on_balancer(test)


def test_a_stream_that_moved_to_another_agent_begins_once() -> None:
    async def test(running: Running) -> None:
        first = await Agent.join(running, "id-1")
        body = SMALLEST | {"stream": True}
        asked = asyncio.create_task(running.post(running.openai, CHAT, body))
        await first.hear_start()
        second = await Agent.join(running, "id-2")
        first.leave()
        start = await second.hear_start()
        second.say(start.stream_id, FrameKind.CONTENT, b"x")
        second.finish(start.stream_id)
        events = events_of(await asked)
        roles = [event["choices"][0]["delta"].get("role") for event in events]
        assert roles == ["assistant", None, None]

    on_balancer(test)


def test_a_failure_within_a_stream_is_its_last_event() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        body = SMALLEST | {"stream": True}
        asked = asyncio.create_task(running.post(running.openai, CHAT, body))
        start = await agent.hear_start()
        agent.say(start.stream_id, FrameKind.CONTENT, b"x")
        agent.leave()
        events = events_of(await asked)
        assert events[-1]["error"]["message"] == "Agent controller connection closed"
        assert events[-1]["error"]["type"] == "server_error"

    on_balancer(test)


@pytest.mark.parametrize(
    ("body", "param", "text"),
    [
        ({"model": "m"}, "messages", "Object missing required field messages"),
        (SMALLEST | {"model": "m" * 1025}, "model", "model: Expected str of length <= 1024"),
        (SMALLEST | {"max_tokens": 0}, "max_tokens", "max_tokens is 0; it must be between 1 and"),
        (
            SMALLEST | {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
            "messages[0].content[0]: Object missing required field text",
        ),
        (
            SMALLEST | {"messages": [{"role": "user", "content": [{"type": "file"}]}]},
            "messages[0].content[0].type",
            "Invalid value 'file'; it must be text, image_url or refusal",
        ),
        (
            SMALLEST | {"tool_choice": "any"},
            "tool_choice",
            "it must be none, auto, required or an object that names a function",
        ),
        (SMALLEST | {"logit_bias": {"5": "a"}}, "logit_bias", "logit_bias: Expected float"),
        (
            SMALLEST | {"temperature": 3},
            "temperature",
            "temperature is 3.0; it must be between 0 and 2",
        ),
        (SMALLEST | {"n": 0}, "n", "n is 0; it must be between 1 and 128"),
        (
            SMALLEST | {"messages": [{"role": 1}]},
            "messages[0].role",
            "messages[0].role: Expected str, got int",
        ),
        (SMALLEST | {"tool_choice": "required"}, "tool_choice", "there are no tools"),
    ],
)
def test_a_request_that_cannot_be_is_400_and_names_the_field(
    body: dict[str, Any], param: str | None, text: str
) -> None:
    async def test(running: Running) -> None:
        answer = await running.post(running.openai, CHAT, body)
        assert answer.status == 400
        error = json.loads(answer.body)["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", param)
        assert text in error["message"]

    on_balancer(test)


def test_a_fleet_for_embeddings_does_not_chat() -> None:
    async def test(running: Running) -> None:
        await running.put_state(EMBEDDING)
        status, code, message = error_of(await running.post(running.openai, CHAT, SMALLEST))
        assert (status, code) == (501, "server_error")
        assert message.startswith("Chat completions are disabled")

    on_balancer(test)


def test_a_client_that_leaves_stops_its_stream() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        body = SMALLEST | {"stream": True}
        asked = asyncio.create_task(running.post(running.openai, CHAT, body))
        start = await agent.hear_start()
        asked.cancel()
        assert await agent.hear() == wire.StopStream(start.stream_id)

    on_balancer(test)


# --- tools --------------------------------------------------------------------------------------

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object"}},
}
CALLING = SMALLEST | {"tools": [WEATHER]}


def say_calls(agent: Agent, stream_id: int) -> None:
    """Two calls, the second with an id of the model's own, in pieces."""
    for delta in (
        wire.CallDelta(0, name="get_weather"),
        wire.CallDelta(0, arguments='{"a"'),
        wire.CallDelta(0, arguments=":1}"),
        wire.CallDelta(1, name="get_weather", id="functions.get_weather:1"),
        wire.CallDelta(1, arguments="{}"),
    ):
        agent.say(stream_id, FrameKind.CALL, wire.encode(delta))
    agent.say(stream_id, FrameKind.RESULT, b'{"ToolCallParsed":[]}')


def test_tool_calls_are_told_with_the_whole_answer() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.openai, CHAT, CALLING))
        start = await agent.hear_start()
        assert start.delivery.call_deltas
        say_calls(agent, start.stream_id)
        agent.finish(start.stream_id)
        (choice,) = json.loads((await asked).body)["choices"]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] is None
        first, second = choice["message"]["tool_calls"]
        assert first["id"].startswith("call_")
        assert second["id"] == "functions.get_weather:1"
        assert first["function"] == {"name": "get_weather", "arguments": '{"a":1}'}

    on_balancer(test)


def test_tool_calls_are_streamed_name_first() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.openai, CHAT, CALLING | {"stream": True}))
        start = await agent.hear_start()
        say_calls(agent, start.stream_id)
        agent.finish(start.stream_id)
        events = events_of(await asked)
        calls = [
            call for event in events for call in event["choices"][0]["delta"].get("tool_calls", [])
        ]
        assert calls[0].pop("id").startswith("call_")
        assert calls == [
            {"index": 0, "type": "function", "function": {"name": "get_weather", "arguments": ""}},
            {"index": 0, "function": {"arguments": '{"a"'}},
            {"index": 0, "function": {"arguments": ":1}"}},
            {
                "index": 1,
                "id": "functions.get_weather:1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": ""},
            },
            {"index": 1, "function": {"arguments": "{}"}},
        ]
        assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"

    on_balancer(test)


INVALID = b'{"ToolCallValidationFailed":["arguments are wrong","others, too"]}'


def test_calls_that_the_schema_forbids_are_an_error_of_the_whole_answer() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.openai, CHAT, CALLING))
        start = await agent.hear_start()
        agent.say(start.stream_id, FrameKind.RESULT, INVALID)
        agent.finish(start.stream_id)
        assert error_of(await asked) == (500, "server_error", "arguments are wrong")

    on_balancer(test)


def test_calls_that_the_schema_forbids_are_an_event_within_the_stream() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.openai, CHAT, CALLING | {"stream": True}))
        start = await agent.hear_start()
        agent.say(start.stream_id, FrameKind.RESULT, INVALID)
        agent.finish(start.stream_id)
        *_, error, last = events_of(await asked)
        assert error["error"]["message"] == "arguments are wrong"
        assert last["choices"][0]["finish_reason"] == "stop"

    on_balancer(test)


# --- reasoning, choices, log probabilities ------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_reasoning_is_left_out_if_it_is_not_wanted(stream: bool) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        body = SMALLEST | {"stream": stream, "include_reasoning": False}
        asked = asyncio.create_task(running.post(running.openai, CHAT, body))
        start = await agent.hear_start()
        agent.say(start.stream_id, FrameKind.REASONING, b"secret")
        agent.say(start.stream_id, FrameKind.CONTENT, b"told")
        agent.finish(start.stream_id)
        answer = await asked
        assert b"secret" not in answer.body
        assert b"told" in answer.body

    on_balancer(test)


async def answer_choices(agent: Agent, count: int) -> list[wire.StartStream]:
    """Answer as many requests of one agent, each with its number."""
    starts = [await agent.hear_start() for _ in range(count)]
    for number, start in enumerate(starts):
        agent.say(start.stream_id, FrameKind.CONTENT, b"%d" % number)
        agent.finish(start.stream_id)
    return starts


@pytest.mark.parametrize("stream", [True, False])
def test_each_choice_is_a_request_of_its_own(stream: bool) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running, slots=3)
        body = SMALLEST | {"n": 3, "seed": 5, "stream": stream}
        body |= {"stream_options": {"include_usage": True}} if stream else {}
        asked = asyncio.create_task(running.post(running.openai, CHAT, body))
        starts = await answer_choices(agent, 3)
        assert [start.sampling.seed for start in starts] == [5, 6, 7]
        answer = await asked
        if stream:
            *events, last = events_of(answer)
            texts = {0: "", 1: "", 2: ""}
            for event in events:
                choice = event["choices"][0]
                texts[choice["index"]] += choice["delta"].get("content", "")
            usage = last["usage"]
        else:
            completion = json.loads(answer.body)
            texts = {one["index"]: one["message"]["content"] for one in completion["choices"]}
            usage = completion["usage"]
        assert sorted(texts.values()) == ["0", "1", "2"]
        # The prompt counts once.
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 9)

    on_balancer(test)


@pytest.mark.parametrize("stream", [True, False])
def test_a_choice_that_fails_ends_the_others(stream: bool) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running, slots=2)
        asked = asyncio.create_task(
            running.post(running.openai, CHAT, SMALLEST | {"n": 2, "stream": stream})
        )
        first, second = [await agent.hear_start() for _ in range(2)]
        agent.fail(first.stream_id, {"SamplerError": "no"})
        assert await agent.hear() == wire.StopStream(second.stream_id)
        answer = await asked
        error = events_of(answer)[-1] if stream else json.loads(answer.body)
        assert error["error"]["message"] == "no"
        agent.finish(second.stream_id, "cancelled")

    on_balancer(test)


SCORED = wire.ScoredText(
    "Hi",
    [
        wire.TokenScore(
            wire.ScoredToken("Hi", [72, 105], -0.5), [wire.ScoredToken("Ho", [72, 111], -1.5)]
        )
    ],
)
LOGPROBS = {
    "content": [
        {
            "token": "Hi",
            "bytes": [72, 105],
            "logprob": -0.5,
            "top_logprobs": [{"token": "Ho", "bytes": [72, 111], "logprob": -1.5}],
        }
    ],
    "refusal": None,
}


@pytest.mark.parametrize("stream", [True, False])
def test_log_probabilities_go_with_the_content(stream: bool) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        body = SMALLEST | {"logprobs": True, "top_logprobs": 1, "stream": stream}
        asked = asyncio.create_task(running.post(running.openai, CHAT, body))
        start = await agent.hear_start()
        assert start.sampling.top_logprobs == 1
        agent.say(start.stream_id, FrameKind.SCORED, wire.encode(SCORED))
        agent.finish(start.stream_id)
        answer = await asked
        if stream:
            choice = events_of(answer)[1]["choices"][0]
            assert choice["delta"] == {"content": "Hi"}
        else:
            (choice,) = json.loads(answer.body)["choices"]
            assert choice["message"]["content"] == "Hi"
        assert choice["logprobs"] == LOGPROBS

    on_balancer(test)
