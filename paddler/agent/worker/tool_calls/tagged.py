"""Calls whose arguments are tagged one by one, strings without quotes: Qwen XML, GLM, MiniMax …

A value is a string or JSON: what the tool's schema says, or what it looks like.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from paddler.agent.worker.gbnf.alternatives import json_types
from paddler.agent.worker.tool_calls.reading import (
    NOT_JSON,
    ArgumentsFragment,
    CallStarted,
    ParameterSchemas,
    Reader,
    Source,
    call_id,
    decode_json,
    encode_json,
    has_more,
    match_one,
    read_until,
)

# Models that were trained on Python write its literals, too.
_PYTHON_LITERALS: Final[dict[str, object]] = {"True": True, "False": False, "None": None}


class Tagged(NamedTuple):
    """What such a syntax looks like.

    ``head`` opens a call and has the group ``name``. ``key`` opens an argument and has the
    group ``key`` and perhaps ``kind``, the type of its value. ``blank`` means nothing
    between calls; white space is blank.
    """

    head: re.Pattern[str]
    key: re.Pattern[str]
    value_end: re.Pattern[str]
    end: re.Pattern[str]
    blank: re.Pattern[str]

    def read(self, source: Source, schemas: ParameterSchemas) -> Reader:
        """All calls of the text. Arguments come as compact JSON, key by key."""
        index = 0
        while (yield from has_more(source, self.blank)):
            which, found = yield from match_one(source, self.head, self.blank)
            if which == 0:
                name = found["name"]
                yield CallStarted(index, call_id(index), name)
                yield from self._read_arguments(source, index, schemas.get(name, {}))
                index += 1

    def _read_arguments(self, source: Source, index: int, schemas: Mapping[str, Any]) -> Reader:
        opening = "{"
        while True:
            which, found = yield from match_one(source, self.key, self.end)
            if which == 1:
                yield ArgumentsFragment(index, "{}" if opening == "{" else "}")
                return
            text = yield from read_until(source, self.value_end, may_end_text=False)
            key = found["key"].strip()
            value = typed_value(text.strip(), schemas.get(key), found.groupdict().get("kind"))
            yield ArgumentsFragment(index, f"{opening}{encode_json(key)}:{encode_json(value)}")
            opening = ","


def tagged(*, head: str, key: str, value_end: str, end: str, blank: str) -> Tagged:
    """A syntax, by regular expressions. All must end in something definite."""
    return Tagged(
        re.compile(head),
        re.compile(rf"\s*{key}"),
        re.compile(value_end),
        re.compile(rf"\s*{end}"),
        re.compile(rf"\s+|{blank}"),
    )


def typed_value(text: str, schema: object, kind: str | None) -> object:
    """The value that ``text`` stands for.

    ``kind`` is what the model said of its type: ``string`` (or ``true``: is a string).
    """
    if kind in ("string", "true"):
        return text
    types = named_types(schema)
    if types == {"string"}:
        return text
    value = _PYTHON_LITERALS.get(text, NOT_JSON)
    if value is NOT_JSON:
        value = decode_json(text)
    if value is NOT_JSON:
        return text
    if "string" in types and not types & json_types(value):
        return text
    return value


def named_types(schema: object) -> set[str]:
    """The JSON types that a schema names for its values; empty: it names none."""
    if not isinstance(schema, dict):
        return set()
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return {name for name in named if isinstance(name, str)}
    if "const" in schema:
        return json_types(schema["const"])
    values, *branches = (schema.get(key) for key in ("enum", "anyOf", "oneOf"))
    if isinstance(values, list):
        return {name for value in values for name in json_types(value)}
    return {
        name
        for branch in branches
        if isinstance(branch, list)
        for schema in branch
        for name in named_types(schema)
    }
