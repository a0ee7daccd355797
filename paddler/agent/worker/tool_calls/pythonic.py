"""Calls as Python writes them: ``[name(key='text', n=1)]``, of Llama 4, LFM2 and Llama's tools.

SmolLM3 puts them between tags for code, Gemma 3 in a block of code.
"""

import ast
import re
from typing import Any, Final

from paddler.agent.worker.tool_calls.reading import (
    MAX_HEAD_CHARS,
    ArgumentsFragment,
    CallStarted,
    Mismatch,
    ParameterSchemas,
    Reader,
    Source,
    Waiting,
    call_id,
    encode_json,
    expect,
    has_more,
    match_one,
)

_BLANK: Final = re.compile(
    r"[\s,;\]]+|<\|tool_call_(?:start|end)\|>|<\|python_(?:tag|start|end)\|>|\[(?!TOOL)"
    r"|</?code>|```(?:tool_code|python)?(?=\s)"
)
_HEAD: Final = re.compile(r"(?P<name>[A-Za-z_][\w.\-]*)\(")
_LIST_HEAD: Final = re.compile(
    r"\s*(?P<name>[A-Za-z_][\w.\-]*)\((?=\s*(?:\)|[A-Za-z_]\w*\s*=[^=]))"
)
_LIST_HEAD_SO_FAR: Final = re.compile(r"\s*(?:[A-Za-z_][\w.\-]*(?:\(\s*(?:[A-Za-z_]\w*\s*=?)?)?)?")
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


def read_call_list(source: Source) -> Reader:
    """One list of calls, which no marker announces.

    A call is told once its name and its first key have come. Raises :class:`Mismatch` as
    soon as the text can be no such list.
    """
    yield from expect(source, "[")
    index = 0
    while True:
        name = yield from _read_list_head(source)
        yield CallStarted(index, call_id(index), name.removesuffix(".call"))
        text = yield from _read_parenthesis(source)
        yield ArgumentsFragment(index, encode_json(_evaluate(text)))
        index += 1
        if (yield from expect(source, ",", "]")) == "]":
            return


def _read_list_head(source: Source) -> Waiting[str]:
    while True:
        found = _LIST_HEAD.match(source.text, source.position)
        if found is not None:
            source.position = found.end()
            return found["name"]
        rest = source.rest
        may_follow = not source.is_complete and len(rest) <= MAX_HEAD_CHARS
        if not may_follow or not _LIST_HEAD_SO_FAR.fullmatch(rest):
            raise Mismatch(f"found {rest[:40]!r}")
        yield None


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
