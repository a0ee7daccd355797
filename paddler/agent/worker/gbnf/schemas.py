"""From JSON schemas to the rules for texts of the values that they allow.

What is understood: ``type``, ``enum``, ``const``, ``properties``, ``required``,
``additionalProperties``, ``items``, ``prefixItems``, ``minItems``, ``maxItems``, ``minLength``,
``maxLength``, ``pattern``, the formats of dates, times and UUIDs, bounds of numbers,
``anyOf``, ``oneOf``, ``allOf`` and references within the document. Other keywords say what no
grammar can; they are left to a check of the finished value.

Where a schema leaves open what a value may have, the grammar does not: objects with
declared properties have no others, unless the schema says so, and properties come in the
order of their declaration.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from paddler.agent.worker.gbnf.alternatives import (
    JSON_TYPES,
    Alternatives,
    Typed,
    additional_of,
    bounds,
    least_of,
    most_of,
    properties_of,
    shortened,
    whole_bounds,
)
from paddler.agent.worker.gbnf.notations import Keys, Notation, Texts, writable
from paddler.agent.worker.gbnf.patterns import FORMATS
from paddler.agent.worker.gbnf.ranges import integers_between, numbers_between
from paddler.agent.worker.gbnf.writing import (
    EMPTY,
    NotWritable,
    Rules,
    SchemaNotSupported,
    one_of_texts,
    repeated,
)

# Values within values. What models are taught to write is far from it.
MAX_DEPTH: Final = 64

# Alternatives that all begin with a bracket are followed at once. Of objects, the first name
# soon tells which is meant; of lists nothing may for many brackets, each of which multiplies
# the ways: so their number counts with that of the lists within them.
MAX_OBJECTS: Final = 32
MAX_LISTS: Final = 32


class _Done(NamedTuple):
    """A schema that has a rule. It is kept, or another could be found in its place."""

    schema: Any
    name: str
    lists: int  # followed at once in it


class _Open:
    """A schema whose rule is being written."""

    __slots__ = ("lists", "name")

    def __init__(self, lists: int) -> None:
        self.name = ""
        self.lists = lists


class ObjectForm(Protocol):
    """How an object is written whose members may not be those of the notation."""

    @property
    def brackets(self) -> tuple[str, str]:
        """Expressions for what opens and closes the object."""
        ...

    @property
    def comma(self) -> str:
        """An expression for what stands between members."""
        ...

    @property
    def open(self) -> str:
        """An expression for what all members begin with."""
        ...

    def member(self, name: str, schema: Any, hint: str) -> str:
        """An expression for this member, without what all begin with; :class:`NotWritable`."""
        ...

    def other(self, names: Sequence[str], schema: Any, hint: str) -> str:
        """An expression for a member of any name but these, without what all begin with."""
        ...


class SchemaRules:
    """Rules for the values of one document's schemas, in one notation.

    ``sorts_keys``: properties come in the order of the alphabet, not of their declaration.
    """

    def __init__(
        self, rules: Rules, document: Any, notation: Notation, *, sorts_keys: bool = False
    ) -> None:
        self.rules = rules
        self.notation = notation
        self._alternatives = Alternatives(document)
        self._sorts_keys = sorts_keys
        self.form: ObjectForm = _NotationForm(self)
        # By identity: a schema that contains itself is reached again as the same object.
        self._done: dict[int, _Done] = {}
        self._open: dict[int, _Open] = {}
        self._anything = ""
        # Lists that are followed at once: where we are, and at most in what was done so far.
        self._lists = 1
        self._most_lists = 1

    def value(self, schema: Any, hint: str) -> str:
        """An atom for the values that ``schema`` allows.

        Raises :class:`NotWritable` if there are none, :class:`SchemaNotSupported` if it is no
        schema or none that a grammar can follow.
        """
        schema = self._alternatives.target(schema)
        key = id(schema)
        if key in self._done:
            done = self._done[key]
            self._count_lists(done.lists)
            return done.name
        if key in self._open:
            return self._name_of_open(self._open[key], hint)
        if len(self._open) >= MAX_DEPTH:
            raise SchemaNotSupported(f"it is nested more than {MAX_DEPTH} levels deep")
        opened = self._open[key] = _Open(self._lists)
        most_before, self._most_lists = self._most_lists, self._lists
        try:
            body = self._choice(self.typed(schema), hint)
        finally:
            del self._open[key]
        if opened.name:
            self.rules.define(opened.name, body)
        else:
            opened.name = self.rules.add(hint, body)
        self._done[key] = _Done(schema, opened.name, self._most_lists // self._lists)
        self._most_lists = max(most_before, self._most_lists)
        return opened.name

    def object(self, schema: Any, form: ObjectForm, hint: str) -> str:
        """An atom for the objects that ``schema`` allows, in a form of their own."""
        objects = [
            way.schema
            for way in self.typed(schema)
            if way.kind in ("", "object") and "enum" not in way.schema
        ]
        if not objects:
            raise SchemaNotSupported("parameters are an object; the schema allows none")
        self._check_objects(len(objects))
        bodies = [self._object(way, form, hint) for way in objects]
        return self.rules.add(hint, " | ".join(dict.fromkeys(bodies)))

    def choice(self, ways: Sequence[Typed], hint: str) -> str:
        """An atom for the values of any of these ways."""
        return self.rules.add(hint, self._choice(ways, hint))

    def typed(self, schema: Any) -> list[Typed]:
        """The ways that the values of ``schema`` may be."""
        return self._alternatives.typed(schema)

    # --- values ------------------------------------------------------------------------------

    def _choice(self, ways: Sequence[Typed], hint: str) -> str:
        """An expression for the values of any of these ways."""
        kinds = [way.kind for way in ways if "enum" not in way.schema]
        self._check_objects(kinds.count("object"))
        lists = kinds.count("array")
        if lists > 1:
            self._count_lists(lists)
            self._lists *= lists
        try:
            return self._choice_of(ways, hint)
        finally:
            if lists > 1:
                self._lists //= lists

    def _choice_of(self, ways: Sequence[Typed], hint: str) -> str:
        bodies: list[str] = []
        for kind, schema in ways:
            if "enum" not in schema:
                bodies.append(self._of_type(kind, schema, hint))
            elif kind == "string":
                texts = writable(schema["enum"], self.notation.texts.constant)
                bodies.append(one_of_texts(self.rules, hint, texts))
            else:
                bodies += writable(schema["enum"], self.notation.constant)
        if not bodies:
            raise NotWritable("no value fits")
        return " | ".join(dict.fromkeys(bodies))

    def _count_lists(self, within: int) -> None:
        """``within`` lists more are followed at once, in each of those that are."""
        lists = self._lists * within
        self._most_lists = max(self._most_lists, lists)
        if lists > MAX_LISTS:
            raise SchemaNotSupported(
                f"it is too ambiguous: {lists} kinds of lists within lists may begin in one place; "
                f"{MAX_LISTS} are the most"
            )

    def _check_objects(self, count: int) -> None:
        if count > MAX_OBJECTS:
            raise SchemaNotSupported(
                f"it has {count} alternatives of type object in one place; {MAX_OBJECTS} are the "
                "most"
            )

    def _name_of_open(self, opened: "_Open", hint: str) -> str:
        """The name of what contains itself, which is needed before it has a body."""
        if self._lists > opened.lists:
            raise SchemaNotSupported(
                "it is too ambiguous: several kinds of lists that begin alike contain themselves"
            )
        opened.name = opened.name or self.rules.reserve(hint)
        return opened.name

    def _of_type(self, kind: str, schema: dict[str, Any], hint: str) -> str:
        match kind:
            case "object":
                return self._object(schema, self.form, hint)
            case "array":
                return self._array(schema, hint)
            case "string":
                return string_expression(self.notation.texts, schema, hint)
            case "integer":
                return integers_between(*whole_bounds(schema))
            case "number":
                return numbers_between(*bounds(schema))
            case "boolean":
                return f"{self.notation.true} | {self.notation.false}"
            case "null":
                return self.notation.null
            case _:
                return self._any()

    def _any(self) -> str:
        """A rule for any value."""
        if not self._anything:
            self._anything = self.rules.reserve("value")
            bodies = (self._of_type(kind, {}, kind) for kind in JSON_TYPES)
            self.rules.define(self._anything, " | ".join(bodies))
        return self._anything

    def _array(self, schema: dict[str, Any], hint: str) -> str:
        first = schema.get("prefixItems", [])
        rest = schema.get("items", not first)
        if isinstance(rest, list):  # as before 2020-12
            first, rest = rest, schema.get("additionalItems", False)
        if not isinstance(first, list):
            raise SchemaNotSupported(f"prefixItems is a list, not {shortened(first)}")
        least = least_of(schema, "minItems")
        most = most_of(schema, "maxItems")
        first = first[: most if most is not None else len(first)]
        if least > len(first) and rest is False:
            rest = True
        comma = self.notation.comma
        items = [self.value(item, f"{hint}-{at}") for at, item in enumerate(first)]
        parts = [f" {comma} ".join(items)] if items else []
        least_more = max(0, least - len(items))
        most_more = None if most is None else most - len(items)
        if most_more is not None and most_more < least_more:
            raise NotWritable(f"no list has at least {least} and at most {most} items")
        if rest is not False and most_more != 0:
            parts.append(self._items(rest, least_more, most_more, hint, is_first=not items))
        return " ".join((self.notation.array[0], *parts, self.notation.array[1]))

    def _items(
        self, schema: Any, least: int, most: int | None, hint: str, *, is_first: bool
    ) -> str:
        """Items of one kind, after those that came before."""
        try:
            item = self.value(schema, f"{hint}-item")
        except NotWritable:
            if least:
                raise
            return EMPTY
        following = self.rules.add(f"{hint}-items", f"{self.notation.comma} {item}")
        if not is_first:
            return repeated(following, least, most)
        more = repeated(following, max(0, least - 1), None if most is None else most - 1)
        both = f"{item} {more}" if more != EMPTY else item
        return both if least else f"({both})?"

    def _object(self, schema: dict[str, Any], form: ObjectForm, hint: str) -> str:
        open_, close = form.brackets
        members = self._members(schema, form, hint)
        return " ".join(part for part in (open_, members, close) if part)

    def _members(self, schema: dict[str, Any], form: ObjectForm, hint: str) -> str:
        """The members of an object, each known by what may come before it and after it.

        Written from the last one on: ``following`` is what may come when a member has been
        written, ``names`` what may come after that which all members begin with.
        """
        properties, required = properties_of(schema)
        if self._sorts_keys:
            properties = dict(sorted(properties.items()))
        names = ""  # no more members
        is_needed = False  # one of those that follow is required
        following = EMPTY
        more = additional_of(schema)
        most = most_of(schema, "maxProperties")
        if more is not False and most != 0:
            try:
                other = form.other(list(properties), more, f"{hint}-more")
            except NotWritable:
                pass  # There are only those that are declared.
            else:
                next_one = self.rules.add(f"{hint}-more", f"{form.comma} {form.open} {other}")
                following = repeated(next_one, 0, most and most - 1)
                names = self.rules.add(f"{hint}-more", f"{other} {following}")
                following = f"({form.comma} {form.open} {names})?"
        for name, value in reversed(properties.items()):
            try:
                member = form.member(name, value, f"{hint}-{name}")
            except NotWritable as error:
                if name in required:
                    raise error.within(name) from error
                continue
            except SchemaNotSupported as error:
                raise error.within(name) from error
            is_optional = name not in required
            alternatives = [f"{member} {following}" if following != EMPTY else member]
            if is_optional and names:
                alternatives.append(names)
            names = self.rules.add(f"{hint}-{name}", " | ".join(alternatives))
            is_needed = is_needed or not is_optional
            rest = f"{form.comma} {form.open} {names}"
            following = self.rules.add(f"{hint}-next", rest if is_needed else f"{rest} | {EMPTY}")
        if not names:
            return ""
        return f"{form.open} {names}" if is_needed else f"({form.open} {names})?"


class _NotationForm:
    """Objects as the notation has them."""

    def __init__(self, owner: SchemaRules) -> None:
        self._owner = owner
        self._keys: Keys = owner.notation.keys
        self.brackets = owner.notation.object
        self.comma = owner.notation.comma
        self.open = self._keys.open

    def member(self, name: str, schema: Any, hint: str) -> str:
        return f"{self._keys.named(name)} {self._keys.close} {self._owner.value(schema, hint)}"

    def other(self, names: Sequence[str], schema: Any, hint: str) -> str:
        value = self._owner.value(schema, hint)
        return f"{self._keys.others(names)} {self._keys.close} {value}"


def string_expression(texts: Texts, schema: Mapping[str, Any], hint: str) -> str:
    """An atom for the strings that a schema allows."""
    pattern = schema.get("pattern", FORMATS.get(str(schema.get("format"))))
    if pattern is not None:
        if not isinstance(pattern, str):
            raise SchemaNotSupported(f"a pattern is text, not {shortened(pattern)}")
        return texts.matching(pattern, hint)
    least = least_of(schema, "minLength")
    most = most_of(schema, "maxLength")
    if (least, most) == (0, None):
        return texts.any()
    if most is not None and most < least:
        raise NotWritable(f"no text has at least {least} and at most {most} characters")
    return texts.sized(least, most)
