"""What the values of a JSON schema may be: any of some ways, each of one type.

References, combinations and lists of types are resolved here. What is left says all of one
kind of value, for whoever writes a grammar for it or reads such values from a text.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from paddler.agent.worker.gbnf.writing import NotWritable, SchemaNotSupported

# Alternatives, constants and combinations of them that are looked at in one document.
MAX_STEPS: Final = 10_000

# Of numbers, and of how many there may be of something; either sign.
MAX_BOUND: Final = 1e30

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


class Alternatives:
    """The ways that the values of one document's schemas may be.

    Raises :class:`SchemaNotSupported` for what is no schema, and for more of them than can
    be looked at.
    """

    def __init__(self, document: Any) -> None:
        self._document = document
        self._steps = 0

    def target(self, schema: Any) -> Any:
        """What a schema stands for that only refers to another; :class:`NotWritable`."""
        seen: set[Any] = set()
        while isinstance(schema, dict) and list(constraints(schema)) == ["$ref"]:
            reference = schema["$ref"]
            schema = self._resolved(reference)
            if reference in seen:
                raise NotWritable(f"{reference!r} refers to itself without end")
            seen.add(reference)
        return schema

    def typed(self, schema: Any) -> list[Typed]:
        """The ways that a value may be."""
        ways: list[Typed] = []
        for plain in self._alternatives(schema, frozenset()):
            types = types_of(plain)
            if "const" in plain or "enum" in plain:
                values = plain["enum"] if "enum" in plain else [plain["const"]]
                ways += _constants(values, types)
                self._step(len(values))
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
            raise SchemaNotSupported(f"{shortened(schema)} is no schema")
        plain = constraints(schema)
        reference = plain.pop("$ref", None)
        combined = plain.pop("allOf", [])
        choices = [plain.pop(key) for key in ("anyOf", "oneOf") if key in plain]
        for part in (combined, *choices):
            if not isinstance(part, list):
                raise SchemaNotSupported(f"{shortened(part)} is no list of schemas")
        ways = [plain]
        if reference is not None:
            target = self._resolved(reference)
            # One that leads back to itself allows nothing more.
            ways = (
                []
                if reference in seen
                else self._merged(ways, self._alternatives(target, seen | {reference}))
            )
        for part in combined:
            ways = self._merged(ways, self._alternatives(part, seen))
        for choice in choices:
            branches = [way for part in choice for way in self._alternatives(part, seen)]
            ways = self._merged(ways, branches)
        yield from ways

    def _merged(
        self, ways: Sequence[dict[str, Any]], others: Iterable[dict[str, Any]]
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

    def _resolved(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaNotSupported(
                f"the remote reference {shortened(reference)} is not followed; only those within "
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


# --- reading schemas ---------------------------------------------------------------------------

_COMBINING: Final = ("$ref", "allOf", "anyOf", "oneOf")
_UNDERSTOOD: Final = frozenset((*_COMBINING, *_TYPE_OF, "type", "enum", "const", "additionalItems"))


def constraints(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without its remarks."""
    return {key: value for key, value in schema.items() if key in _UNDERSTOOD}


def _constants(values: Any, types: Sequence[str]) -> list[Typed]:
    """Constants by their type, those that are of none of ``types`` left out."""
    if not isinstance(values, list):
        raise SchemaNotSupported(f"{shortened(values)} is no list of values")
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
                f"there is no type {shortened(kind)}; there are {', '.join(_TYPES)}"
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

    Those that are not supported are as they were.
    """
    alternatives = Alternatives(document)
    found: dict[str, list[Typed]] = {}
    as_they_were: dict[str, Any] = {}
    try:
        objects = alternatives.typed(document)
    except (SchemaNotSupported, RecursionError):
        return {}
    for way in objects:
        properties = way.schema.get("properties")
        for name, schema in properties.items() if isinstance(properties, dict) else ():
            try:
                found.setdefault(name, []).extend(alternatives.typed(schema))
            except (SchemaNotSupported, RecursionError):
                as_they_were[name] = schema
    return {name: _summary(ways) for name, ways in found.items()} | as_they_were


def _summary(ways: Sequence[Typed]) -> dict[str, Any]:
    """A schema with the types and constants of these ways; an empty one may be anything."""
    if not all(way.kind for way in ways):
        return {}
    told = [way.schema if "enum" in way.schema else {"type": way.kind} for way in ways]
    return told[0] if len(told) == 1 else {"anyOf": told}


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


def whole_bounds(schema: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The least and the greatest whole number that a schema allows; ``None``: there is none."""
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
    if not isinstance(value, int | float) or not abs(value) < MAX_BOUND:
        raise SchemaNotSupported(f"{key} is a number below {MAX_BOUND:g}, not {shortened(value)}")
    return value


def least_of(schema: Mapping[str, Any], key: str) -> int:
    """How many there are at least, by this keyword."""
    return most_of(schema, key) or 0


def most_of(schema: Mapping[str, Any], key: str) -> int | None:
    """How many there are at most, by this keyword; ``None``: any number."""
    value = schema.get(key)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < MAX_BOUND:
        raise SchemaNotSupported(f"{key} is a number of 0 or more, not {shortened(value)}")
    return int(value)


def properties_of(schema: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The properties of an object, and the names of those that it must have."""
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, dict):
        raise SchemaNotSupported(f"properties is an object, not {shortened(properties)}")
    if not isinstance(required, list):
        raise SchemaNotSupported(f"required is a list of names, not {shortened(required)}")
    names = {str(name) for name in required}
    undeclared = [str(name) for name in required if name not in properties]
    if undeclared:
        more = schema.get("additionalProperties", True)
        properties = {**properties, **dict.fromkeys(undeclared, more)}
    return properties, names


def additional_of(schema: Mapping[str, Any]) -> Any:
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
            f"{shortened(one)} and {shortened(other)} cannot both be meant"
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


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
