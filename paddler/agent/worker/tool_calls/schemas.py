"""Checks of tool calls against the JSON schemas of the tools.

Schemas are strangers' work: their patterns may take any time, their references may go
in circles. References to other documents are never fetched.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from paddler.agent.worker.gbnf.alternatives import plain_properties
from paddler.agent.worker.tool_calls.reading import ParameterSchemas
from paddler.messages.chat import Tool
from paddler.messages.tools import ParsedToolCall

# jsonschema quotes the value that failed, however long it is.
_MAX_MESSAGE_CHARS: Final = 500

_NOTHING_TO_FETCH: Final[Registry[Any]] = Registry()


def parameter_schemas(tools: Sequence[Tool]) -> ParameterSchemas:
    """By tool, the schemas of its parameters; none for a tool that declares none."""
    return {tool.function.name: plain_properties(_schema(tool)) for tool in tools}


def invalid_schema(tools: Sequence[Tool]) -> str | None:
    """Which tool's parameters are no valid JSON schema, and why; ``None``: all are."""
    for tool in tools:
        try:
            schema = _schema(tool)
            _dialect(schema).check_schema(schema)
        except (SchemaError, RecursionError) as error:
            why = error.message if isinstance(error, SchemaError) else "it is nested too deeply"
            return invalid_schema_text(tool.function.name, _shortened(why))
    return None


def invalid_schema_text(name: str, why: str) -> str:
    """How a bad schema is told."""
    return f'tool "{name}" parameters are not a valid JSON Schema: {why}'


def failed_checks(calls: Sequence[ParsedToolCall], tools: Sequence[Tool]) -> list[str]:
    """What is wrong with the calls, a text for each bad one."""
    schemas = {tool.function.name: _schema(tool) for tool in tools}
    return [text for call in calls if (text := _failure(call, schemas)) is not None]


def _failure(call: ParsedToolCall, schemas: Mapping[str, dict[str, Any]]) -> str | None:
    if call.name not in schemas:
        return f'unknown tool name "{call.name}"'
    # Text that is no JSON is told as such; a schema has nothing to say about it.
    if call.arguments.valid_json is msgspec.UNSET:
        return None
    why = _violation(call.arguments.valid_json, schemas[call.name])
    if why is None:
        return None
    return f'arguments for tool "{call.name}" failed schema check: {_shortened(why)}'


def _violation(arguments: Any, schema: dict[str, Any]) -> str | None:
    """The first thing that the schema does not allow."""
    validator = _dialect(schema)(schema, registry=_NOTHING_TO_FETCH)
    try:
        error: ValidationError | None = next(validator.iter_errors(arguments), None)
    except Unresolvable as unresolvable:
        return f"the schema refers to {unresolvable.ref!r}, which it does not contain"
    except RecursionError:
        return "the schema refers to itself without end"
    return None if error is None else error.message


def _schema(tool: Tool) -> dict[str, Any]:
    """The schema as it was given; everything is allowed where there is none."""
    return tool.function.parameters or {}


def _dialect(schema: dict[str, Any]) -> type[Validator]:
    """The version of JSON schema that a schema says it is in; 2020-12 where it does not say."""
    known: type[Validator] = validator_for(schema, default=Draft202012Validator)
    return known


def _shortened(text: str) -> str:
    if len(text) <= _MAX_MESSAGE_CHARS:
        return text
    return f"{text[:_MAX_MESSAGE_CHARS]}…"
