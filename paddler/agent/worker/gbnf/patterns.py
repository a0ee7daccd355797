"""Regular expressions of JSON schemas, to the texts that they match.

What is understood is what grammars can say: no look-around, no back references, no word
boundaries, and anchors only at the ends of a whole alternative.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from paddler.agent.worker.gbnf.writing import (
    EMPTY,
    MAX_REPETITIONS,
    Rules,
    SchemaNotSupported,
    repeated,
)

_MAX_DEPTH: Final = 32
_MAX_CODE: Final = 0x10FFFF


# --- sets of characters ------------------------------------------------------------------------


class CharSet(NamedTuple):
    """Characters, as ranges of code points: sorted, apart, both ends included."""

    ranges: tuple[tuple[int, int], ...]

    def without(self, other: "CharSet") -> "CharSet":
        """The characters of this set that are not in the other."""
        left: list[tuple[int, int]] = []
        for low, high in self.ranges:
            for taken_low, taken_high in other.ranges:
                if taken_high < low or taken_low > high:
                    continue
                if taken_low > low:
                    left.append((low, taken_low - 1))
                low = taken_high + 1
            if low <= high:
                left.append((low, high))
        return CharSet(tuple(left))

    def has(self, char: str) -> bool:
        """Whether the character is in the set."""
        return any(low <= ord(char) <= high for low, high in self.ranges)

    def expression(self) -> str:
        """An atom for any one character of the set."""
        return f"[{''.join(_range(low, high) for low, high in self.ranges)}]"


def _range(low: int, high: int) -> str:
    return f"\\U{low:08X}" if low == high else f"\\U{low:08X}-\\U{high:08X}"


def charset(*ranges: tuple[int, int]) -> CharSet:
    """A set of ranges that may overlap."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    return CharSet(tuple(merged))


def chars(text: str) -> CharSet:
    """The set of these characters."""
    return charset(*((ord(char), ord(char)) for char in text))


# Surrogates are no characters.
ALL: Final = charset((0, 0xD7FF), (0xE000, _MAX_CODE))
_DIGITS: Final = charset((48, 57))
_WORD: Final = charset((48, 57), (65, 90), (95, 95), (97, 122))
_BLANK: Final = chars(" \t\n\r\v\f\u00a0\u2028\u2029\ufeff")
_CLASSES: Final = {
    "d": _DIGITS,
    "D": ALL.without(_DIGITS),
    "w": _WORD,
    "W": ALL.without(_WORD),
    "s": _BLANK,
    "S": ALL.without(_BLANK),
}
_DOT: Final = ALL.without(chars("\n\r\u2028\u2029"))
_NAMED: Final = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}


# --- what a pattern says -----------------------------------------------------------------------


class _Sequence(NamedTuple):
    nodes: "tuple[_Node, ...]"


class _Choice(NamedTuple):
    nodes: "tuple[_Node, ...]"


class _Repeat(NamedTuple):
    node: "_Node"
    least: int
    most: int | None


_Node = CharSet | _Sequence | _Choice | _Repeat

_ANY_TEXT: Final = _Repeat(ALL, 0, None)


def pattern_expression(
    rules: Rules, hint: str, pattern: str, char: Callable[[CharSet], str]
) -> str:
    """An atom for the texts in which ``pattern`` is found.

    ``char`` gives an atom for one character of a set as it is written there. Raises
    :class:`SchemaNotSupported`.
    """
    return _written(rules, hint, _Parser(pattern).parse(), char)


def _written(rules: Rules, hint: str, node: _Node, char: Callable[[CharSet], str]) -> str:
    match node:
        case CharSet():
            return char(node)
        case _Sequence():
            parts = [_written(rules, hint, part, char) for part in node.nodes]
            body = " ".join(part for part in parts if part != EMPTY) or EMPTY
            return body if len(parts) < 2 else rules.add(hint, body)
        case _Choice():
            parts = [_written(rules, hint, part, char) for part in node.nodes]
            return rules.add(hint, " | ".join(dict.fromkeys(parts)))
        case _Repeat():
            inner = _written(rules, hint, node.node, char)
            # A rule of its own: llama.cpp counts what a repetition repeats.
            return (
                inner if inner == EMPTY else rules.add(hint, repeated(inner, node.least, node.most))
            )


_QUANTIFIER: Final = re.compile(r"(?:[*+?]|\{(?P<least>\d+)(?P<comma>,(?P<most>\d*))?\})\??")
_TIMES: Final[dict[str, tuple[int, int | None]]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_GROUP: Final = re.compile(r"\((?:\?:|\?P?<(?![=!])[^>]*>)?")
_HEX: Final = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}")


class _Parser:
    """A recursive descent over one pattern."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def parse(self) -> _Node:
        """The whole pattern: text may stand around what no anchor bounds."""
        nodes = []
        while True:
            is_bound = self._accept("^")
            node = self._sequence(depth=0)
            around: list[_Node] = [] if is_bound else [_ANY_TEXT]
            around.append(node)
            if not self._accept("$"):
                around.append(_ANY_TEXT)
            nodes.append(_Sequence(tuple(around)))
            if not self._accept("|"):
                break
        if self._at < len(self._pattern):
            raise self._refused("it cannot be read on from here")
        # ``^(?:…)$`` needs no more rules than what is in it.
        return nodes[0] if len(nodes) == 1 else _Choice(tuple(nodes))

    def _choice(self, depth: int) -> _Node:
        nodes = [self._sequence(depth)]
        while self._accept("|"):
            nodes.append(self._sequence(depth))
        return nodes[0] if len(nodes) == 1 else _Choice(tuple(nodes))

    def _sequence(self, depth: int) -> _Node:
        nodes: list[_Node] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)$":
            nodes.append(self._repeated(self._atom(depth)))
        return nodes[0] if len(nodes) == 1 else _Sequence(tuple(nodes))

    def _repeated(self, node: _Node) -> _Node:
        while found := _QUANTIFIER.match(self._pattern, self._at):
            if found["least"] is None:
                least, most = _TIMES[found.group()[0]]
            else:
                least = _number(found["least"])
                has_most = found["comma"] is None or found["most"]
                most = _number(found["most"] or found["least"]) if has_most else None
            if most is not None and least > most:
                raise self._refused("the numbers of a repetition are out of order")
            self._at = found.end()
            node = _Repeat(node, least, most)
        return node

    def _atom(self, depth: int) -> _Node:
        char = self._pattern[self._at]
        match char:
            case "(":
                return self._group(depth)
            case "[":
                return self._class()
            case "\\":
                return self._escaped()
            case ".":
                self._at += 1
                return _DOT
            case "^" | "*" | "+" | "?":
                raise self._refused("this is not supported here")
            case _:
                self._at += 1
                return chars(char)

    def _group(self, depth: int) -> _Node:
        opening = _GROUP.match(self._pattern, self._at)
        assert opening is not None
        if self._pattern.startswith("?", opening.end()):
            raise self._refused("only plain groups are supported")
        if depth >= _MAX_DEPTH:
            raise self._refused(f"groups may be {_MAX_DEPTH} levels deep")
        self._at = opening.end()
        node = self._choice(depth + 1)
        if not self._accept(")"):
            raise self._refused("a group does not end, or has an anchor in it")
        return node

    def _class(self) -> CharSet:
        start = self._at
        self._at += 1
        is_negated = self._accept("^")
        ranges: list[tuple[int, int]] = []
        while not self._accept("]"):
            if self._at >= len(self._pattern):
                self._at = start
                raise self._refused("a class does not end")
            low = self._class_member()
            if len(low.ranges) == 1 and low.ranges[0][0] == low.ranges[0][1] and self._is_range():
                self._at += 1
                high = self._class_member()
                if len(high.ranges) != 1 or high.ranges[0][0] < low.ranges[0][0]:
                    raise self._refused("a range is out of order")
                ranges.append((low.ranges[0][0], high.ranges[0][0]))
            else:
                ranges += low.ranges
        found = charset(*ranges)
        found = ALL.without(found) if is_negated else found
        if not found.ranges:
            self._at = start
            raise self._refused("no character is in this class")
        return found

    def _is_range(self) -> bool:
        rest = self._pattern[self._at : self._at + 2]
        return len(rest) == 2 and rest[0] == "-" and rest[1] != "]"

    def _class_member(self) -> CharSet:
        if self._pattern[self._at] == "\\":
            if self._pattern.startswith("\\b", self._at):
                self._at += 2
                return chars("\b")
            return self._escaped()
        self._at += 1
        return chars(self._pattern[self._at - 1])

    def _escaped(self) -> CharSet:
        at = self._at + 1
        if at >= len(self._pattern):
            raise self._refused("a backslash stands at the end")
        char = self._pattern[at]
        if char in "xu" and (found := _HEX.match(self._pattern, at)):
            code = int(found[1] or found[2] or found[3], 16)
            if code > _MAX_CODE:
                raise self._refused("there is no such character")
            self._at = found.end()
            return charset((code, code))
        if char in _CLASSES:
            self._at = at + 1
            return _CLASSES[char]
        if char.isalnum() and char not in _NAMED:
            raise self._refused("this escape is not supported")
        self._at = at + 1
        return chars(_NAMED.get(char, char))

    def _accept(self, text: str) -> bool:
        if not self._pattern.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _refused(self, why: str) -> SchemaNotSupported:
        return SchemaNotSupported(
            f"the pattern {_shortened(self._pattern)} is not supported at "
            f"{_shortened(self._pattern[self._at :])}: {why}"
        )


def _number(digits: str) -> int:
    return min(int(digits[:9]), MAX_REPETITIONS + 1)


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


# What the formats of JSON schemas look like; others are only a remark.
FORMATS: Final = {
    "date": r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$",
    "time": r"^([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$",
    "date-time": (
        r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
        r"T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$"
    ),
    "uuid": r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
}
