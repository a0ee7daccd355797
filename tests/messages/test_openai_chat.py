"""Chat completions as OpenAI's clients write and read them."""

import json
from typing import Any

import msgspec
import pytest

from paddler.messages.openai.chat import (
    ChatChunk,
    ChatCompletionRequest,
    ChatDelta,
    ChatMessage,
    ChunkChoice,
    FunctionDelta,
    TextPart,
    ToolCallDelta,
)
from paddler.messages.openai.common import (
    CompletionTokensDetails,
    CompletionUsage,
    ErrorBody,
    ErrorDetail,
    PromptTokensDetails,
)

SMALLEST: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def decode(**changes: Any) -> ChatCompletionRequest:
    wire = json.dumps(SMALLEST | changes).encode()
    return msgspec.json.decode(wire, type=ChatCompletionRequest)


def test_a_model_and_a_message_are_enough() -> None:
    request = decode()
    assert request == ChatCompletionRequest(model="m", messages=[ChatMessage("user", "Hi")])
    assert request.stream is None
    assert request.temperature is None


def test_unknown_keys_are_ignored_everywhere() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "Hi", "new": 1}], "new": 1}]
    request = decode(messages=messages, new=1, stream_options={"include_usage": True, "new": 1})
    assert request.messages == [ChatMessage("user", [TextPart("Hi")])]


def test_content_may_be_null() -> None:
    messages = [{"role": "assistant", "content": None}, {"role": "user"}]
    assert [m.content for m in decode(messages=messages).messages] == [None, None]


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("messages", [[{"role": "user", "content": "Hi"}]], [[], "Hi", None]),
        ("max_tokens", [1, None], [0.5, "5"]),
        ("max_completion_tokens", [1, None], [1.5]),
        ("temperature", [0, 2, 0.5, None], ["warm"]),
        ("seed", [0, None], [0.5]),
        ("tool_choice", ["none", "auto", "required", None], ["always", {"type": "custom"}]),
        ("response_format", [{"type": "text"}, None], [{"type": "xml"}, "json"]),
        ("stop", ["a", ["a", "b"], None], [1]),
        ("stream", [True, None], ["yes"]),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(
    name: str, allowed: list[Any], refused: list[Any]
) -> None:
    for value in allowed:
        decode(**{name: value})
    for value in refused:
        with pytest.raises(msgspec.ValidationError, match=rf"\$\.{name}"):
            decode(**{name: value})


def test_a_chunk_has_the_keys_that_openais_have() -> None:
    chunk = ChatChunk(
        id="chatcmpl-1",
        created=7,
        model="m",
        system_fingerprint="fp_1",
        choices=[ChunkChoice(index=0, delta=ChatDelta(content="a"))],
    )
    assert json.loads(msgspec.json.encode(chunk)) == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "system_fingerprint": "fp_1",
        "choices": [
            {"index": 0, "delta": {"content": "a"}, "logprobs": None, "finish_reason": None}
        ],
    }


def test_a_first_delta_may_say_that_there_is_no_refusal() -> None:
    delta = ChatDelta(role="assistant", content="", refusal=None)
    assert msgspec.json.encode(delta) == b'{"role":"assistant","content":"","refusal":null}'
    assert msgspec.json.encode(ChatDelta()) == b"{}"


def test_a_call_is_named_once() -> None:
    begins = ToolCallDelta(index=0, id="a", type="function", function=FunctionDelta("f", ""))
    assert msgspec.json.encode(begins) == (
        b'{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}'
    )
    more = ToolCallDelta(index=0, function=FunctionDelta(arguments="{}"))
    assert msgspec.json.encode(more) == b'{"index":0,"function":{"arguments":"{}"}}'


def test_usage_has_the_keys_that_openais_has() -> None:
    usage = CompletionUsage(
        prompt_tokens=1,
        completion_tokens=2,
        total_tokens=3,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=1),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=0),
    )
    assert json.loads(msgspec.json.encode(usage)) == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_an_error_has_the_keys_that_openais_has() -> None:
    body = ErrorBody(ErrorDetail(message="no", type="invalid_request_error", code="json"))
    assert json.loads(msgspec.json.encode(body)) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": None, "code": "json"}
    }
