"""Calls as Gemma 4 writes them: ``call:name{key:<|"|>text<|"|>,n:1,list:[true]}``."""

import re
from typing import Any, Final

from paddler.agent.worker.tool_calls.reading import (
    NOT_JSON,
    ArgumentsFragment,
    CallStarted,
    Mismatch,
    ParameterSchemas,
    Reader,
    Source,
    Waiting,
    call_id,
    decode_json,
    encode_json,
    has_more,
    match_one,
)

_QUOTE: Final = '<|"|>'
_MAX_DEPTH: Final = 64

_BLANK: Final = re.compile(r"\s+|<tool_call\|>|<\|tool_response>")
_HEAD: Final = re.compile(r"(?:<\|tool_call>)?\s*call:\s*(?P<name>[^\s{}]+)\s*\{")
_MARK: Final = re.compile(r'<\|"\|>|[{}\[\],]')
_KEY: Final = re.compile(r'\s*(?:<\|"\|>)?([^:<{}\[\],]+?)(?:<\|"\|>)?\s*:\s*')
_SCALAR: Final = re.compile(r"[^,{}\[\]]+")


def read_gemma(source: Source, schemas: ParameterSchemas) -> Reader:
    """All calls of the text. Arguments come as compact JSON, key by key."""
    index = 0
    while (yield from has_more(source, _BLANK)):
        which, found = yield from match_one(source, _HEAD, _BLANK)
        if which == 0:
            yield CallStarted(index, call_id(index), found["name"])
            yield from _read_arguments(source, index)
            index += 1


def _read_arguments(source: Source, index: int) -> Reader:
    opening = "{"
    while True:
        member, mark = yield from _read_member(source)
        if member.strip():
            key, value = _Value(member).member()
            yield ArgumentsFragment(index, f"{opening}{encode_json(key)}:{encode_json(value)}")
            opening = ","
        if mark == "}":
            yield ArgumentsFragment(index, "{}" if opening == "{" else "}")
            return


def _read_member(source: Source) -> Waiting[tuple[str, str]]:
    """The text of one ``key:value`` and the mark that ends it, ``,`` or ``}``."""
    depth = 0
    in_string = False
    position = source.position
    while True:
        while found := _MARK.search(source.text, position):
            position = found.end()
            mark = found.group()
            if mark == _QUOTE:
                in_string = not in_string
            elif in_string:
                continue
            elif depth == 0 and mark in ",}":
                text = source.take(found.start())
                source.position = position
                return text, mark
            elif mark in "{[":
                depth += 1
            elif mark in "}]":
                depth -= 1
        if source.is_complete:
            raise Mismatch("the text ends within the arguments")
        # A quote may have come in part.
        position = max(position, len(source.text) - len(_QUOTE) + 1) - source.position
        yield None
        position += source.position


class _Value:
    """A value that has come as a whole."""

    __slots__ = ("_position", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0

    def member(self, depth: int = 0) -> tuple[str, Any]:
        found = _KEY.match(self._text, self._position)
        if found is None:
            raise Mismatch(f"expected key:value, found {self._text[self._position :][:40]!r}")
        self._position = found.end()
        return found[1], self._value(depth)

    def _value(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise Mismatch(f"the arguments are more than {_MAX_DEPTH} levels deep")
        self._skip_space()
        if self._accept(_QUOTE):
            end = self._text.find(_QUOTE, self._position)
            if end < 0:
                raise Mismatch("a string does not end")
            text = self._text[self._position : end]
            self._position = end + len(_QUOTE)
            return text
        if self._accept("{"):
            members: dict[str, Any] = {}
            while not self._accept("}"):
                key, members[key] = self.member(depth + 1)
                self._next("}")
            return members
        if self._accept("["):
            items: list[Any] = []
            while not self._accept("]"):
                items.append(self._value(depth + 1))
                self._next("]")
            return items
        return self._scalar()

    def _scalar(self) -> Any:
        found = _SCALAR.match(self._text, self._position)
        if found is None:
            raise Mismatch(f"expected a value, found {self._text[self._position :][:40]!r}")
        self._position = found.end()
        text = found.group().strip()
        value = decode_json(text)
        return text if value is NOT_JSON else value

    def _next(self, end: str) -> None:
        """To the next item: over a comma, or up to ``end``."""
        self._skip_space()
        if not self._accept(",") and not self._text.startswith(end, self._position):
            raise Mismatch(f"expected ',' or {end!r}, found {self._text[self._position :][:40]!r}")
        self._skip_space()

    def _skip_space(self) -> None:
        while self._text[self._position : self._position + 1].isspace():
            self._position += 1

    def _accept(self, literal: str) -> bool:
        if not self._text.startswith(literal, self._position):
            return False
        self._position += len(literal)
        return True
