"""How values are written: as JSON, as Python's literals, as Gemma's calls have them."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from paddler.agent.worker.gbnf.patterns import ALL, CharSet, chars, charset, pattern_expression
from paddler.agent.worker.gbnf.writing import (
    NotWritable,
    Rules,
    SchemaNotSupported,
    literal,
    other_than,
    repeated,
    until,
)

_T = TypeVar("_T")


class Texts(Protocol):
    """How strings are written, quotes included. All expressions are atoms."""

    def any(self) -> str:
        """Any string."""
        ...

    def sized(self, least: int, most: int | None) -> str:
        """Strings of so many characters."""
        ...

    def matching(self, pattern: str, hint: str) -> str:
        """Strings in which a regular expression is found."""
        ...

    def constant(self, text: str) -> str:
        """This string as it is written. Raises :class:`NotWritable`."""
        ...


class Keys(Protocol):
    """How the keys of objects are written."""

    @property
    def open(self) -> str:
        """An expression for what all keys begin with."""
        ...

    @property
    def close(self) -> str:
        """An expression for what stands between a name and its value."""
        ...

    def named(self, name: str) -> str:
        """An expression for this name, without what all begin with; :class:`NotWritable`."""
        ...

    def others(self, names: Collection[str]) -> str:
        """An expression for any name but these, without what all begin with."""
        ...


class Notation(NamedTuple):
    """How values are written. But for ``texts`` and ``keys``, all are expressions."""

    texts: Texts
    keys: Keys
    object: tuple[str, str]
    array: tuple[str, str]
    comma: str
    true: str = literal("true")
    false: str = literal("false")
    null: str = literal("null")

    def constant(self, value: Any) -> str:
        """An expression for this JSON value; :class:`SchemaNotSupported`."""
        match value:
            case None:
                return self.null
            case bool():
                return self.true if value else self.false
            case str():
                return literal(self.texts.constant(value))
            case int() | float() if math.isfinite(value):
                return literal(repr(value))
            case list():
                return self._between(self.array, [self.constant(item) for item in value])
            case dict():
                members = [
                    f"{self.keys.open} {self.keys.named(name)} {self.keys.close} "
                    f"{self.constant(item)}"
                    for name, item in value.items()
                ]
                return self._between(self.object, members)
            case _:
                raise SchemaNotSupported(f"{value!r} is no JSON value")

    def _between(self, brackets: tuple[str, str], parts: list[str]) -> str:
        return f"{brackets[0]} {f' {self.comma} '.join(parts)} {brackets[1]}"


def json_notation(rules: Rules) -> Notation:
    """JSON, with at most one space where it may have any white space: models run away in it."""
    texts = _Quoted(rules, '"', _JSON_ESCAPES, _json_escape(rules))
    return _bracketed(rules, texts)


def python_notation(rules: Rules) -> Notation:
    """Python's literals."""
    texts = _Quoted(rules, "'", _PYTHON_ESCAPES, "")
    return _bracketed(rules, texts)._replace(
        true=literal("True"), false=literal("False"), null=literal("None")
    )


def gemma_notation(rules: Rules) -> Notation:
    """What Gemma 4 writes: no white space, names without quotes, strings without escapes."""
    return Notation(
        texts=_Delimited(rules, '<|"|>'),
        keys=PlainKeys(rules, ":"),
        object=(literal("{"), literal("}")),
        array=(literal("["), literal("]")),
        comma=literal(","),
    )


def space_rule(rules: Rules) -> str:
    """An atom for one space or none."""
    return rules.add("space", '" "?')


def _bracketed(rules: Rules, texts: "_Quoted") -> Notation:
    space = space_rule(rules)
    return Notation(
        texts=texts,
        keys=_QuotedKeys(rules, texts, space),
        object=(f'"{{" {space}', f'{space} "}}"'),
        array=(f'"[" {space}', f'{space} "]"'),
        comma=f'"," {space}',
    )


# --- strings with escapes ----------------------------------------------------------------------

_PYTHON_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_JSON_ESCAPES: Final = {**_PYTHON_ESCAPES, "\b": "\\b", "\f": "\\f"}
_CONTROLS: Final = charset((0x00, 0x1F), (0x7F, 0x7F))


def _json_escape(rules: Rules) -> str:
    """Escapes by number: of a character, or of both surrogates of one. Half of one is no text."""
    digit = "[0-9A-Fa-f]"
    return rules.add(
        "escape",
        f'"/" | "u" ([0-9A-CEFa-cef] {digit} {digit} {digit} | [Dd] [0-7] {digit} {digit} '
        f'| [Dd] [89ABab] {digit} {digit} "\\\\u" [Dd] [C-Fc-f] {digit} {digit})',
    )


class _Quoted:
    """Strings between quotes, with backslashes before what cannot stand there as it is."""

    def __init__(
        self, rules: Rules, quote: str, escapes: Mapping[str, str], more_escapes: str
    ) -> None:
        self._rules = rules
        self._escapes = {quote: f"\\{quote}", **escapes}
        self._raw = ALL.without(_CONTROLS).without(chars("".join(self._escapes)))
        self._more_escapes = more_escapes
        self.quote = literal(quote)
        self._quote = quote
        self.not_raw = "".join(
            chr(code)
            for low, high in ALL.without(self._raw).ranges
            for code in range(low, high + 1)
        )

    def any(self) -> str:
        return self._rules.add("string", f"{self.quote} {self._char()}* {self.quote}")

    def sized(self, least: int, most: int | None) -> str:
        text = repeated(self._char(), least, most)
        return self._rules.add("string", f"{self.quote} {text} {self.quote}")

    def matching(self, pattern: str, hint: str) -> str:
        text = pattern_expression(self._rules, hint, pattern, self._one_of)
        return self._rules.add(hint, f"{self.quote} {text} {self.quote}")

    def constant(self, text: str) -> str:
        return f"{self._quote}{self.contents(text)}{self._quote}"

    def contents(self, text: str) -> str:
        """What stands between the quotes."""
        return "".join(map(self._escaped, text))

    def _escaped(self, char: str) -> str:
        return self._escapes.get(char) or (char if char >= " " else f"\\u{ord(char):04x}")

    def _char(self) -> str:
        return self._one_of(ALL)

    def _one_of(self, wanted: CharSet) -> str:
        raw = CharSet(()) if not wanted.ranges else wanted.without(ALL.without(self._raw))
        ways = [raw.expression()] if raw.ranges else []
        escapes = "".join(text[1] for char, text in self._escapes.items() if wanted.has(char))
        if escapes:
            ways.append(f'"\\\\" {_one_of_text(escapes)}')
        if wanted == ALL and self._more_escapes:
            ways.append(f'"\\\\" {self._more_escapes}')
        if not ways:
            raise NotWritable("a pattern asks for characters that cannot be written")
        return (
            ways[0] if len(ways) == 1 and raw.ranges else self._rules.add("char", " | ".join(ways))
        )


def _one_of_text(text: str) -> str:
    return chars(text).expression()


class _QuotedKeys:
    """Keys that are strings of the notation."""

    def __init__(self, rules: Rules, texts: _Quoted, space: str) -> None:
        self._rules = rules
        self._texts = texts
        self.open = texts.quote
        self.close = f'{texts.quote} ":" {space}'

    def named(self, name: str) -> str:
        return literal(self._texts.contents(name))

    def others(self, names: Collection[str]) -> str:
        # Without escapes, so that no declared name can be written in disguise.
        return other_than(self._rules, "other-key", names, self._texts.not_raw)


# --- strings without escapes -------------------------------------------------------------------


class _Delimited:
    """Strings between two marks that cannot stand in them."""

    def __init__(self, rules: Rules, mark: str) -> None:
        self._rules = rules
        self._mark = mark
        self._quote = literal(mark)
        self._raw = ALL.without(chars(mark[0]))

    def any(self) -> str:
        rest = until(self._rules, "text", {self._mark: ""})
        return self._rules.add("string", f"{self._quote} {rest}")

    def sized(self, least: int, most: int | None) -> str:
        text = repeated(self._raw.expression(), least, most)
        return self._rules.add("string", f"{self._quote} {text} {self._quote}")

    def matching(self, pattern: str, hint: str) -> str:
        text = pattern_expression(self._rules, hint, pattern, self._one_of)
        return self._rules.add(hint, f"{self._quote} {text} {self._quote}")

    def constant(self, text: str) -> str:
        if self._mark in text:
            raise NotWritable(f"the text {text!r} cannot be written in this model's calls")
        return f"{self._mark}{text}{self._mark}"

    def _one_of(self, wanted: CharSet) -> str:
        return one_in(wanted.without(ALL.without(self._raw)))


def one_in(wanted: CharSet) -> str:
    """An atom for one character of the set; :class:`NotWritable` if it is empty."""
    if not wanted.ranges:
        raise NotWritable("a pattern asks for characters that cannot be written")
    return wanted.expression()


def writable(values: Iterable[_T], write: Callable[[_T], str]) -> list[str]:
    """The values as they are written, but for those that cannot be; there is one at least.

    Raises :class:`NotWritable` as the last one did.
    """
    written = []
    reason: NotWritable | None = None
    for value in values:
        try:
            written.append(write(value))
        except NotWritable as error:
            reason = error
    if not written and reason is not None:
        raise reason
    return written


_NOT_IN_PLAIN_NAMES: Final = ' \t\n\r:<>{}[],"'


class PlainKeys:
    """Keys without quotes."""

    def __init__(self, rules: Rules, close: str) -> None:
        self._rules = rules
        self.open = ""
        self.close = literal(close)

    def named(self, name: str) -> str:
        if not name or not set(name).isdisjoint(_NOT_IN_PLAIN_NAMES):
            raise NotWritable(f"the name {name!r} cannot be written in this model's calls")
        return literal(name)

    def others(self, names: Collection[str]) -> str:
        return other_than(self._rules, "other-key", names, _NOT_IN_PLAIN_NAMES)
