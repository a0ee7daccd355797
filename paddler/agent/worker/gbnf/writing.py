"""Writing grammars in llama.cpp's notation, GBNF.

A grammar is built from *expressions*: texts that may stand on the right of ``::=``. An
*atom* is one that may also be repeated or stand next to others as it is.
"""

import functools
import os
import re
from collections import deque
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple, Self

# Of one grammar. A schema of a hundred properties takes a twentieth of it.
MAX_GRAMMAR_CHARS: Final = 256 * 1024

# llama.cpp makes a rule for each optional repetition and refuses more.
MAX_REPETITIONS: Final = 2000


class Gbnf(NamedTuple):
    """A grammar in llama.cpp's notation, and its start rule."""

    text: str
    root: str


class SchemaNotSupported(Exception):
    """The schema is no JSON, no schema, or one that has no grammar; the message is for people.

    ``path``: the properties that lead to what is not supported.
    """

    _MAX_PATH: Final = 8

    def __init__(self, why: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(why, path)
        self.why = why
        self.path = path

    def __str__(self) -> str:
        if not self.path:
            return self.why
        shown = ".".join(self.path[: self._MAX_PATH])
        more = ".…" if len(self.path) > self._MAX_PATH else ""
        return f'property "{shown}{more}": {self.why}'

    def within(self, name: str) -> Self:
        """The same, of the property ``name``."""
        return type(self)(self.why, (name, *self.path))


class NotWritable(SchemaNotSupported):
    """No value fits, or none can be written so: an optional property is then left out."""


# --- expressions -------------------------------------------------------------------------------

EMPTY: Final = '""'

_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
_TO_ESCAPE: Final = re.compile(r'[\x00-\x1f"\\\x7f\ud800-\udfff]')
_TO_ESCAPE_IN_CLASS: Final = re.compile(r"[^0-9A-Za-z\u0080-\ud7ff\ue000-\U0010ffff]")


def literal(text: str) -> str:
    """An atom for exactly this text."""
    return f'"{_TO_ESCAPE.sub(lambda found: _escape(found.group()), text)}"'


def _escape(char: str) -> str:
    return _ESCAPES.get(char) or (f"\\x{ord(char):02X}" if char < "\x80" else f"\\u{ord(char):04X}")


@functools.lru_cache(maxsize=1024)
def in_class(char: str) -> str:
    """A character as it stands between brackets."""
    if not _TO_ESCAPE_IN_CLASS.fullmatch(char):
        return char
    return f"\\x{ord(char):02X}" if char < "\x80" else f"\\u{ord(char):04X}"


def one_of(chars: Collection[str]) -> str:
    """An atom for any one of these characters."""
    return f"[{''.join(map(in_class, chars))}]"


def none_of(chars: Collection[str]) -> str:
    """An atom for any one character but these."""
    return f"[^{''.join(map(in_class, chars))}]" if chars else "."


def repeated(atom: str, least: int, most: int | None) -> str:
    """An atom ``least`` to ``most`` times; ``None``: without end.

    More than ``MAX_REPETITIONS`` are without end. Raises :class:`SchemaNotSupported` where at
    least so many are asked for.
    """
    if least > MAX_REPETITIONS:
        raise SchemaNotSupported(
            f"{least} repetitions are asked for at least; a grammar can ask for {MAX_REPETITIONS}"
        )
    if most is not None and most > MAX_REPETITIONS:
        most = None
    match least, most:
        case 0, 0:
            return EMPTY
        case 1, 1:
            return atom
        case 0, 1:
            return f"{atom}?"
        case 0, None:
            return f"{atom}*"
        case 1, None:
            return f"{atom}+"
        case _, None:
            return f"{atom}{{{least},}}"
        case _ if least == most:
            return f"{atom}{{{least}}}"
        case _:
            return f"{atom}{{{least},{most}}}"


# --- rules -------------------------------------------------------------------------------------

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9]+")


class Rules:
    """Named rules, each body once: alternatives that are the same must not look ambiguous.

    Raises :class:`SchemaNotSupported` when they become more than a grammar may be.
    """

    __slots__ = ("_avoided", "_bodies", "_chars", "_last_number", "_names")

    def __init__(self, *, avoiding: str = "") -> None:
        """``avoiding``: a grammar that these rules will be added to; no name occurs in it."""
        self._avoided = avoiding
        self._bodies: dict[str, str | None] = {}  # ``None``: reserved
        self._names: dict[str, str] = {}  # by body
        self._last_number: dict[str, int] = {}  # in a name, by what comes before it
        self._chars = 0

    def add(self, hint: str, body: str) -> str:
        """The name of a rule with this body; named after ``hint`` if it is new."""
        name = self._names.get(body)
        if name is None:
            name = self.reserve(hint)
            self.define(name, body)
            self._names[body] = name
        return name

    def reserve(self, hint: str) -> str:
        """A name for a rule that refers to itself; :meth:`define` must follow."""
        base = _NOT_IN_NAMES.sub("-", hint).strip("-")[:40] or "rule"
        name = base
        while name in self._bodies or name in self._avoided:
            self._last_number[base] = self._last_number.get(base, 1) + 1
            name = f"{base}-{self._last_number[base]}"
        self._bodies[name] = None
        return name

    def define(self, name: str, body: str) -> None:
        """Give a reserved name its body."""
        self._chars += len(name) + len(body) + 6
        if self._chars > MAX_GRAMMAR_CHARS:
            raise SchemaNotSupported(
                f"it is too large: its grammar has more than {MAX_GRAMMAR_CHARS} characters"
            )
        self._bodies[name] = body or EMPTY

    def grammar(self, root: str) -> Gbnf:
        """All rules, with this one to start from."""
        # What was reserved only is of a schema that turned out not to be supported.
        lines = (f"{name} ::= {body}" for name, body in self._bodies.items() if body)
        return Gbnf("\n".join(lines) + "\n", root)


def one_of_texts(rules: Rules, hint: str, texts: Collection[str]) -> str:
    """An atom for any of these texts: what they begin with in common is written once.

    Otherwise every text would be a way that is followed, at a cost for each.
    """
    if len(texts) == 1:
        return literal(*texts)
    by_first: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        by_first.setdefault(text[:1], []).append(text)
    ways = []
    for group in by_first.values():
        common = os.path.commonprefix(group)  # noqa: RUF071 - texts, no paths
        rests = [text[len(common) :] for text in group]
        rest = f" {one_of_texts(rules, hint, rests)}" if len(rests) > 1 else ""
        ways.append(f"{literal(common)}{rest}")
    return rules.add(hint, " | ".join(ways))


# --- text up to a marker -----------------------------------------------------------------------


def until(
    rules: Rules,
    hint: str,
    endings: Mapping[str, str],
    *,
    seen: str = "",
    forbidden: Collection[str] = (),
    may_end: bool = False,
) -> str:
    """A rule for any text up to and over the first of ``endings``, then what that one leads to.

    It reads a character at a time and knows at any the longest beginning of an ending that
    the text ends with (Aho and Corasick, 1975): whatever the text is, only one way of reading
    it is open, which is what makes grammars fast. ``endings`` are not empty; their values are
    expressions. ``seen``: text before that counts as read. No text of ``forbidden`` can occur.
    ``may_end``: the text may also end without any of them.
    """
    marks = _Automaton([*endings, *forbidden])
    start = marks.state_after(seen)
    names = {start: rules.reserve(hint)}
    todo = [start]
    bodies: dict[str, str] = {}

    def name_of(state: str) -> str:
        if state not in names:
            names[state] = rules.reserve(hint)
            todo.append(state)
        return names[state]

    while todo:
        state = todo.pop()
        ways: dict[str, list[str]] = {}  # characters by what they lead to
        for char, target in marks.moves[state].items():
            ways.setdefault(marks.found[target] or target, []).append(char)
        alternatives = [
            f"{one_of(way)} {endings[target] if target in endings else name_of(target)}".rstrip()
            for target, way in ways.items()
            if target not in forbidden
        ]
        alternatives.append(f"{none_of(marks.moves[state])} {name_of('')}")
        if may_end:
            alternatives.append(EMPTY)
        bodies[state] = " | ".join(alternatives)
    for state, body in bodies.items():
        rules.define(names[state], body)
    return names[start]


class _Automaton:
    """What of some texts a text ends with, as it comes: states are beginnings of them."""

    __slots__ = ("found", "moves")

    def __init__(self, texts: Collection[str]) -> None:
        self.moves: dict[str, dict[str, str]] = {"": {}}
        """By state, the characters that lead to a state other than the empty one."""
        self.found: dict[str, str] = {"": ""}
        """By state, the longest of the texts that it ends with; empty: none."""
        children: dict[str, dict[str, str]] = {}
        for text in texts:
            for length in range(len(text)):
                children.setdefault(text[:length], {})[text[length]] = text[: length + 1]
        shorter = {"": ""}  # the longest other state that a state ends with
        self.moves[""] = children.get("", {})
        queue = deque(self.moves[""].values())
        shorter.update(dict.fromkeys(queue, ""))
        while queue:
            state = queue.popleft()
            inherited = self.moves[shorter[state]]
            for char, child in children.get(state, {}).items():
                shorter[child] = inherited.get(char, "")
                queue.append(child)
            self.moves[state] = {**inherited, **children.get(state, {})}
            self.found[state] = state if state in texts else self.found[shorter[state]]

    def state_after(self, text: str) -> str:
        """The state that a text leads to."""
        state = ""
        for char in text:
            state = self.moves[state].get(char, "")
        return state


def other_than(rules: Rules, hint: str, texts: Collection[str], excluded: str) -> str:
    """A rule for texts of one character or more that are none of ``texts``.

    No character of ``excluded`` occurs in them.
    """
    char = none_of(excluded)
    beginnings = {text[:length] for text in texts for length in range(1, len(text) + 1)}
    names = {beginning: rules.reserve(hint) for beginning in ("", *sorted(beginnings))}
    for beginning, name in names.items():
        following = sorted(
            char
            for char in {text[len(beginning)] for text in beginnings if _is_next(text, beginning)}
            if char not in excluded
        )
        alternatives = [f"{literal(char)} {names[beginning + char]}" for char in following]
        alternatives.append(f"{none_of([*following, *excluded])} {char}*")
        if beginning and beginning not in texts:
            alternatives.append(EMPTY)
        rules.define(name, " | ".join(alternatives))
    return names[""]


def _is_next(text: str, beginning: str) -> bool:
    return len(text) == len(beginning) + 1 and text.startswith(beginning)
