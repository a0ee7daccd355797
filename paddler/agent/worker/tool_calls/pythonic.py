"""Calls as Python writes them: ``[name(key='text', n=1)]``, of Llama 4, LFM2 and Llama's tools."""

import ast
import re
from typing import Any, Final

from paddler.agent.worker.tool_calls.reading import (
    ArgumentsFragment,
    CallStarted,
    Mismatch,
    ParameterSchemas,
    Reader,
    Source,
    Waiting,
    call_id,
    encode_json,
    has_more,
    match_one,
)

_BLANK: Final = re.compile(
    r"[\s,;\]]+|<\|tool_call_(?:start|end)\|>|<\|python_(?:tag|start|end)\|>|\[(?!TOOL)"
)
_HEAD: Final = re.compile(r"(?P<name>[A-Za-z_][\w.\-]*)\(")
_MARK: Final = re.compile(r"""[()\[\]{}'"\\]""")

# Python's parser takes memory for what it reads, a hundred times its size.
_MAX_CHARS: Final = 64 * 1024


def read_pythonic(source: Source, schemas: ParameterSchemas) -> Reader:
    """All calls of the text. The arguments of a call come at once, as compact JSON."""
    index = 0
    while (yield from has_more(source, _BLANK)):
        which, found = yield from match_one(source, _HEAD, _BLANK)
        if which == 0:
            text = yield from _read_parenthesis(source)
            arguments = _evaluate(text)
            yield CallStarted(index, call_id(index), found["name"].removesuffix(".call"))
            yield ArgumentsFragment(index, encode_json(arguments))
            index += 1


def _read_parenthesis(source: Source) -> Waiting[str]:
    """What stands between the parentheses; the opening one has been read."""
    depth = 1
    quote = ""
    position = source.position
    while True:
        while found := _MARK.search(source.text, position):
            position = found.end()
            mark = found.group()
            if mark == "\\":
                position += 1
            elif quote:
                quote = "" if mark == quote else quote
            elif mark in "'\"":
                quote = mark
            else:
                depth += 1 if mark in "([{" else -1
            if depth == 0:
                text = source.take(found.start())
                source.position = found.end()
                return text
        if source.is_complete or len(source.text) - source.position > _MAX_CHARS:
            raise Mismatch("the parenthesis of a call does not end")
        position = max(position, len(source.text)) - source.position
        yield None
        position += source.position


def _evaluate(text: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise Mismatch(f"{text[:40]!r} are no named arguments")
        return {_key(word): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise Mismatch(f"{text[:40]!r} are no literals: {error}") from error


def _key(word: ast.keyword) -> str:
    if word.arg is None:
        raise Mismatch("arguments need names")
    return word.arg
