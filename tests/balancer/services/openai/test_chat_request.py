"""What a chat completion asks of an agent."""

import re
from typing import Any

import msgspec
import pytest

from paddler.balancer.services.openai.chat_request import agent_request, message_of
from paddler.balancer.services.openai.errors import ParameterError
from paddler.messages import chat
from paddler.messages.inference import ImagePart, ImageUrl, JsonSchemaGrammar, TextPart
from paddler.messages.link import Delivery, Sampling
from paddler.messages.openai.chat import ChatCompletionRequest

SMALLEST: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def request(**changes: Any) -> ChatCompletionRequest:
    return msgspec.convert(SMALLEST | changes, ChatCompletionRequest)


def asked(**changes: Any) -> chat.Chat:
    return agent_request(request(**changes)).job.request


@pytest.mark.parametrize(
    ("limits", "max_tokens"),
    [
        ({}, 2000),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
    ],
)
def test_the_newer_name_of_the_limit_wins(limits: dict[str, int], max_tokens: int) -> None:
    assert asked(**limits).max_tokens == max_tokens


def test_a_chat_is_a_conversation_that_goes_on() -> None:
    assert asked() == chat.Chat(
        messages=[chat.Message(role="user", content="Hi")], max_tokens=2000, enable_thinking=True
    )


IMAGE = {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Hi", "Hi"),
        ("", ""),
        (None, None),
        ([], ""),
        ([{"type": "text", "text": "a"}], "a"),
        ([{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}], "a\nb"),
        ([{"type": "text", "text": "a"}, IMAGE], [TextPart("a"), ImagePart(ImageUrl("data:,"))]),
    ],
)
def test_content_becomes_text_unless_there_is_an_image(content: object, expected: object) -> None:
    (message,) = request(messages=[{"role": "r", "content": content}]).messages
    assert message_of(message) == chat.Message(role="r", content=expected)  # type: ignore[arg-type]


def test_calls_and_their_results_reach_the_template_as_such() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "hm"},
        {"role": "tool", "tool_call_id": "a", "content": "2"},
    ]
    assert asked(messages=messages).messages == [
        chat.Message(
            role="assistant",
            reasoning_content="hm",
            tool_calls=[chat.ToolCall(chat.FunctionCall("f", '{"x":1}'), "a")],
        ),
        chat.Message(role="tool", content="2", tool_call_id="a"),
    ]


def test_arguments_that_are_an_object_are_written_as_json() -> None:
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    (message,) = asked(messages=[{"role": "assistant", "tool_calls": [call]}]).messages
    assert message.tool_calls == [chat.ToolCall(chat.FunctionCall("f", '{"x":1}'))]


def test_sampling_is_what_the_request_sets() -> None:
    assert agent_request(request()).sampling == Sampling()
    values = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "presence_penalty": -1.0,
        "frequency_penalty": 1.0,
        "seed": 7,
    }
    assert msgspec.to_builtins(agent_request(request(**values)).sampling) == values


def test_log_probabilities_and_biases_are_the_samplers() -> None:
    sampling = agent_request(request(logprobs=True, logit_bias={"7": -100.0})).sampling
    assert (sampling.top_logprobs, sampling.logit_bias) == (0, {7: -100.0})


LIMITS: Any = {"limits_calls": True, "context_is_limit": True}


@pytest.mark.parametrize(
    ("changes", "delivery"),
    [
        ({}, Delivery(**LIMITS)),
        ({"stop": "a"}, Delivery(stop=("a",), **LIMITS)),
        (
            {"stop": ["a", "", "b"]},
            Delivery(stop=("a", "b"), **LIMITS),
        ),
        ({"tools": [{"type": "web_search"}]}, Delivery(**LIMITS)),
        (
            {"parallel_tool_calls": False},
            Delivery(max_calls=1, **LIMITS),
        ),
    ],
)
def test_delivery_is_what_the_request_sets(changes: dict[str, Any], delivery: Delivery) -> None:
    assert agent_request(request(**changes)).delivery == delivery


# --- tools --------------------------------------------------------------------------------------

SCHEMA = {"$schema": "x", "type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {}}


def tool(name: str = "f", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [*map(tool, names)]}}


def test_a_tool_keeps_the_whole_of_its_schema() -> None:
    conversation = asked(tools=[tool(parameters=SCHEMA, strict=True)])
    assert conversation.tools == [chat.Tool(chat.Function("f", "", SCHEMA, True))]
    assert conversation.parses_calls


def test_what_templates_read_of_a_schema_is_always_there() -> None:
    (with_empty,) = asked(tools=[tool(parameters={})]).tools
    assert with_empty.function.parameters == {"type": "object", "properties": {}}
    (without,) = asked(tools=[tool()]).tools
    assert without.function.parameters is None


@pytest.mark.parametrize(
    ("choice", "must_call", "only", "offered"),
    [
        (None, False, None, 2),
        ("auto", False, None, 2),
        ("none", False, None, 0),
        ("required", True, None, 2),
        ({"type": "function", "function": {"name": "g"}}, True, "g", 2),
        (allowed("auto", "g"), False, None, 1),
        (allowed("required", "g"), True, None, 1),
    ],
)
def test_tool_choice_says_whether_and_what_is_called(
    choice: object, must_call: bool, only: str | None, offered: int
) -> None:
    conversation = asked(tools=[tool(), tool("g")], tool_choice=choice)
    assert (conversation.must_call, conversation.only_tool) == (must_call, only)
    assert len(conversation.tools) == offered


# --- reasoning and structured output ------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "thinks", "variables"),
    [
        ({}, True, {}),
        ({"reasoning_effort": "none"}, False, {}),
        ({"reasoning_effort": "low"}, True, {"reasoning_effort": "low"}),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False, {}),
        ({"chat_template_kwargs": {"enable_thinking": True, "x": 1}}, True, {"x": 1}),
        (
            {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "none"},
            True,
            {},
        ),
    ],
)
def test_reasoning_is_on_unless_it_is_turned_off(
    changes: dict[str, Any], thinks: bool, variables: dict[str, Any]
) -> None:
    conversation = asked(**changes)
    assert (conversation.enable_thinking, conversation.variables) == (thinks, variables)


@pytest.mark.parametrize(
    ("wanted", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, '{"type":"object"}'),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}},
            '{"type":"array"}',
        ),
    ],
)
def test_a_response_format_is_a_grammar(wanted: dict[str, Any], schema: str | None) -> None:
    grammar = asked(response_format=wanted).grammar
    assert grammar == (None if schema is None else JsonSchemaGrammar(schema))


@pytest.mark.parametrize(
    ("changes", "param", "text"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0]", "lacks the key function"),
        ({"tools": [tool("")]}, "tools[0].function.name", "is empty"),
        (
            {"tools": [tool(parameters={"properties": {}, "required": ["x"]})]},
            "tools",
            "Required field 'x' not found in properties",
        ),
        (
            {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice",
            "names 'g'; the functions in tools are: f",
        ),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        (
            {"tools": [tool()], "tool_choice": allowed("auto", "f", "g")},
            "tool_choice",
            "names 'g'; the functions in tools are: f",
        ),
        (
            {
                "tools": [tool()],
                "tool_choice": "required",
                "response_format": {"type": "json_object"},
            },
            "tool_choice",
            "only one can be had",
        ),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ({"stop": ["x"] * 17}, "stop", "has 17 texts; at most 16"),
        ({"logit_bias": {"a": 1.0}}, "logit_bias", "keys are ids of tokens"),
        ({"logit_bias": {"1": 101.0}}, "logit_bias[1]", "must be between -100 and 100"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs", "the key messages"),
        (
            {"chat_template_kwargs": {"enable_thinking": 1}},
            "chat_template_kwargs",
            "must be true or false",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema",
            "is missing",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: dict[str, Any], param: str, text: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(text)) as caught:
        agent_request(request(**changes))
    assert caught.value.param == param
