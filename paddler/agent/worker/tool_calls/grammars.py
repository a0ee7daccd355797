"""Grammars that make a model call tools, in the syntax that its chat template taught it.

What is generated under them is what the dialect's reader reads back, with arguments that
the schemas of the tools allow. A grammar rules from the first token on, also where the
model may say other things before it calls: then most of it is a rule for text in which no
call begins. That costs some microseconds a token and is exact: a token that holds the end
of a thought and the beginning of something else is checked like any other.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from paddler.agent.worker.gbnf.alternatives import constraints
from paddler.agent.worker.gbnf.writing import (
    Gbnf,
    Rules,
    SchemaNotSupported,
    literal,
    repeated,
)
from paddler.agent.worker.markers import ModelFormat
from paddler.agent.worker.sections import Markers
from paddler.agent.worker.tool_calls.dialects import (
    BARE_JSON,
    DIALECTS,
    Dialect,
    Unrecognized,
    parse_in,
)
from paddler.agent.worker.tool_calls.examples import CALL_IDS, FUNCTION, CallText, call_text
from paddler.agent.worker.tool_calls.turns import Turn, turn_of

# Calls of one answer. A model that has lost its way would go on until the context is full.
MAX_CALLS: Final = 32


class FunctionLike(Protocol):
    """A function that may be called."""

    @property
    def name(self) -> str:
        """What it is called by."""
        ...

    @property
    def parameters(self) -> Any:
        """A JSON schema, decoded or as a struct; ``None`` or ``UNSET``: it takes anything."""
        ...


class ToolLike(Protocol):
    """A tool of whichever API."""

    @property
    def function(self) -> FunctionLike:
        """The function that the tool is."""
        ...


def forced_calls(
    form: ModelFormat,
    tools: Sequence[ToolLike],
    *,
    only: str | None = None,
    is_required: bool,
    may_repeat: bool,
    starts_in_reasoning: bool = False,
    thinks: bool = False,
    loose: Collection[str] = (),
) -> Gbnf:
    """A grammar for answers of a model of this ``form`` that call these tools as they should.

    ``only``: the one tool that may be called. ``is_required``: the answer must call, and may
    do nothing else but reason before; if not, it may say anything, but what begins a call
    must be one, and after calls it ends. ``may_repeat``: it may make several calls.
    ``starts_in_reasoning``: the prompt has opened a thought. ``thinks``: the model may open
    one. ``loose``: names of tools whose arguments may be any object.

    Raises :class:`SchemaNotSupported`, which names the tool.
    """
    functions = [tool.function for tool in tools if only in (None, tool.function.name)]
    if not functions:
        what = "there are no tools" if only is None else f'there is no tool "{only}"'
        raise SchemaNotSupported(what)
    rules = Rules()
    turn = turn_of(form, rules)
    calls = _Calls(form, turn, rules, functions, may_repeat=may_repeat, loose=loose)
    if not is_required:
        return rules.grammar(turn.free(calls.endings()))
    return rules.grammar(
        turn.led_to(
            calls.expression(),
            starts_in_reasoning=starts_in_reasoning,
            thinks=thinks,
            shortcuts=calls.shortcuts(),
            has_blanks=True,
        )
    )


def calls_or_content(
    form: ModelFormat,
    tools: Sequence[ToolLike],
    content: Gbnf,
    *,
    may_repeat: bool,
    starts_in_reasoning: bool,
    thinks: bool,
) -> Gbnf:
    """A grammar for answers that either call these tools or obey the given grammar.

    They may reason before. Raises :class:`SchemaNotSupported`, which names the tool.
    """
    rules = Rules(avoiding=content.text)
    turn = turn_of(form, rules)
    functions = [tool.function for tool in tools]
    calls = _Calls(form, turn, rules, functions, may_repeat=may_repeat, loose=())
    said = f"{turn.content_opening} {content.root}".lstrip()
    root = turn.led_to(
        f"({calls.expression()} | {said})",
        starts_in_reasoning=starts_in_reasoning,
        thinks=thinks,
        shortcuts=calls.shortcuts(),
    )
    added = rules.grammar(root)
    return Gbnf(f"{added.text}{content.text}", root)


def behind_reasoning(
    form: ModelFormat, grammar: Gbnf, *, starts_in_reasoning: bool, thinks: bool
) -> Gbnf:
    """The grammar for answers that may reason first, and whose content the given one rules.

    Where the model wraps its content in markers or headers, these come before it.
    """
    rules = Rules(avoiding=grammar.text)
    turn = turn_of(form, rules)
    content = f"{turn.content_opening} {grammar.root}".lstrip()
    root = turn.led_to(content, starts_in_reasoning=starts_in_reasoning, thinks=thinks)
    added = rules.grammar(root)
    return Gbnf(f"{added.text}{grammar.text}", root)


def readable(form: ModelFormat) -> ModelFormat:
    """The form by which forced calls of a model are told from its other text.

    They are bare JSON where the template announces calls in no other way.
    """
    markers = form.markers
    if markers.tool_calls or markers.headers or markers.has_bare_calls:
        return form
    return form._replace(markers=markers._replace(has_bare_calls=True))


# --- what the template shows -------------------------------------------------------------------


def _dialect_of(form: ModelFormat) -> Dialect:
    """The model's own; else the first one whose calls begin with the model's marker."""
    if form.dialect is not None:
        return form.dialect
    marked = (
        dialect
        for marker in form.markers.tool_calls
        for dialect in DIALECTS
        if dialect.example.startswith(marker)
    )
    return next(marked, BARE_JSON)


def _call_text_of(form: ModelFormat, dialect: Dialect) -> CallText:
    """How calls are written, without what ends a turn."""
    if form.dialect is not None:
        shown = call_text(form.example, dialect.arguments.find)
        if shown is not None:
            return shown._replace(after=_without_turn_end(form.markers, dialect, shown))
    known = call_text(dialect.example, dialect.arguments.find)
    assert known is not None  # The examples of dialects are read by their tests.
    return known


def _without_turn_end(markers: Markers, dialect: Dialect, text: CallText) -> str:
    end = dialect.arguments.end(text.before, text.after)
    closings = [text.after.rfind(closing) + len(closing) for closing in markers.closings
                if closing in text.after]  # fmt: skip
    return text.after[: max([end, *closings])]


# --- calls -------------------------------------------------------------------------------------

# What is different in every call: ids, and numbers that count calls.
_VARYING: Final = re.compile(rf"(?P<id>{'|'.join(CALL_IDS)})|(?<![\w.])[0-2](?![\w.])")

# A tool that tells nothing of its parameters takes any object of this size.
_SCALAR: Final[dict[str, Any]] = {"type": ["string", "number", "boolean", "null"]}
_ANY_ARGUMENTS: Final[dict[str, Any]] = {
    "type": "object",
    "maxProperties": 16,
    "additionalProperties": {
        "anyOf": [
            _SCALAR,
            {"type": "array", "maxItems": 16, "items": _SCALAR},
            {"type": "object", "maxProperties": 16, "additionalProperties": _SCALAR},
        ]
    },
}


class _Head(NamedTuple):
    """What stands before the arguments of a call."""

    opening: str
    """Up to the name."""
    middle: str
    """From behind the name on. ``FUNCTION`` in it stands for the name once more."""


def _head(before: str) -> _Head:
    opening, _, middle = before.partition(FUNCTION)
    return _Head(opening, middle)


class _Calls:
    """Rules for calls of these functions, in the model's dialect."""

    def __init__(
        self,
        form: ModelFormat,
        turn: Turn,
        rules: Rules,
        functions: Sequence[FunctionLike],
        *,
        may_repeat: bool,
        loose: Collection[str],
    ) -> None:
        self._rules = rules
        self._markers = form.markers
        self._dialect = _dialect_of(form)
        self._text = _call_text_of(form, self._dialect)
        self._heads = [_head(before) for before in turn.call_beginnings(self._text.before)]
        self._arguments = {
            function.name: self._arguments_of(function, is_loose=function.name in loose)
            for function in functions
        }
        self._tail = self._tail_expression(may_repeat=may_repeat)

    def expression(self) -> str:
        """An expression for the whole of the calls."""
        ways = [
            f"{self._varying(head.opening)} {self._after_opening(head)}" for head in self._heads
        ]
        return f"({' | '.join(ways)})"

    def shortcuts(self) -> dict[str, str]:
        """Markers that begin calls wherever they stand, with what follows them."""
        return {
            marker: f"{self._varying(rest)} {self._after_opening(head)}"
            for head in self._heads
            for marker in self._markers.tool_calls
            if (rest := head.opening.partition(marker)[2]) or head.opening.endswith(marker)
        }

    def endings(self) -> dict[str, str]:
        """What text without calls ends with when one begins, with what follows.

        Where no marker announces calls the name of a tool is part of it: a bracket or two
        may be the beginning of anything.
        """
        endings = self.shortcuts()
        for head in () if endings else self._heads:
            if head.opening.endswith("to=functions."):
                endings[head.opening] = self._after_opening(head)
                continue
            mark = head.middle[:1]  # tells a name from one that begins with it
            for name in self._arguments:
                rest = self._after_name(name, head.middle[len(mark) :])
                endings[f"{head.opening}{name}{mark}"] = f"{rest} {self._tail}"
        return endings

    def _after_opening(self, head: _Head) -> str:
        return f"{self._any_call(head.middle)} {self._tail}"

    def _any_call(self, middle: str) -> str:
        """An atom for one call, from its name on."""
        ways = [f"{literal(name)} {self._after_name(name, middle)}" for name in self._arguments]
        return self._rules.add("call", " | ".join(ways))

    def _after_name(self, name: str, middle: str) -> str:
        return f"{self._varying(middle.replace(FUNCTION, name))} {self._arguments[name]}".lstrip()

    def _tail_expression(self, *, may_repeat: bool) -> str:
        """What follows the arguments of the first call: more calls, and the closing."""
        parts = []
        if may_repeat and self._text.between is not None:
            opening, middle = _head(self._text.between)
            following = f"{self._varying(opening)} {self._any_call(middle)}"
            parts.append(repeated(self._rules.add("next-call", following), 0, MAX_CALLS - 1))
        end = self._dialect.arguments.end(self._text.before, self._text.after)
        parts.append(self._varying(self._text.after[:end]))
        # A closing may be a token that ends the answer: then it cannot be asked for as text.
        if closing := self._varying(self._text.after[end:]):
            parts.append(f"({closing})?")
        return " ".join(filter(None, parts))

    def _varying(self, text: str) -> str:
        """An expression for a text that is from an example."""
        parts = []
        position = 0
        for found in _VARYING.finditer(text):
            parts.append(text[position : found.start()])
            is_id = found["id"] is not None
            name, body = ("id", "[0-9A-Za-z]{9}") if is_id else ("number", "[0-9]{1,2}")
            parts.append(self._rules.add(name, body))
            position = found.end()
        parts.append(text[position:])
        return " ".join(part if at % 2 else literal(part) for at, part in enumerate(parts) if part)

    def _arguments_of(self, function: FunctionLike, *, is_loose: bool) -> str:
        schema = _schema(function)
        if is_loose or constraints(schema) in ({}, {"type": "object"}):
            schema = _ANY_ARGUMENTS
        example = self._text.arguments
        try:
            self._check_name(function.name)
            return self._dialect.arguments.expression(self._rules, example, schema, function.name)
        except SchemaNotSupported as error:
            raise SchemaNotSupported(f'tool "{function.name}": {error}') from error
        except RecursionError as error:
            raise SchemaNotSupported(
                f'tool "{function.name}": the schema of its parameters is nested too deeply'
            ) from error

    def _check_name(self, name: str) -> None:
        """Refuse names that the dialect has no place for."""
        before, _, after, arguments = self._text
        written = f"{before.replace(FUNCTION, name)}{arguments}{after}"
        calls = parse_in(self._dialect, written)
        if isinstance(calls, Unrecognized) or [call.name for call in calls] != [name]:
            raise SchemaNotSupported("its name cannot be written in this model's calls")


def _schema(function: FunctionLike) -> Mapping[str, Any]:
    parameters = function.parameters
    if parameters is None or parameters is msgspec.UNSET:
        return {}
    schema = msgspec.to_builtins(parameters)
    if not isinstance(schema, dict):
        raise SchemaNotSupported(f'tool "{function.name}": its parameters are no JSON schema')
    return schema
