"""Reading tool calls from text that is still being generated.

A reader is a generator over a :class:`Source`. It yields what it found, or ``None`` when
it needs more text: whoever drives it feeds the source and resumes it. So one reader
serves the whole text and every way of cutting it. It returns at the end of the text and
raises :class:`Mismatch` where the text is not in its syntax.
"""

import re
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec

# Longest opening of a call, its name included. OpenAI's names have 64 characters at most;
# beyond this, what looked like an opening is none.
MAX_HEAD_CHARS: Final = 256


class Mismatch(Exception):
    """The text is not in this syntax; the message says what was seen instead."""


class CallStarted(msgspec.Struct, frozen=True):
    """A call whose name is known. Its arguments follow."""

    index: int
    id: str
    name: str


class ArgumentsFragment(msgspec.Struct, frozen=True):
    """More of the arguments of a call, as JSON text."""

    index: int
    json_text: str


Event = CallStarted | ArgumentsFragment
Reader = Iterator[Event | None]

# By tool, the schemas of its parameters: syntaxes that do not quote strings need the types.
ParameterSchemas = Mapping[str, Mapping[str, Any]]

_T = TypeVar("_T")
Waiting = Generator[None, None, _T]


class Source:
    """Text that comes in pieces and is read from the front."""

    __slots__ = ("is_complete", "position", "text")

    def __init__(self) -> None:
        self.text = ""
        self.position = 0
        self.is_complete = False

    @property
    def rest(self) -> str:
        """What is fed, but not read."""
        return self.text[self.position :]

    def feed(self, text: str) -> None:
        """More text; what was read is forgotten."""
        self.text = self.rest + text
        self.position = 0

    def take(self, end: int) -> str:
        """Read up to the absolute position ``end``."""
        taken = self.text[self.position : end]
        self.position = end
        return taken


def call_id(index: int, given: str | None = None) -> str:
    """The id that the model gave a call, or one made from its place in the answer."""
    return given or f"call_{index}"


# --- waiting for a shape -----------------------------------------------------------------------


def match_one(source: Source, *patterns: re.Pattern[str]) -> Waiting[tuple[int, re.Match[str]]]:
    """Read the first of ``patterns`` that matches here, and say which.

    Patterns must end in something definite: a match is taken as soon as there is one.
    """
    while True:
        for which, pattern in enumerate(patterns):
            found = pattern.match(source.text, source.position)
            if found is not None:
                source.position = found.end()
                return which, found
        if source.is_complete or len(source.text) - source.position > MAX_HEAD_CHARS:
            raise Mismatch(f"found {source.rest[:40]!r}")
        yield None


def has_more(source: Source, blank: re.Pattern[str]) -> Waiting[bool]:
    """Whether anything follows the ``blank`` matches here, which are skipped.

    A blank that has come in part only counts as something.
    """
    while True:
        while (found := blank.match(source.text, source.position)) and found.group():
            source.position = found.end()
        if source.position < len(source.text):
            return True
        if source.is_complete:
            return False
        yield None


def peek(source: Source) -> Waiting[str]:
    """The next character that is no white space; ``""`` at the end. It is not read."""
    if (yield from has_more(source, _SPACE)):
        return source.text[source.position]
    return ""


def read_until(source: Source, end: re.Pattern[str], *, may_end_text: bool) -> Waiting[str]:
    """Read up to and over ``end``; returns the text before it."""
    start = 0
    while True:
        found = end.search(source.text, source.position + start)
        if found is not None:
            text = source.take(found.start())
            source.position = found.end()
            return text
        if source.is_complete:
            if may_end_text:
                return source.take(len(source.text))
            raise Mismatch(f"the text ends before {end.pattern!r}")
        start = max(0, len(source.text) - source.position - MAX_HEAD_CHARS)
        yield None


def expect(source: Source, *literals: str) -> Waiting[str]:
    """Read one of ``literals`` after white space, and say which. None may begin another.

    Raises :class:`Mismatch` as soon as it can be none of them.
    """
    yield from peek(source)
    while True:
        rest = source.rest
        for literal in literals:
            if rest.startswith(literal):
                source.position += len(literal)
                return literal
        if source.is_complete or not any(literal.startswith(rest) for literal in literals):
            raise Mismatch(f"expected {' or '.join(literals)}, found {rest[:40]!r}")
        yield None


# --- JSON --------------------------------------------------------------------------------------

_SPACE: Final = re.compile(r"\s+")
_STRUCTURE: Final = re.compile(r'[{}\[\]"]')
_IN_STRING: Final = re.compile(r'["\\]')
_AFTER_SCALAR: Final = re.compile(r"[\s,}\]]")


def read_json(source: Source) -> Iterator[str | None]:
    """The next JSON value as it was written, in the pieces that it comes in.

    Only brackets and quotes are looked at; whether it is JSON is for a decoder to say.
    A value that the text cuts short just ends.
    """
    first = yield from peek(source)
    if first not in ("{", "[", '"'):
        yield (yield from _read_scalar(source))
        return
    depth = 0
    in_string = False
    position = source.position
    while True:
        while found := (_IN_STRING if in_string else _STRUCTURE).search(source.text, position):
            position = found.end()
            match found.group():
                case '"':
                    in_string = not in_string
                case "\\":
                    if position == len(source.text) and not source.is_complete:
                        position -= 1  # What it escapes has not come.
                        break
                    position = min(position + 1, len(source.text))
                case "{" | "[":
                    depth += 1
                case _:
                    depth -= 1
            if depth <= 0 and not in_string:
                yield source.take(position)
                return
        else:
            position = len(source.text)
        if position > source.position:
            yield source.take(position)
        if source.is_complete:
            return
        yield None
        position = source.position


def _read_scalar(source: Source) -> Waiting[str]:
    while True:
        end = _AFTER_SCALAR.search(source.text, source.position)
        if end is not None:
            return source.take(end.start())
        if source.is_complete:
            return source.take(len(source.text))
        yield None


def read_whole_json(source: Source) -> Waiting[str]:
    """The next JSON value as it was written, once all of it has come."""
    pieces: list[str] = []
    for piece in read_json(source):
        if piece is None:
            yield None
        else:
            pieces.append(piece)
    return "".join(pieces)


def read_name(source: Source) -> Waiting[str]:
    """The next value, which must be a string as short as names are."""
    if (yield from peek(source)) != '"':
        raise Mismatch(f"expected a name, found {source.rest[:40]!r}")
    pieces: list[str] = []
    chars = 0
    for piece in read_json(source):
        if piece is None:
            yield None
            continue
        pieces.append(piece)
        chars += len(piece)
        if chars > MAX_HEAD_CHARS:
            raise Mismatch(f"a name has no more than {MAX_HEAD_CHARS} characters")
    value = decode_json("".join(pieces))
    if not isinstance(value, str) or not value:
        raise Mismatch(f"{''.join(pieces)[:40]!r} is no name")
    return value


def read_arguments(source: Source) -> Iterator[str | None]:
    """The arguments of a call as JSON text, in the pieces that they come in.

    Some models write them as a JSON document in a string: that document is meant. ``null``
    stands for no arguments.
    """
    if (yield from peek(source)) in ("{", "["):
        yield from read_json(source)
        return
    text = yield from read_whole_json(source)
    value = decode_json(text)
    if isinstance(value, str):
        yield value
    else:
        yield "{}" if value is None else text


class NotJson:
    """What :func:`decode_json` gives for text that is none."""


NOT_JSON: Final = NotJson()


def decode_json(text: str) -> Any:
    """The value, or ``NOT_JSON``."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return NOT_JSON


def encode_json(value: Any) -> str:
    """Compact JSON."""
    return msgspec.json.encode(value).decode()
