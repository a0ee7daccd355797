"""What a request to the Responses API asks of an agent."""

import re
from typing import Any

import msgspec
import pytest

from paddler.balancer.services.openai.errors import ParameterError
from paddler.balancer.services.openai.responses import echoed_choice
from paddler.balancer.services.openai.responses_request import agent_request, tool_choice_of
from paddler.balancer.services.openai.tool_choice import AllowedChoice, NamedChoice, ToolChoice
from paddler.messages import chat
from paddler.messages.inference import ImagePart, ImageUrl, JsonSchemaGrammar, TextPart
from paddler.messages.openai.responses import ResponsesRequest


def request(**changes: Any) -> ResponsesRequest:
    return msgspec.convert({"model": "m"} | changes, ResponsesRequest)


def asked(**changes: Any) -> chat.Chat:
    return agent_request(request(**changes)).job.request


def said(role: str, content: Any, **more: Any) -> chat.Message:
    return chat.Message(role=role, content=content, **more)


CALL = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "a", "output": "2"}
THOUGHT = {
    "type": "reasoning",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "hm"}],
}
CALLED = chat.ToolCall(chat.FunctionCall("f", "{}"), "a")


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"input": "Hi"}, [said("user", "Hi")]),
        ({}, []),
        ({"input": "Hi", "instructions": "Be"}, [said("system", "Be"), said("user", "Hi")]),
        ({"input": "Hi", "instructions": ""}, [said("user", "Hi")]),
        ({"input": [{"role": "developer", "content": "Be"}]}, [said("system", "Be")]),
        (
            {"input": [{"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "a"}, {"type": "input_file"},
                {"type": "output_text", "text": "b"}, {"type": "input_image"},
            ]}]},
            [said("user", "a\nb")],
        ),
        (
            {"input": [{"role": "user", "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_image", "image_url": "data:,", "detail": "auto"},
            ]}]},
            [said("user", [TextPart("a"), ImagePart(ImageUrl("data:,"))])],
        ),
        # A thought, what was said and what was called are one turn.
        (
            {"input": [THOUGHT, {"role": "assistant", "content": "Hi"}, CALL, OUTPUT]},
            [
                said("assistant", "Hi", reasoning_content="hm", tool_calls=[CALLED]),
                said("tool", "2", tool_call_id="a"),
            ],
        ),
        (
            {"input": [THOUGHT, CALL, CALL, OUTPUT]},
            [
                said("assistant", None, reasoning_content="hm", tool_calls=[CALLED, CALLED]),
                said("tool", "2", tool_call_id="a"),
            ],
        ),
        (
            {"input": [{"type": "computer_call"}, {"role": "user", "content": "Hi"}]},
            [said("user", "Hi")],
        ),
    ],
)  # fmt: skip
def test_items_become_turns(changes: dict[str, Any], messages: list[chat.Message]) -> None:
    assert asked(**changes).messages == messages


@pytest.mark.parametrize(
    ("changes", "thinks", "variables"),
    [
        ({}, True, {}),
        ({"reasoning": {"effort": "none"}}, False, {}),
        ({"reasoning": {"effort": "low"}}, True, {"reasoning_effort": "low"}),
        ({"reasoning": {}}, True, {}),
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
        ({"type": "new"}, None),
        ({"type": "json_object"}, '{"type":"object"}'),
        ({"type": "json_schema", "name": "n", "schema": {"type": "array"}}, '{"type":"array"}'),
    ],
)
def test_a_format_is_a_grammar(wanted: dict[str, Any], schema: str | None) -> None:
    grammar = asked(text={"format": wanted}).grammar
    assert grammar == (None if schema is None else JsonSchemaGrammar(schema))


def test_tools_are_flat() -> None:
    conversation = asked(
        tools=[{"type": "function", "name": "f", "strict": True}, {"type": "web_search"}],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        max_output_tokens=7,
    )
    assert conversation.tools == [chat.Tool(chat.Function("f", "", None, True))]
    assert (conversation.must_call, conversation.only_tool) == (True, "f")
    assert not conversation.may_repeat_calls
    assert conversation.max_tokens == 7
    assert asked().max_tokens == 2000


@pytest.mark.parametrize(
    ("changes", "param", "text"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send the whole conversation"),
        ({"conversation": {"id": "a"}}, "conversation", "send the whole conversation"),
        ({"store": True}, "store", "nothing is stored"),
        ({"background": True}, "background", "leave it out"),
        ({"input": [{"type": "item_reference", "id": "a"}]}, "input[0]", "send the item itself"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "send the text itself"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing required field content"),
        ({"input": [{}]}, "input[0].role", "missing required field role"),
        (
            {"input": [{"type": "function_call"}]},
            "input[0].call_id",
            "missing required field call_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": 5}]}]},
            "input[0].content[0].text",
            "input[0].content[0].text: Expected str, got int",
        ),
        (
            {"input": [{"role": "user", "content": ["x"]}]},
            "input[0].content[0]",
            "input[0].content[0]: Expected object, got str",
        ),
        (
            {"text": {"format": {"type": "json_schema"}}},
            "text.format.schema",
            "text.format.schema is missing",
        ),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice", '{"type":"mcp"}'),
        ({"tool_choice": {"type": "x" * 999}}, "tool_choice", "x…; it must be"),
        ({"tool_choice": {"type": "function"}}, "tool_choice", "it must be none"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "is empty"),
        (
            {
                "tools": [{"type": "function", "name": "f"}],
                "tool_choice": "required",
                "text": {"format": {"type": "json_object"}},
            },
            "tool_choice",
            "only one can be had",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: dict[str, Any], param: str, text: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(text)) as caught:
        agent_request(request(**changes))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "name": "f"}, NamedChoice("f")),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}],
            },
            AllowedChoice(("f",), must_call=True),
        ),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": []},
            AllowedChoice((), must_call=False),
        ),
    ],
)
def test_tool_choice_is_a_word_or_names_functions(choice: Any, expected: ToolChoice) -> None:
    assert tool_choice_of(choice) == expected
    assert tool_choice_of(echoed_choice(expected)) == expected


def test_no_tools_are_as_good_as_null() -> None:
    assert asked(tools=None).tools == asked(tools=[]).tools == []


@pytest.mark.parametrize("name", ["store", "background"])
def test_what_is_turned_off_is_no_state(name: str) -> None:
    agent_request(request(**{name: False}))
