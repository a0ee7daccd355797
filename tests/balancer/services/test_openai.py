"""Chat completions: what becomes of a request, and what of an answer."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from paddler.balancer.link import Concluded
from paddler.balancer.services.openai import (
    conversation_of,
    error_response,
    finish_reason,
    message_of,
    refuse_unserved,
    render_error,
    sampling_of,
    usage_of,
)
from paddler.errors import ClientError
from paddler.messages import link as wire
from paddler.messages.inference import (
    ConversationMessage,
    Failure,
    ImagePart,
    ImageUrl,
    TextPart,
    TokenUsage,
)
from paddler.messages.link import Finished, FrameKind, Sampling
from paddler.messages.openai import ChatCompletionRequest
from tests.balancer.services.running import Agent, Running, on_balancer
from tests.balancer.services.test_inference import EMBEDDING
from tests.balancer.test_pool import Pool, join
from tests.net.peers import Answer

CHAT = "/v1/chat/completions"
SMALLEST: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def chat(**changes: Any) -> ChatCompletionRequest:
    return msgspec.convert(SMALLEST | changes, ChatCompletionRequest)


# --- requests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "max_tokens"),
    [
        ({}, 2000),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_completion_tokens": 0, "max_tokens": 5}, 0),
    ],
)
def test_the_newer_name_of_the_limit_wins(limits: dict[str, int], max_tokens: int) -> None:
    assert conversation_of(chat(**limits)).max_tokens == max_tokens


def test_a_chat_is_a_conversation_that_goes_on() -> None:
    conversation = conversation_of(chat())
    assert conversation.add_generation_prompt
    assert conversation.enable_thinking
    assert conversation.conversation_history == [ConversationMessage("user", "Hi")]


IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Hi", "Hi"),
        ("", ""),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}], "a"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([{"type": "text", "text": "a"}, IMAGE], [TextPart("a"), ImagePart(ImageUrl("data:,"))]),
    ],
)
def test_content_becomes_text_unless_there_is_an_image(content: object, expected: object) -> None:
    (message,) = chat(messages=[{"role": "r", "content": content}]).messages
    assert message_of(message) == ConversationMessage("r", expected)


def test_sampling_is_what_the_request_sets() -> None:
    assert sampling_of(chat()) == Sampling()
    values = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "presence_penalty": -1.0,
        "frequency_penalty": 1.0,
        "seed": 7,
    }
    assert msgspec.to_builtins(sampling_of(chat(**values))) == values


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 2},
        {"stop": "a"},
        {"stop": ["a"]},
        {"logprobs": True},
        {"logit_bias": {"1": 1.0}},
        {"response_format": {"type": "json_object"}},
        {"tools": [{}]},
    ],
)
def test_what_is_not_served_is_refused_by_name(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(ClientError, match=f"^{name} is not supported") as caught:
        refuse_unserved(chat(**changes))
    assert (caught.value.status, caught.value.code) == (400, "unsupported")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n": 1},
        {"stop": []},
        {"logprobs": False},
        {"logit_bias": {}},
        {"response_format": {"type": "text"}},
        {"tools": []},
    ],
)
def test_asking_for_nothing_is_not_refused(changes: dict[str, Any]) -> None:
    refuse_unserved(chat(**changes))


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
    ("reason", "expected"), [("stop", "stop"), ("length", "length"), ("cancelled", "stop")]
)
def test_an_answer_stopped_or_met_its_limit(reason: str, expected: str) -> None:
    assert finish_reason(Finished(TokenUsage(), reason)) == expected


@pytest.mark.parametrize(
    ("status", "kind", "retry_after"),
    [
        (400, "invalid_request_error", None),
        (404, "invalid_request_error", None),
        (500, "server_error", None),
        (503, "server_error", "1"),
    ],
)
def test_an_error_has_openais_shape(status: int, kind: str, retry_after: str | None) -> None:
    response = render_error(status, "some_code", "no", (("allow", "GET"),))
    assert response.status == status
    assert response.content_type == "application/json"
    assert json.loads(response.body) == {
        "error": {"message": "no", "type": kind, "param": None, "code": None}
    }
    headers = dict(response.headers)
    assert headers["allow"] == "GET"
    assert headers.get("retry-after") == retry_after


@pytest.mark.parametrize(
    ("result", "status", "message"),
    [
        (b'{"GrammarSyntaxError":"line 1"}', 400, "line 1"),
        (
            b'{"ImageExceedsBatchSize":{"image_tokens":9,"n_batch":8}}',
            400,
            '{"image_tokens":9,"n_batch":8}',
        ),
        (b'{"SamplerError":"no"}', 500, "no"),
    ],
)
def test_an_agents_error_is_the_callers_or_the_servers(
    result: bytes, status: int, message: str
) -> None:
    response = error_response(Concluded(result, join(Pool(), "a", 1)))
    assert response.status == status
    error = json.loads(response.body)["error"]
    assert error["message"] == message


def test_a_request_that_would_fail_again_is_the_callers_fault() -> None:
    result = b'{"SamplerError":"the prompt is too long"}'
    response = error_response(Concluded(result, join(Pool(), "a", 1), is_refusal=True))
    assert response.status == 400


def test_a_failure_keeps_its_status() -> None:
    response = error_response(Failure(504, "too slow"))
    assert response.status == 504
    assert json.loads(response.body)["error"]["message"] == "too slow"


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
        agent.say(start.stream_id, FrameKind.REASONING, b"hidden")
        agent.say(start.stream_id, FrameKind.RESULT, b'{"ToolCallParsed":[]}')
        agent.say(start.stream_id, FrameKind.UNDETERMINABLE, rb"\"b\"")
        agent.finish(start.stream_id, "length")
        answer = await asked
        completion = json.loads(answer.body)
        assert answer.status == 200
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
        agent.say(start.stream_id, FrameKind.REASONING, b"hidden")
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
            {"content": "c"},
            {},
        ]
        assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]

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
    ("body", "names"),
    [
        ({"model": "m"}, "missing required field `messages`"),
        (SMALLEST | {"temperature": 3}, "`$.temperature`"),
        (SMALLEST | {"n": 2}, "n is not supported"),
    ],
)
def test_a_request_that_cannot_be_is_400_and_names_the_field(
    body: dict[str, Any], names: str
) -> None:
    async def test(running: Running) -> None:
        status, _, message = error_of(await running.post(running.openai, CHAT, body))
        assert status == 400
        assert names in message

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
