"""How the arguments of a call are written: where they stand in an example, and any others."""

import json
import keyword
import re
from collections.abc import Sequence
from typing import Any, Final, Protocol

from paddler.agent.worker.gbnf.notations import (
    Notation,
    gemma_notation,
    json_notation,
    python_notation,
    space_rule,
)
from paddler.agent.worker.gbnf.schemas import SchemaRules
from paddler.agent.worker.gbnf.writing import NotWritable, Rules, literal
from paddler.agent.worker.tool_calls.examples import ARGUMENTS, has_sorted_keys


class Arguments(Protocol):
    """One way of writing arguments."""

    def find(self, text: str, position: int) -> tuple[int, int] | None:
        """Where those of an example stand, from ``position`` on."""
        ...

    def expression(self, rules: Rules, example: str, schema: Any, hint: str) -> str:
        """An atom for the arguments that a schema allows, written like those of the example.

        Raises :class:`SchemaNotSupported`.
        """
        ...

    def end(self, before: str, after: str) -> int:
        """Where the call ends in what follows its arguments; the rest may be left out."""
        ...


def schema_rules(rules: Rules, schema: Any, notation: Notation, example: str) -> SchemaRules:
    """Rules for arguments that are written like those of the example."""
    return SchemaRules(rules, schema, notation, sorts_keys=has_sorted_keys(example))


class _Bracketed:
    """Arguments in calls whose brackets tell where they end."""

    _BRACKET: Final = re.compile(r"[(\[{]|[)\]}]")

    def end(self, before: str, after: str) -> int:
        opening, closing = "([{", ")]}"
        brackets = self._BRACKET.findall(before)
        depth = sum(1 if bracket in opening else -1 for bracket in brackets)
        position = 0
        for found in self._BRACKET.finditer(after):
            if depth <= 0:
                break
            depth += -1 if found.group() in closing else 1
            position = found.end()
        return position


class _JsonArguments(_Bracketed):
    """One JSON object."""

    def find(self, text: str, position: int) -> tuple[int, int] | None:
        decode = json.JSONDecoder().raw_decode
        while (position := text.find("{", position)) >= 0:
            try:
                value, end = decode(text, position)
            except json.JSONDecodeError:
                position += 1
                continue
            if value == ARGUMENTS:
                return position, end
            position += 1
        return None

    def expression(self, rules: Rules, example: str, schema: Any, hint: str) -> str:
        walker = schema_rules(rules, schema, json_notation(rules), example)
        return walker.object(schema, walker.form, hint)


class _GemmaArguments(_Bracketed):
    """What stands between the braces."""

    _PLACE: Final = re.compile(r"\{([^{}]*)\}")

    def find(self, text: str, position: int) -> tuple[int, int] | None:
        found = self._PLACE.search(text, position)
        return None if found is None else found.span(1)

    def expression(self, rules: Rules, example: str, schema: Any, hint: str) -> str:
        walker = schema_rules(rules, schema, gemma_notation(rules), example)
        return walker.object(schema, _Bare(walker), hint)


class _Bare:
    """Members without what stands around an object."""

    brackets = ("", "")

    def __init__(self, walker: SchemaRules) -> None:
        self.comma = walker.form.comma
        self.open = walker.form.open
        self.member = walker.form.member
        self.other = walker.form.other


class _PythonArguments(_Bracketed):
    """What stands between the parentheses."""

    _PLACE: Final = re.compile(r"\(([^()]*)\)")

    def find(self, text: str, position: int) -> tuple[int, int] | None:
        found = self._PLACE.search(text, position)
        return None if found is None else found.span(1)

    def expression(self, rules: Rules, example: str, schema: Any, hint: str) -> str:
        walker = schema_rules(rules, schema, python_notation(rules), example)
        return walker.object(schema, _Keywords(walker), hint)


class _Keywords:
    """Members as the named arguments of a call in Python."""

    brackets = ("", "")
    open = ""

    def __init__(self, walker: SchemaRules) -> None:
        self._walker = walker
        self.comma = f'"," {space_rule(walker.rules)}'

    def member(self, name: str, schema: Any, hint: str) -> str:
        if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
            raise NotWritable(f"the name {name!r} cannot be written in this model's calls")
        return f"{literal(f'{name}=')} {self._walker.value(schema, hint)}"

    def other(self, names: Sequence[str], schema: Any, hint: str) -> str:
        raise NotWritable("only declared arguments can be written in this model's calls")


JSON_ARGUMENTS: Final = _JsonArguments()
GEMMA_ARGUMENTS: Final = _GemmaArguments()
PYTHON_ARGUMENTS: Final = _PythonArguments()
