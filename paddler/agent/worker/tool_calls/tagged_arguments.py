"""How arguments are written that are tagged one by one: strings as they are, the rest as JSON.

What a text says is for the reader to guess, by the type that the schema gives it. So a
string is only written as it is where the reader takes it for that string; elsewhere it is
written as JSON, which says what it is.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from paddler.agent.worker.gbnf.alternatives import (
    JSON_TYPES,
    Typed,
    constraints,
    plain_properties,
)
from paddler.agent.worker.gbnf.notations import json_notation, one_in, writable
from paddler.agent.worker.gbnf.patterns import ALL, CharSet, chars, charset, pattern_expression
from paddler.agent.worker.gbnf.schemas import SchemaRules, string_expression
from paddler.agent.worker.gbnf.writing import (
    NotWritable,
    Rules,
    literal,
    one_of_texts,
    repeated,
    until,
)
from paddler.agent.worker.tool_calls.arguments import schema_rules
from paddler.agent.worker.tool_calls.examples import NUMBER, NUMBER_KEY, TEXT, TEXT_KEY
from paddler.agent.worker.tool_calls.tagged import Tagged, named_types, typed_value

# What Python strips from texts.
_BLANK: Final = charset(
    *((ord(low), ord(high)) for low, high in ("\t\r", "\x1c ", "\u2000\u200a", "\u2028\u2029")),
    *((ord(char), ord(char)) for char in "\x85\xa0\u1680\u202f\u205f\u3000"),
)

# Where a model says the type of a value, it says this of a string.
_STRING_KINDS: Final = ("string", "true")


class _Tags(NamedTuple):
    """What stands around keys and values. ``TEXT_KEY`` in ``close`` stands for any key."""

    before: str  # all arguments, also where there are none
    open: str
    text_middle: str  # between the key and a value that is a string
    number_middle: str
    close: str
    between: str  # two arguments

    def middle(self, kind: str) -> str:
        """What comes before a value of this JSON type."""
        if kind == "string" or self.text_middle == self.number_middle:
            return self.text_middle
        # A whole number is a number, as the example's is.
        return self.number_middle.replace('"number"', f'"{kind}"'.replace("integer", "number"))


class TaggedArguments:
    """Arguments of one such syntax."""

    def __init__(self, syntax: Tagged) -> None:
        self._syntax = syntax

    def find(self, text: str, position: int) -> tuple[int, int] | None:
        """From the blanks before the first key to the closing of the last value."""
        first = self._syntax.key.search(text, position)
        values = (text.find(str(NUMBER), position), text.find(TEXT, position))
        if first is None or min(values) < 0:
            return None
        last = self._syntax.value_end.search(text, max(values))
        if last is None:
            return None
        return first.start(), last.end()

    def expression(self, rules: Rules, example: str, schema: Any, hint: str) -> str:
        """An atom for the arguments that a schema allows."""
        walker = schema_rules(rules, schema, json_notation(rules), example)
        members = _Members(walker, self._syntax, _tags(example), plain_properties(schema))
        return walker.object(schema, members, hint)

    def end(self, before: str, after: str) -> int:
        """Behind what the reader takes for the end of the call."""
        found = self._syntax.end.search(after)
        return len(after) if found is None else found.end()


def _tags(example: str) -> _Tags:
    """What the example shows; its two arguments may come in any order."""
    words = sorted(
        ((TEXT_KEY, TEXT), (NUMBER_KEY, str(NUMBER))), key=lambda pair: example.find(pair[0])
    )
    (first_key, first_value), (last_key, last_value) = words
    before, _, rest = example.partition(first_key)
    open_ = before.lstrip()
    blank = before.removesuffix(open_)
    first_middle, _, rest = rest.partition(first_value)
    join, _, rest = rest.partition(last_key)
    last_middle, _, close = rest.partition(last_value)
    close = close.replace(last_key, TEXT_KEY)
    between = join.removesuffix(open_)[len(close.replace(TEXT_KEY, first_key)) :]
    if between == blank:  # Then every argument begins so, and none leaves no trace of it.
        open_, between, blank = before, "", ""
    is_text_first = first_key == TEXT_KEY
    return _Tags(
        before=blank,
        open=open_,
        text_middle=first_middle if is_text_first else last_middle,
        number_middle=last_middle if is_text_first else first_middle,
        close=close,
        between=between,
    )


class _Members:
    """The arguments as members of an object. ``read``: the schemas that the reader knows."""

    def __init__(
        self, walker: SchemaRules, syntax: Tagged, tags: _Tags, read: Mapping[str, Any]
    ) -> None:
        self._walker = walker
        self._rules = walker.rules
        self._syntax = syntax
        self._tags = tags
        self._read = read
        self._kind = self._kind_of_text()
        self.brackets = (literal(tags.before) if tags.before else "", "")
        self.open = literal(tags.open)
        self.comma = literal(tags.between) if tags.between else ""

    def member(self, name: str, schema: Any, hint: str) -> str:
        self._check_name(name)
        close = self._tags.close.replace(TEXT_KEY, name)
        raw = _RawTexts(self._rules, self._syntax, close)
        ways = self._walker.typed(schema)
        if self._kind is not None:
            ways = [each for way in ways for each in _of_one_kind(way)]
        elif _takes_any_text(ways):
            return f"{literal(f'{name}{self._tags.text_middle}')} {raw.any()}"
        parts = []
        by_kind: dict[str, list[Typed]] = {}
        for way in ways:
            if way.kind == "string":
                parts += self._texts(name, way.schema, raw, close, hint)
            else:
                by_kind.setdefault(way.kind, []).append(way)
        for kind, group in by_kind.items():
            value = self._walker.choice(group, f"{hint}-{kind}")
            parts.append(f"{literal(self._tags.middle(kind))} {value} {literal(close)}")
        if not parts:
            raise NotWritable("no value fits")
        rest = self._rules.add(hint, " | ".join(dict.fromkeys(parts)))
        return f"{literal(name)} {rest}"

    def other(self, names: Sequence[str], schema: Any, hint: str) -> str:
        """Only where none is declared: then any text says something that is allowed."""
        if names or TEXT_KEY in self._tags.close:
            raise NotWritable("only declared arguments can be written in this model's calls")
        value = _RawTexts(self._rules, self._syntax, self._tags.close).any()
        return f"[A-Za-z] [0-9A-Za-z]{{0,30}} {literal(self._tags.text_middle)} {value}"

    def _check_name(self, name: str) -> None:
        written = f"{self._tags.open}{name}{self._tags.text_middle}"
        found = self._syntax.key.match(written)
        if found is None or found["key"] != name or name != name.strip():
            raise NotWritable(f"the name {name!r} cannot be written in this model's calls")

    def _kind_of_text(self) -> str | None:
        """What the model says of the type of a string."""
        written = f"{self._tags.open}{TEXT_KEY}{self._tags.text_middle}"
        found = self._syntax.key.match(written)
        return None if found is None else found.groupdict().get("kind")

    def _texts(
        self, name: str, schema: dict[str, Any], raw: "_RawTexts", close: str, hint: str
    ) -> list[str]:
        """Expressions for strings, from behind the key."""
        middle = literal(self._tags.text_middle)
        read = self._read.get(name)
        if "enum" in schema:
            texts = writable(schema["enum"], lambda text: self._constant(text, read, raw))
            return [f"{middle} {one_of_texts(self._rules, hint, texts)}"]
        if self._kind in _STRING_KINDS or named_types(read) == {"string"}:
            return [f"{middle} {string_expression(raw, schema, hint)}"]
        quoted = string_expression(self._walker.notation.texts, schema, hint)
        return [f"{middle} {quoted} {literal(close)}"]

    def _constant(self, text: str, read: Any, raw: "_RawTexts") -> str:
        for written in (text, json.dumps(text, ensure_ascii=False)):
            if typed_value(written.strip(), read, self._kind) == text and raw.can_say(written):
                return raw.constant(written)
        raise NotWritable(f"the text {text!r} cannot be written in this model's calls")


def _of_one_kind(way: Typed) -> list[Typed]:
    """Where the type is said with the value, any value is one of a type."""
    if way.kind:
        return [way]
    return [Typed(kind, {"type": kind}) for kind in JSON_TYPES]


def _takes_any_text(ways: Sequence[Typed]) -> bool:
    """Whether any text at all says something that is allowed, by its type or as a string."""
    has_any_text = False
    for kind, schema in ways:
        if not kind:
            return True
        is_free = "enum" not in schema and constraints(schema).keys() <= {"type"}
        if kind == "string" and is_free:
            has_any_text = True
        elif kind not in ("null", "boolean") or not is_free:
            return False
    return has_any_text


class _RawTexts:
    """Strings as they are, with what closes them: the reader leaves out blanks around them."""

    def __init__(self, rules: Rules, syntax: Tagged, close: str) -> None:
        self._rules = rules
        self._close = close
        self._end = close.strip()
        self._syntax = syntax
        self._raw = ALL.without(chars(self._end[0]))
        self._solid = self._raw.without(_BLANK)

    def any(self) -> str:
        others = [text for text in _OTHER_ENDS if self._syntax.value_end.fullmatch(text)]
        return until(
            self._rules,
            "text",
            {self._end: ""},
            forbidden=[text for text in others if text != self._end],
        )

    def sized(self, least: int, most: int | None) -> str:
        solid, inner = self._solid.expression(), self._raw.expression()
        close = literal(self._close)
        if most == 0:
            return close
        if most == 1:
            text = solid
        else:
            more = repeated(inner, max(0, least - 2), None if most is None else most - 2)
            text = f"{solid} {more} {solid}" if least > 1 else f"{solid} ({more} {solid})?"
        if most is None:
            # Whatever comes after enough characters, there are enough.
            first = f"{repeated(inner, least - 2, least - 2)} {solid}" if least > 1 else ""
            return self._rules.add("text", f"{solid} {first} {self.any()}")
        return self._rules.add("text", f"{text} {close}" if least else f"({text})? {close}")

    def matching(self, pattern: str, hint: str) -> str:
        text = pattern_expression(self._rules, hint, pattern, self._one_of)
        return self._rules.add(hint, f"{text} {literal(self._close)}")

    def constant(self, text: str) -> str:
        return text + self._close

    def can_say(self, text: str) -> bool:
        """Whether the reader takes all of this text for the value."""
        found = self._syntax.value_end.search(text + self._close)
        return found is not None and found.end() == len(text + self._close)

    def _one_of(self, wanted: CharSet) -> str:
        return one_in(wanted.without(chars(self._end[0])))


# What ends a value of one template, and would end one of another for the same reader.
_OTHER_ENDS: Final = ("</parameter>", "</param>", "</arg_value>")
