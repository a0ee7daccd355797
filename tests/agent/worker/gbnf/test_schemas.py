import ast
import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from paddler.agent.worker.gbnf.notations import (
    Notation,
    gemma_notation,
    json_notation,
    python_notation,
)
from paddler.agent.worker.gbnf.schemas import SchemaRules
from paddler.agent.worker.gbnf.writing import Gbnf, Rules, SchemaNotSupported
from tests.agent.worker.accepting import Acceptor


def grammar(schema: Any, notation: Callable[[Rules], Notation] = json_notation) -> Gbnf:
    rules = Rules()
    return rules.grammar(SchemaRules(rules, schema, notation(rules)).value(schema, "root"))


def an_object(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


INTEGER = {"type": "integer"}
TEXT = {"type": "string"}
NULL = {"type": "null"}
NODE = {
    "$defs": {"node": an_object("v", v=INTEGER, next={"anyOf": [{"$ref": "#/$defs/node"}, NULL]})},
    "$ref": "#/$defs/node",
}

# A schema, texts of values that it allows, and texts that are none.
CASES: list[tuple[Any, list[str], list[str]]] = [
    (an_object("a", a=TEXT, b=INTEGER),
     ['{"a": "x"}', '{"a":"x","b":3}', '{ "a": "é\\n\\u00e9 \\ud83d\\ude00", "b": -3 }'],
     ['{"b": 3}', '{"a": 1}', '{"a": "x", "c": 1}', '{"a": "x","b": 03}', '{"a": "\\ud83d"}',
      '{"a": "x\n"}', '{"a": "x"', '{"a":  "x"}']),
    ({"enum": ['a"b', "a\\b", "😀", 1, 1.5, None, True, {"x": [1, {}]}]},
     ['"a\\"b"', '"a\\\\b"', '"😀"', "1", "1.5", "null", "true", '{"x": [1, {}]}'],
     ['"ab"', "2", "false"]),
    ({"type": "string", "enum": ["a", 1]}, ['"a"'], ["1"]),
    ({"const": "x", "title": "t"}, ['"x"'], ['"y"']),
    (NODE, ['{"v": 1}', '{"v": 1, "next": {"v": 2, "next": null}}'], ['{"next": null}']),
    ({"$defs": {"a": {"t": INTEGER}, "b": {"t": TEXT}}, **an_object(
        "x", "y", x={"$ref": "#/$defs/a/t"}, y={"$ref": "#/$defs/b/t"})},
     ['{"x": 1, "y": "t"}'], ['{"x": 1, "y": 1}', '{"x": "t", "y": "t"}']),
    ({"$defs": {"a/b~c": INTEGER}, "$ref": "#/$defs/a~1b~0c"}, ["1"], ['"1"']),
    (an_object(o={"$ref": "#"}), ["{}", '{"o": {"o": {}}}'], ['{"o": 1}']),
    ({}, ['{"a": [1, 2.5, {"b": null}]}', '"x"', "true", "-1.5e3"], ["tru", '{"a"}', "[1,]"]),
    ({"type": "object"}, ["{}", '{"a": 1, "b": []}'], ["[]", '{"a": 1,}']),
    ({"type": "array", "items": INTEGER, "minItems": 1, "maxItems": 3},
     ["[1]", "[1, 2, 3]"], ["[]", "[1, 2, 3, 4]", "[1,, 2]"]),
    ({"type": "array", "minItems": 2}, ["[1, null]"], ["[1]"]),
    ({"type": "array", "items": False}, ["[]"], ["[1]"]),
    ({"type": "array", "items": INTEGER, "maxItems": 0}, ["[]"], ["[1]"]),
    ({"type": "array", "prefixItems": [INTEGER, TEXT], "items": NULL, "maxItems": 3},
     ['[1, "x"]', '[1, "x", null]'], ["[1]", '[1, "x", null, null]', '["x", 1]']),
    ({"items": [INTEGER, TEXT]}, ['[1, "x"]'], ['[1, "x", 1]']),
    ({"type": "string", "maxLength": 3}, ['""', '"abc"', '"\\n\\n\\n"'], ['"abcd"']),
    ({"type": "string", "minLength": 2}, ['"ab"', '"abcdef"'], ['"a"', '"\\n"']),
    ({"type": "string", "pattern": "^[A-Z]{2}-\\d+$"}, ['"AB-12"'], ['"AB-"', '"ab-1"']),
    ({"type": "string", "pattern": '^["\\\\/\n]x$'},
     ['"\\"x"', '"\\\\x"', '"/x"', '"\\nx"'], ['"x"', '""x"', '"\nx"']),
    ({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2024-13-01"']),
    ({"type": "string", "format": "email"}, ['"x"'], ["x"]),
    ({"type": "integer", "minimum": 1, "exclusiveMaximum": 12}, ["1", "11"], ["0", "12"]),
    ({"type": "integer", "minimum": 1.5}, ["2"], ["1"]),
    ({"type": "number", "exclusiveMinimum": 0}, ["0.5", "12"], ["0", "-1"]),
    ({"minimum": 0, "exclusiveMinimum": True, "type": "integer"}, ["1"], ["0"]),
    ({"type": ["string", "null"]}, ['"x"', "null"], ["1"]),
    ({"anyOf": [INTEGER, {"type": "boolean"}]}, ["1", "true"], ["null"]),
    ({"oneOf": [{"const": 1}, {"const": 2}]}, ["1", "2"], ["3"]),
    (an_object(a=INTEGER) | {"additionalProperties": TEXT},
     ['{"a": 1}', '{"b": "x"}', '{"a": 1, "b": "x", "aa": "y"}', "{}"],
     ['{"a": "x"}', '{"b": 1}', '{"a": 1, "a": "x"}', '{"\\u0061": "x"}']),
    ({"type": "object", "additionalProperties": INTEGER, "maxProperties": 2},
     ["{}", '{"a": 1, "b": 2}'], ['{"a": 1, "b": 2, "c": 3}', '{"a": "x"}']),
    ({"type": "object", "maxProperties": 0}, ["{}"], ['{"a": 1}']),
    ({"type": "object", "additionalProperties": False}, ["{}"], ['{"a": 1}']),
    ({"type": "object", "required": ["a"]}, ['{"a": [1]}'], ["{}"]),
    ({"allOf": [an_object("a", a=INTEGER), {"properties": {"b": TEXT}, "required": ["b"]}]},
     ['{"a": 1, "b": "x"}'], ['{"a": 1}']),
    ({"allOf": [{"type": "number"}, {"type": "integer"}, {"minimum": 3}, {"minimum": 5}]},
     ["5"], ["4", "5.5"]),
    ({"allOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]}, ["2"], ["1", "3"]),
    ({"allOf": [{"properties": {"a": {"minimum": 1}}}, an_object("a", a={"maximum": 2})]},
     ['{"a": 1.5}'], ['{"a": 3}']),
    (an_object(a=INTEGER, b=INTEGER) | {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
     ['{"a": 1}', '{"b": 1}', '{"a": 1, "b": 2}'], ["{}"]),
    (an_object(a=False, b=NULL), ["{}", '{"b": null}'], ['{"a": 1}']),
    (an_object("b", a=NULL, b=NULL, c=NULL, d=NULL),
     ['{"b": null}', '{"a": null, "b": null, "d": null}', '{"b": null, "c": null}'],
     ["{}", '{, "b": null}', '{"b": null, "a": null}', '{"a": null, }']),
    (an_object('we"ird\\ké', **{'we"ird\\ké': NULL}), ['{"we\\"ird\\\\ké": null}'], ["{}"]),
    ({"type": "object", "description": "d", "$schema": "x", "default": 1}, ["{}"], ["1"]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), CASES)
def test_texts_are_those_of_the_values_that_the_schema_allows(
    byte_grammars: Acceptor, schema: Any, good: list[str], bad: list[str]
) -> None:
    written = grammar(schema)
    assert [byte_grammars.refused(written, text) for text in good] == [None] * len(good)
    assert [text for text in bad if byte_grammars.accepts(written, text)] == []


@pytest.mark.parametrize("schema", [schema for schema, _, _ in CASES])
def test_whatever_the_grammar_allows_the_schema_does(byte_grammars: Acceptor, schema: Any) -> None:
    written = grammar(schema)
    values = 0
    for seed in range(10):
        text = byte_grammars.walk(written, seed, likely='"]}')
        if text is not None:
            Draft202012Validator(_of_2020(schema)).validate(json.loads(text))
            values += 1
    assert values


def _of_2020(schema: Any) -> Any:
    """Schemas of older drafts say these things in other words."""
    if schema == {"items": [INTEGER, TEXT]}:
        return {"prefixItems": [INTEGER, TEXT], "items": False}
    if schema.get("exclusiveMinimum") is True:
        return {"exclusiveMinimum": 0}
    return schema


NESTED = an_object(
    "text", "n", "list", "o",
    text=TEXT, n={"type": "number"}, flag={"type": "boolean"}, none=NULL,
    short={"type": "string", "maxLength": 2}, kind={"enum": ["a'b", "c\n"]},
    list={"type": "array", "items": INTEGER, "maxItems": 3},
    o=an_object("k", k=TEXT), free={"type": "object", "maxProperties": 2},
    code={"type": "string", "pattern": "^'\\d+$"},
)  # fmt: skip


def test_python_notation_is_read_by_python(byte_grammars: Acceptor) -> None:
    written = grammar(NESTED, python_notation)
    text = "{'text': 'it\\'s \"é\"', 'n': -1.5, 'flag': True, 'list': [1, 2], 'o': {'k': ''}}"
    assert byte_grammars.refused(written, text) is None
    for bad in ('"', "true", "null", "\n", "\\/", "\\u0041"):
        assert not byte_grammars.accepts(written, text.replace("it", bad).replace("True", bad))
    values = [
        ast.literal_eval(text)
        for seed in range(20)
        if (text := byte_grammars.walk(written, seed, likely="']}")) is not None
    ]
    assert len(values) > 5
    for value in values:
        Draft202012Validator(NESTED).validate(value)


def test_gemma_notation_has_no_quotes_around_names(byte_grammars: Acceptor) -> None:
    written = grammar(NESTED, gemma_notation)
    text = '{text:<|"|>it\'s "<|é"<|"|>,n:-1.5,flag:true,list:[1,2],o:{k:<|"|><|"|>}}'
    assert byte_grammars.refused(written, text) is None
    assert not byte_grammars.accepts(written, text.replace(",n", ", n"))
    assert not byte_grammars.accepts(written, text.replace("it", '<|"|>'))


def test_name_that_cannot_be_written_is_left_out_or_refused() -> None:
    grammar(an_object("a", **{"a": NULL, "b c": NULL}), gemma_notation)
    schema = an_object("o", o=an_object("b c", **{"b c": NULL}))
    with pytest.raises(SchemaNotSupported, match=r'property "o.b c": the name \'b c\' cannot'):
        grammar(schema, gemma_notation)


def nested(levels: int, keyword: str) -> dict[str, Any]:
    schema: dict[str, Any] = TEXT
    for _ in range(levels):
        inner = schema
        schema = {
            "properties": an_object("a", a=inner),
            "anyOf": {"anyOf": [inner, NULL]},
            "items": {"type": "array", "items": inner},
        }[keyword]
    return schema


def lists(count: int, item: Any) -> dict[str, Any]:
    """Some kinds of lists that all begin alike."""
    return {"anyOf": [{"type": "array", "items": item, "maxItems": 5 + n} for n in range(count)]}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (7, "7 is no schema"),
        ({"type": "nope"}, "there is no type 'nope'; there are object, array"),
        ({"type": ["string", 7]}, "no type 7"),
        ({"properties": []}, "properties is an object"),
        ({"required": "a"}, "required is a list"),
        ({"properties": {"a": 3}}, 'property "a": 3 is no schema'),
        ({"prefixItems": 3}, "prefixItems is a list"),
        ({"anyOf": 3}, "no list of schemas"),
        ({"enum": 3}, "no list of values"),
        ({"enum": []}, "no value fits"),
        (False, "no value fits"),
        ({"minLength": "x"}, "minLength is a number"),
        ({"maxItems": -1}, "maxItems is a number"),
        ({"minimum": "x"}, "minimum is a number"),
        ({"pattern": 3}, "a pattern is text"),
        ({"minItems": 3, "maxItems": 2}, "at least 3 and at most 2 items"),
        ({"minLength": 3, "maxLength": 2}, "at least 3 and at most 2 characters"),
        ({"minItems": 5000}, "5000|4999"),
        ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "two kinds of 'pattern'"),
        ({"allOf": [{"minimum": 1}, {"minimum": "x"}]}, "cannot both be meant"),
        ({"allOf": [TEXT, INTEGER]}, "no value fits"),
        ({"$ref": "#/x"}, "'#/x', which it does not contain"),
        ({"$ref": "#x"}, "no JSON pointer"),
        ({"$ref": 3}, "remote reference 3"),
        ({"$ref": "https://example.invalid/x"}, "remote reference"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"anyOf": [{"$ref": "#"}]}, "no value fits"),
        (nested(100, "properties"), r'property "a.a.a.a.a.a.a.a.…": it is nested more than 64'),
        (nested(100, "items"), "nested more than 64"),
        (nested(300, "anyOf"), "more than 10000 alternatives"),
        ({"enum": list(range(20_000))}, "more than 10000 alternatives"),
        (an_object(**{f"p{n}": TEXT for n in range(5000)}), "too large"),
        ({"anyOf": [an_object(f"p{n}") for n in range(50)]}, "50 alternatives of type object"),
        (lists(40, INTEGER), "too ambiguous"),
        (lists(3, lists(3, lists(3, lists(3, INTEGER)))), "too ambiguous"),
        (lists(2, {"$ref": "#"}), "contain themselves"),
    ],
)
def test_schema_that_has_no_grammar_is_refused(schema: Any, reason: str) -> None:
    with pytest.raises(SchemaNotSupported, match=reason):
        grammar(schema)


def test_lists_that_a_shared_schema_has_count_wherever_it_is_used() -> None:
    shared = {"$defs": {"s": lists(4, lists(4, INTEGER))}}
    grammar(shared | lists(2, {"$ref": "#/$defs/s"}))
    first_alone = an_object("a", "b", a={"$ref": "#/$defs/s"}, b=lists(3, {"$ref": "#/$defs/s"}))
    with pytest.raises(SchemaNotSupported, match="48 kinds of lists"):
        grammar(shared | first_alone)


def test_alternatives_that_are_the_same_are_one(byte_grammars: Acceptor) -> None:
    same = an_object("a", a=lists(1, TEXT))
    written = grammar({"anyOf": [same, json.loads(json.dumps(same))]})
    assert "|" not in next(line for line in written.text.splitlines() if line.startswith("root"))


def test_references_that_double_at_every_level_are_followed_once() -> None:
    doubling = {f"d{n}": an_object(x={"$ref": f"#/$defs/d{n + 1}"}, y={"$ref": f"#/$defs/d{n + 1}"})
                for n in range(30)}  # fmt: skip
    written = grammar({"$defs": {**doubling, "d30": NULL}, "$ref": "#/$defs/d0"})
    assert len(written.text) < 20_000


def test_constants_that_begin_alike_are_few_ways_to_go_on(byte_grammars: Acceptor) -> None:
    written = grammar({"enum": [f"value number {n}" for n in range(2000)]})
    assert byte_grammars.accepts(written, '"value number 1234"')
    assert not byte_grammars.accepts(written, '"value number 2000"')
    assert len(written.text) < 2000
