"""Calls that are JSON objects with a name and arguments: Hermes, Qwen 3, Llama, Granite …

What differs is the text around them: an opening and a closing, either of which may be
empty, with one object, several, or an array of them in between.
"""

import re
from collections.abc import Generator
from typing import Final

from paddler.agent.worker.tool_calls.reading import (
    ArgumentsFragment,
    CallStarted,
    Event,
    Mismatch,
    ParameterSchemas,
    Reader,
    Source,
    call_id,
    expect,
    has_more,
    match_one,
    peek,
    read_arguments,
    read_name,
)

_BETWEEN_CALLS: Final = re.compile(r"[\s;,]+")
_NUMBER: Final = re.compile(r"(?P<number>\d+)(?=[\s,}])")
_VALUE: Final = re.compile(r"(?=\{|\[\s*[{\]])")


class JsonCalls:
    """Reads texts of ``opening`` calls ``closing``, any number of times."""

    __slots__ = ("_closing", "_opening")

    def __init__(self, opening: str, closing: str) -> None:
        self._opening = re.compile(re.escape(opening)) if opening else None
        self._closing = re.compile(re.escape(closing)) if closing else None

    def read(self, source: Source, schemas: ParameterSchemas) -> Reader:
        """All calls of the text."""
        if self._opening is not None:
            yield from peek(source)
            yield from match_one(source, self._opening)
        patterns = [_VALUE, *filter(None, (self._opening, self._closing))]
        index = 0
        while (yield from has_more(source, _BETWEEN_CALLS)):
            which, _ = yield from match_one(source, *patterns)
            if which == 0:
                index = yield from read_json_calls(
                    source, index, needs_arguments=self._opening is None
                )


def read_json_calls(
    source: Source, index: int, *, needs_arguments: bool
) -> Generator[Event | None, None, int]:
    """One JSON value that is a call or an array of calls; returns the next call's index.

    Raises :class:`Mismatch` as soon as it can be neither.
    """
    if (yield from peek(source)) != "[":
        yield from _Call(index).read(source, needs_arguments=needs_arguments)
        return index + 1
    yield from expect(source, "[")
    if (yield from peek(source)) == "]":
        yield from expect(source, "]")
        return index
    while True:
        yield from _Call(index).read(source, needs_arguments=needs_arguments)
        index += 1
        if (yield from expect(source, ",", "]")) == "]":
            return index


class _Call:
    """One call while its object is read."""

    __slots__ = ("_held", "_id", "_index", "_is_started", "_name")

    def __init__(self, index: int) -> None:
        self._index = index
        self._name: str | None = None
        self._id: str | None = None
        self._held: list[str] = []  # arguments that came before the name
        self._is_started = False

    def read(self, source: Source, *, needs_arguments: bool) -> Reader:
        yield from self._read_object(source)
        if self._is_started:
            return
        if self._name is None or needs_arguments:
            raise Mismatch("the object lacks a name or arguments")
        yield from self._tell("{}")

    def _read_object(self, source: Source) -> Reader:
        yield from expect(source, "{")
        while True:
            key = yield from expect(source, *_KEYS)
            yield from expect(source, ":")
            yield from _KEYS[key](self, source)
            if self._name is not None and self._held:
                yield from self._tell("")
            if (yield from expect(source, ",", "}")) == "}":
                return

    def _read_name(self, source: Source) -> Reader:
        self._name = yield from read_name(source)

    def _read_id(self, source: Source) -> Reader:
        """An id that comes after the arguments is too late: the call has been told."""
        first = yield from peek(source)
        if first == '"':
            self._id = yield from read_name(source)
        elif first.isdigit():
            self._id = (yield from match_one(source, _NUMBER))[1]["number"]
        else:
            yield from expect(source, "null")

    def _read_type(self, source: Source) -> Reader:
        yield from expect(source, '"function"')

    def _read_function(self, source: Source) -> Reader:
        """The name, or an object with name and arguments, as OpenAI's API has it."""
        if (yield from peek(source)) == "{":
            yield from self._read_object(source)
        else:
            yield from self._read_name(source)

    def _read_arguments(self, source: Source) -> Reader:
        for piece in read_arguments(source):
            if piece is None:
                yield None
            elif self._name is None:
                self._held.append(piece)
            else:
                yield from self._tell(piece)

    def _tell(self, arguments: str) -> Reader:
        """Tell more of the arguments, and first what was held and that there is a call."""
        if not self._is_started:
            self._is_started = True
            assert self._name is not None
            yield CallStarted(self._index, call_id(self._index, self._id), self._name)
        text = "".join(self._held) + arguments
        self._held.clear()
        if text:
            yield ArgumentsFragment(self._index, text)


_KEYS: Final = {
    '"name"': _Call._read_name,
    '"tool_name"': _Call._read_name,
    '"arguments"': _Call._read_arguments,
    '"parameters"': _Call._read_arguments,
    '"id"': _Call._read_id,
    '"tool_call_id"': _Call._read_id,
    '"type"': _Call._read_type,
    '"function"': _Call._read_function,
}
