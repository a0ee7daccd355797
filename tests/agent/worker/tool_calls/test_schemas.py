from typing import Any, NamedTuple

import pytest

from paddler.agent.worker.tool_calls.schemas import (
    failed_checks,
    invalid_schema,
    parameter_schemas,
)
from paddler.messages.chat import Function, Tool
from paddler.messages.tools import ParsedToolCall, ToolCallArguments


def tool(name: str, parameters: dict[str, Any] | None) -> Tool:
    return Tool(Function(name, "", parameters))


def taking(name: str, **properties: Any) -> Tool:
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    return tool(name, schema)


def call(name: str, arguments: Any) -> ParsedToolCall:
    return ParsedToolCall("call_0", name, ToolCallArguments(valid_json=arguments))


TOOLS = [taking("get_weather", days={"type": "integer"}), tool("anything", None)]


def test_valid_calls_pass() -> None:
    assert failed_checks([call("get_weather", {"days": 1}), call("anything", [1])], TOOLS) == []


def test_each_bad_call_is_named() -> None:
    calls = [call("get_weather", {"days": "1"}), call("forecast", {}), call("get_weather", {})]
    assert failed_checks(calls, TOOLS) == [
        "arguments for tool \"get_weather\" failed schema check: '1' is not of type 'integer'",
        'unknown tool name "forecast"',
        "arguments for tool \"get_weather\" failed schema check: 'days' is a required property",
    ]


def test_text_that_is_no_json_is_not_checked() -> None:
    broken = ParsedToolCall("call_0", "get_weather", ToolCallArguments(invalid_json="{"))
    assert failed_checks([broken], TOOLS) == []


def test_long_complaints_are_cut() -> None:
    [text] = failed_checks([call("get_weather", {"days": "x" * 9999})], TOOLS)
    assert len(text) < 600


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("http://127.0.0.1:1/schema", "refers to 'http://127.0.0.1:1/schema'"),
        ("file:///etc/passwd", "refers to 'file:///etc/passwd'"),
        ("#/$defs/missing", "refers to '/$defs/missing'"),
        ("#", "is not of type 'object'"),
        ("#/properties/days", "refers to itself without end"),
    ],
)
def test_references_are_never_followed_outside(reference: str, complaint: str) -> None:
    [text] = failed_checks([call("f", {"days": 1})], [taking("f", days={"$ref": reference})])
    assert complaint in text


def test_broken_schema_is_named() -> None:
    assert invalid_schema(TOOLS) is None
    text = invalid_schema([*TOOLS, taking("odd", days={"type": 123})])
    assert text is not None
    assert text.startswith('tool "odd" parameters are not a valid JSON Schema: 123')


def test_endless_schema_is_broken() -> None:
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"not": deep}
    text = invalid_schema([taking("deep", days=deep)])
    assert text is not None
    assert "nested too deeply" in text


def test_schemas_of_parameters_are_found_by_tool() -> None:
    assert parameter_schemas(TOOLS) == {
        "get_weather": {"days": {"type": "integer"}},
        "anything": {},
    }


def test_schemas_of_parameters_tell_what_references_and_combinations_mean() -> None:
    class AnyFunction(NamedTuple):
        name: str
        parameters: Any

    class AnyTool(NamedTuple):
        function: AnyFunction

    parameters = {
        "$defs": {"color": {"enum": ["red", 7]}, "loop": {"$ref": "#/$defs/loop"}},
        "allOf": [{"properties": {"a": {"$ref": "#/$defs/color"}}}],
        "properties": {
            "b": {"allOf": [{"type": ["string", "null"]}, {"maxLength": 3}]},
            "c": {"anyOf": [{"$ref": "#/$defs/color"}, {}]},
            "d": {"$ref": "https://example.invalid/x"},
            "e": {"$ref": "#/$defs/loop"},
        },
    }
    assert parameter_schemas([AnyTool(AnyFunction("f", parameters))]) == {  # type: ignore[list-item]
        "f": {
            "a": {"anyOf": [{"enum": ["red"]}, {"enum": [7]}]},
            "b": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "c": {},
            "d": {"$ref": "https://example.invalid/x"},
            "e": {"anyOf": []},
        }
    }
