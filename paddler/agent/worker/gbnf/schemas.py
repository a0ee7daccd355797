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

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote

from paddler.agent.worker.gbnf.notations import (
    Keys,
    Notation,
    NotWritable,
    Texts,
    json_notation,
)
from paddler.agent.worker.gbnf.patterns import FORMATS
from paddler.agent.worker.gbnf.ranges import integers_between, numbers_between
from paddler.agent.worker.gbnf.writing import (
    EMPTY,
    Rules,
    SchemaNotSupported,
    one_of_texts,
    repeated,
)

# Values within values. What models are taught to write is far from it.
MAX_DEPTH: Final = 64

# Alternatives, constants and combinations of them that are looked at in one document.
MAX_STEPS: Final = 10_000

# Alternatives that all begin with a bracket are followed at once. Of objects, the first name
# soon tells which is meant; of lists nothing may for many brackets, each of which multiplies
# the ways: so their number counts with that of the lists within them.
MAX_OBJECTS: Final = 32
MAX_LISTS: Final = 32

JSON_TYPES: Final = ("object", "array", "string", "number", "boolean", "null")
_TYPES: Final = (*JSON_TYPES, "integer")

# What a schema without a type is about, by its keywords.
_TYPE_OF: Final = {
    **dict.fromkeys(
        ("properties", "required", "additionalProperties", "patternProperties", "minProperties",
         "maxProperties", "propertyNames", "unevaluatedProperties"),
        "object",
    ),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
                    "array"),
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), "string"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
                    "number"),
}  # fmt: skip


class Typed(NamedTuple):
    """One way that a value may be: of one type, or any value if ``kind`` is empty.

    The schema is without references and combinations; it has the values if it has ``enum``.
    """

    kind: str
    schema: dict[str, Any]


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
    """Rules for the values of one document's schemas, in one notation."""

    def __init__(self, rules: Rules, document: Any, notation: Notation) -> None:
        self.rules = rules
        self.notation = notation
        self._document = document
        self.form: ObjectForm = _NotationForm(self)
        # By identity: a schema that contains itself is reached again as the same object.
        self._done: dict[int, _Done] = {}
        self._open: dict[int, _Open] = {}
        self._anything = ""
        self._steps = 0
        # Lists that are followed at once: where we are, and at most in what was done so far.
        self._lists = 1
        self._most_lists = 1

    def value(self, schema: Any, hint: str) -> str:
        """An atom for the values that ``schema`` allows.

        Raises :class:`NotWritable` if there are none, :class:`SchemaNotSupported` if it is no
        schema or none that a grammar can follow.
        """
        schema = self._target(schema)
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

    # --- alternatives ------------------------------------------------------------------------

    def typed(self, schema: Any) -> list[Typed]:
        """The ways that a value may be."""
        ways: list[Typed] = []
        for plain in self._alternatives(schema, frozenset()):
            types = types_of(plain)
            if "const" in plain or "enum" in plain:
                values = plain["enum"] if "enum" in plain else [plain["const"]]
                typed = _constants(values, types)
                self._step(len(values))
                ways += typed
            elif types:
                ways += [Typed(kind, plain) for kind in types]
            else:
                ways.append(Typed("", plain))
        return ways

    def _alternatives(self, schema: Any, seen: frozenset[str]) -> Iterator[dict[str, Any]]:
        self._step()
        if isinstance(schema, bool):
            if schema:
                yield {}
            return
        if not isinstance(schema, dict):
            raise SchemaNotSupported(f"{_shortened(schema)} is no schema")
        plain = constraints(schema)
        reference = plain.pop("$ref", None)
        combined = plain.pop("allOf", [])
        choices = [plain.pop(key) for key in ("anyOf", "oneOf") if key in plain]
        for part in (combined, *choices):
            if not isinstance(part, list):
                raise SchemaNotSupported(f"{_shortened(part)} is no list of schemas")
        ways = [plain]
        if reference is not None:
            # One that leads back to itself allows nothing more.
            targets = (
                []
                if reference in seen
                else [*self._alternatives(self._resolved(reference), seen | {reference})]
            )
            ways = self._merged(ways, targets)
        for part in combined:
            ways = self._merged(ways, self._alternatives(part, seen))
        for choice in choices:
            branches = [way for part in choice for way in self._alternatives(part, seen)]
            ways = self._merged(ways, branches)
        yield from ways

    def _merged(
        self, ways: Sequence[dict[str, Any]], others: "Iterator[dict[str, Any]] | list[Any]"
    ) -> list[dict[str, Any]]:
        merged = []
        for other in others:
            for way in ways:
                self._step()
                both = _both(way, other)
                if both is not None:
                    merged.append(both)
        return merged

    def _step(self, count: int = 1) -> None:
        self._steps += count
        if self._steps > MAX_STEPS:
            raise SchemaNotSupported(f"it has more than {MAX_STEPS} alternatives")

    def _target(self, schema: Any) -> Any:
        """What a schema stands for that only refers to another."""
        seen: set[Any] = set()
        while isinstance(schema, dict) and list(constraints(schema)) == ["$ref"]:
            reference = schema["$ref"]
            schema = self._resolved(reference)
            if reference in seen:
                raise NotWritable(f"{reference!r} refers to itself without end")
            seen.add(reference)
        return schema

    def _resolved(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaNotSupported(
                f"the remote reference {_shortened(reference)} is not followed; only those within "
                "the schema are"
            )
        target = self._document
        for part in reference[1:].split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and key.isdigit() and int(key) < len(target):
                target = target[int(key)]
            elif isinstance(target, dict) and key in target:
                target = target[key]
            else:
                raise SchemaNotSupported(f"it refers to {reference!r}, which it does not contain")
        if not reference.startswith("#/") and reference != "#":
            raise SchemaNotSupported(f"it refers to {reference!r}, which is no JSON pointer")
        return target

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
                texts = list(map(self.notation.texts.constant, schema["enum"]))
                bodies.append(one_of_texts(self.rules, hint, texts))
            else:
                bodies += map(self.notation.constant, schema["enum"])
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
                return integers_between(*_whole_bounds(schema))
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
            kinds = ("object", "array", "string", "number", "boolean", "null")
            bodies = (self._of_type(kind, {}, kind) for kind in kinds)
            self.rules.define(self._anything, " | ".join(bodies))
        return self._anything

    def _array(self, schema: dict[str, Any], hint: str) -> str:
        first = schema.get("prefixItems", [])
        rest = schema.get("items", not first)
        if isinstance(rest, list):  # as before 2020-12
            first, rest = rest, schema.get("additionalItems", False)
        if not isinstance(first, list):
            raise SchemaNotSupported(f"prefixItems is a list, not {_shortened(first)}")
        least = _count(schema, "minItems", 0)
        most = _count(schema, "maxItems", None)
        first = first[: most if most is not None else len(first)]
        if least is not None and least > len(first) and rest is False:
            rest = True
        comma = self.notation.comma
        items = [self.value(item, f"{hint}-{at}") for at, item in enumerate(first)]
        parts = [f" {comma} ".join(items)] if items else []
        assert least is not None
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
        properties, required = _properties(schema)
        names = ""  # no more members
        is_needed = False  # one of those that follow is required
        following = EMPTY
        more = _additional(schema)
        if more is not False:
            try:
                other = form.other(list(properties), more, f"{hint}-more")
            except NotWritable:
                pass  # There are only those that are declared.
            else:
                most = _count(schema, "maxProperties", None)
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


# --- reading schemas ---------------------------------------------------------------------------

_COMBINING: Final = ("$ref", "allOf", "anyOf", "oneOf")
_UNDERSTOOD: Final = frozenset((*_COMBINING, *_TYPE_OF, "type", "enum", "const", "additionalItems"))


def constraints(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without its remarks."""
    return {key: value for key, value in schema.items() if key in _UNDERSTOOD}


def _constants(values: Any, types: Sequence[str]) -> list[Typed]:
    """Constants by their type, those that are of none of ``types`` left out."""
    if not isinstance(values, list):
        raise SchemaNotSupported(f"{_shortened(values)} is no list of values")
    by_kind: dict[str, list[Any]] = {}
    for value in values:
        kinds = json_types(value)
        if not types or not kinds.isdisjoint(types):
            by_kind.setdefault(min(kinds), []).append(value)
    return [Typed(kind, {"enum": group}) for kind, group in by_kind.items()]


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """The types that a schema names, or is about; empty: it leaves that open."""
    named = schema.get("type")
    if named is None:
        if "const" in schema or "enum" in schema:
            return []
        return list(dict.fromkeys(_TYPE_OF[key] for key in schema if key in _TYPE_OF))
    types = named if isinstance(named, list) else [named]
    for kind in types:
        if kind not in _TYPES:
            raise SchemaNotSupported(
                f"there is no type {_shortened(kind)}; there are {', '.join(_TYPES)}"
            )
    if "number" in types:
        types = [kind for kind in types if kind != "integer"]
    return list(dict.fromkeys(types))


def json_types(value: Any) -> set[str]:
    """The types of a JSON value, as schemas name them."""
    match value:
        case None:
            return {"null"}
        case bool():
            return {"boolean"}
        case int():
            return {"integer", "number"}
        case float():
            return {"number"}
        case str():
            return {"string"}
        case list():
            return {"array"}
        case _:
            return {"object"}


def plain_properties(document: Any) -> dict[str, Any]:
    """The properties of an object, in schemas without references and combinations.

    Empty where a grammar could not follow the schema.
    """
    walker = SchemaRules(Rules(), document, json_notation(Rules()))
    ways: dict[str, list[Typed]] = {}
    try:
        for way in walker.typed(document):
            for name, schema in _properties(way.schema)[0].items():
                ways.setdefault(name, []).extend(walker.typed(schema))
    except (SchemaNotSupported, RecursionError):
        return {}
    return {
        # One that may be anything is of no type that could be told.
        name: {} if any(not way.kind for way in typed) else {"anyOf": [_told(way) for way in typed]}
        for name, typed in ways.items()
    }


def _told(way: Typed) -> dict[str, Any]:
    return way.schema if "enum" in way.schema else {"type": way.kind}


def string_expression(texts: Texts, schema: Mapping[str, Any], hint: str) -> str:
    """An atom for the strings that a schema allows."""
    pattern = schema.get("pattern", FORMATS.get(str(schema.get("format"))))
    if pattern is not None:
        if not isinstance(pattern, str):
            raise SchemaNotSupported(f"a pattern is text, not {_shortened(pattern)}")
        return texts.matching(pattern, hint)
    least = _count(schema, "minLength", 0)
    most = _count(schema, "maxLength", None)
    if (least, most) == (0, None):
        return texts.any()
    assert least is not None
    if most is not None and most < least:
        raise NotWritable(f"no text has at least {least} and at most {most} characters")
    return texts.sized(least, most)


class Bounds(NamedTuple):
    """Bounds of numbers; ``None``: there is none."""

    least: float | None
    most: float | None
    is_least_excluded: bool = False
    is_most_excluded: bool = False


def bounds(schema: Mapping[str, Any]) -> Bounds:
    """The bounds that a schema sets to numbers."""
    least = _number(schema, "minimum")
    most = _number(schema, "maximum")
    above = _number(schema, "exclusiveMinimum")
    below = _number(schema, "exclusiveMaximum")
    # Before 2019-09 these said whether the other bound belongs to the values.
    is_above = schema.get("exclusiveMinimum") is True
    is_below = schema.get("exclusiveMaximum") is True
    if above is not None and (least is None or above >= least):
        least, is_above = above, True
    if below is not None and (most is None or below <= most):
        most, is_below = below, True
    return Bounds(least, most, is_above and least is not None, is_below and most is not None)


def _whole_bounds(schema: Mapping[str, Any]) -> tuple[int | None, int | None]:
    found = bounds(schema)
    least = None if found.least is None else math.ceil(found.least)
    most = None if found.most is None else math.floor(found.most)
    if found.is_least_excluded and least == found.least and least is not None:
        least += 1
    if found.is_most_excluded and most == found.most and most is not None:
        most -= 1
    return least, most


def _number(schema: Mapping[str, Any], key: str) -> float | None:
    value = schema.get(key)
    if value is None or isinstance(value, bool):
        return None
    if not isinstance(value, int | float):
        raise SchemaNotSupported(f"{key} is a number, not {_shortened(value)}")
    return value


def _count(schema: Mapping[str, Any], key: str, default: int | None) -> int | None:
    value = schema.get(key, default)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise SchemaNotSupported(f"{key} is a number of 0 or more, not {_shortened(value)}")
    return int(value)


def _properties(schema: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, dict):
        raise SchemaNotSupported(f"properties is an object, not {_shortened(properties)}")
    if not isinstance(required, list):
        raise SchemaNotSupported(f"required is a list of names, not {_shortened(required)}")
    names = {str(name) for name in required}
    undeclared = [str(name) for name in required if name not in properties]
    if undeclared:
        more = schema.get("additionalProperties", True)
        properties = {**properties, **dict.fromkeys(undeclared, more)}
    return properties, names


def _additional(schema: Mapping[str, Any]) -> Any:
    """The schema of undeclared properties; ``False``: there are none."""
    default = schema.get("unevaluatedProperties", "properties" not in schema)
    more = schema.get("additionalProperties", default)
    return {} if more is True else more


def _both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any] | None:
    """A schema for what fits both; ``None``: nothing does."""
    if not one or not other:
        return one or other
    try:
        return _intersection(one, other)
    except (AttributeError, TypeError) as error:
        raise SchemaNotSupported(
            f"{_shortened(one)} and {_shortened(other)} cannot both be meant"
        ) from error


def _intersection(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any] | None:
    both = {**one, **other}
    for key in one.keys() & other.keys():
        mine, theirs = one[key], other[key]
        if mine == theirs:
            continue
        match key:
            case "type":
                both[key] = _common_types(one, other)
                if not both[key]:
                    return None
            case "enum":
                both[key] = [value for value in mine if value in theirs]
            case "const":
                return None
            case "properties":
                both[key] = {
                    **mine,
                    **{
                        name: {"allOf": [mine[name], schema]} if name in mine else schema
                        for name, schema in theirs.items()
                    },
                }
            case "required":
                both[key] = [*mine, *(name for name in theirs if name not in mine)]
            case "items" | "additionalProperties":
                both[key] = {"allOf": [mine, theirs]}
            case "minimum" | "exclusiveMinimum" | "minLength" | "minItems":
                both[key] = max(mine, theirs)
            case "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems":
                both[key] = min(mine, theirs)
            case "pattern" | "prefixItems":
                raise SchemaNotSupported(f"two kinds of {key!r} for one value are not supported")
            case _:
                pass  # Neither is understood here, or either will do.
    if "const" in both and "enum" in both and both["const"] not in both["enum"]:
        return None
    if "const" in both:
        both.pop("enum", None)
    return both


def _common_types(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    mine, theirs = types_of(one), types_of(other)
    common = [kind for kind in mine if kind in theirs]
    # A whole number is a number.
    named = {*mine, *theirs}
    if "integer" not in common and {"number", "integer"} <= named:
        common.append("integer")
    return common


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
