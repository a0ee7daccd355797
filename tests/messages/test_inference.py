"""Native requests and answers, as clients write and read them."""

import json
from typing import Any

import msgspec
import pytest

from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ContinueFromRawPrompt,
    ConversationMessage,
    ErrorEnvelope,
    ErrorMessage,
    Failure,
    GbnfGrammar,
    GeneratedTokenResult,
    ImagePart,
    ImageUrl,
    JsonSchemaGrammar,
    OversizedImage,
    ResponseEnvelope,
    ResponseMessage,
    TextPart,
    TokenUsage,
    Tool,
    ToolFunction,
    ToolParameters,
    decode_conversation,
    decode_raw_prompt,
)

RAW: dict[str, Any] = {"raw_prompt": "Once", "max_tokens": 5}
CONVERSATION: dict[str, Any] = {
    "add_generation_prompt": True,
    "conversation_history": [{"role": "user", "content": "Hi"}],
    "enable_thinking": False,
    "max_tokens": 5,
}


def conversation(**changes: Any) -> ContinueFromConversationHistory:
    return decode_conversation(json.dumps(CONVERSATION | changes).encode())


def test_a_raw_prompt_needs_its_text_and_a_limit() -> None:
    request = decode_raw_prompt(json.dumps(RAW).encode())
    assert request == ContinueFromRawPrompt(raw_prompt="Once", max_tokens=5)
    for key in RAW:
        with pytest.raises(msgspec.ValidationError, match=f"missing required field `{key}`"):
            decode_raw_prompt(json.dumps({k: v for k, v in RAW.items() if k != key}).encode())


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        (None, None),
        (
            {"type": "gbnf", "grammar": 'root ::= "a"', "root": "root"},
            GbnfGrammar('root ::= "a"', "root"),
        ),
        ({"type": "json_schema", "schema": "{}"}, JsonSchemaGrammar("{}")),
    ],
)
def test_grammars_name_their_kind(grammar: object, expected: object) -> None:
    assert decode_raw_prompt(json.dumps(RAW | {"grammar": grammar}).encode()).grammar == expected


def test_a_conversations_options_are_off_unless_asked_for() -> None:
    request = conversation()
    assert request.conversation_history == [ConversationMessage("user", "Hi")]
    assert (request.grammar, request.parse_tool_calls, request.tools) == (None, False, [])


@pytest.mark.parametrize("key", CONVERSATION)
def test_a_conversation_needs_every_other_key(key: str) -> None:
    wire = json.dumps({k: v for k, v in CONVERSATION.items() if k != key}).encode()
    with pytest.raises(msgspec.ValidationError, match=f"missing required field `{key}`"):
        decode_conversation(wire)


def test_content_is_text_or_parts() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    request = conversation(conversation_history=[{"role": "user", "content": parts}])
    assert request.conversation_history[0].content == [
        TextPart("What is this?"),
        ImagePart(ImageUrl("data:image/png;base64,AA==")),
    ]


def test_tools_keep_what_their_schema_says_and_nothing_more() -> None:
    tool: dict[str, Any] = {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells it",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    request = conversation(tools=[tool])
    assert request.tools == [
        Tool(
            ToolFunction(
                "weather",
                "Tells it",
                ToolParameters(
                    type="object",
                    properties={"city": {"type": "string"}},
                    required=["city"],
                    additional_properties=False,
                ),
            )
        )
    ]
    assert json.loads(msgspec.json.encode(request.tools[0])) == tool


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"max_tokens": 2**31},
        {"max_tokens": "5"},
        {"enable_thinking": 1},
        {"grammar": {"type": "regex", "pattern": "a"}},
        {"conversation_history": [{"role": "user", "content": "Hi", "name": "x"}]},
        {"conversation_history": [{"role": "user", "content": None}]},
        {"conversation_history": [{"role": "user", "content": [{"type": "audio"}]}]},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tools": [{"type": "other", "function": {"name": "f", "description": ""}}]},
    ],
)
def test_what_a_conversation_does_not_know_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        conversation(**change)


def test_an_error_has_a_code_a_description_and_its_request() -> None:
    message = ErrorMessage(ErrorEnvelope("r-1", Failure(503, "full")))
    assert msgspec.json.encode(message) == (
        b'{"Error":{"request_id":"r-1","error":{"code":503,"description":"full"}}}'
    )


def test_a_response_says_who_answered_which_request() -> None:
    message = ResponseMessage(ResponseEnvelope(None, "r-1", {"GeneratedToken": {}}))
    assert msgspec.json.encode(message) == (
        b'{"Response":{"generated_by":null,"request_id":"r-1","response":{"GeneratedToken":{}}}}'
    )


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (GeneratedTokenResult(content_token="a"), {"ContentToken": "a"}),
        (GeneratedTokenResult(undeterminable_token=""), {"UndeterminableToken": ""}),
        (GeneratedTokenResult(sampler_error="x"), {"SamplerError": "x"}),
        (
            GeneratedTokenResult(
                image_exceeds_batch_size=OversizedImage(image_tokens=9, n_batch=8)
            ),
            {"ImageExceedsBatchSize": {"image_tokens": 9, "n_batch": 8}},
        ),
    ],
)
def test_a_result_is_an_object_with_the_variants_name(
    result: GeneratedTokenResult, expected: dict[str, Any]
) -> None:
    assert json.loads(msgspec.json.encode(result)) == expected


def test_the_last_result_counts_every_kind_of_token() -> None:
    usage = TokenUsage(
        prompt_tokens=7,
        cached_prompt_tokens=5,
        content_tokens=1,
        reasoning_tokens=20,
        tool_call_tokens=300,
        undeterminable_tokens=4000,
    )
    assert usage.completion_tokens == 4321
    assert json.loads(msgspec.json.encode(GeneratedTokenResult(done={"usage": usage}))) == {
        "Done": {
            "usage": {
                "prompt_tokens": 7,
                "cached_prompt_tokens": 5,
                "input_image_tokens": 0,
                "input_audio_tokens": 0,
                "content_tokens": 1,
                "reasoning_tokens": 20,
                "tool_call_tokens": 300,
                "undeterminable_tokens": 4000,
            }
        }
    }
