import json
import sys

import pytest

from paddler.agent.worker.grammar import Gbnf, SchemaNotSupported, gbnf_of
from paddler.agent.worker.grammar_sampler import GrammarSampler
from paddler.messages.inference import GbnfGrammar, JsonSchemaGrammar
from tests.agent.worker.accepting import Acceptor

# What can be decoded and not walked through. Since Python 3.12 calls in C are counted apart.
TOO_DEEP = 500 if sys.version_info < (3, 12) else 1_200


def test_gbnf_is_taken_as_it_is() -> None:
    assert gbnf_of(GbnfGrammar("start ::= [a]", "start")) == Gbnf("start ::= [a]", "start")


def test_a_schema_becomes_a_grammar_with_the_rule_root() -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    grammar = gbnf_of(JsonSchemaGrammar(json.dumps(schema)))
    assert grammar.root == "root"
    assert "answer" in grammar.text


def test_strings_of_a_schema_hold_no_raw_control_characters(byte_grammars: Acceptor) -> None:
    grammar = gbnf_of(JsonSchemaGrammar('{"type": "string"}'))
    assert byte_grammars.accepts(grammar, '"\\n"')
    assert not byte_grammars.accepts(grammar, '"\n"')


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "list"),
        ("7", "int"),
        ('{"enum":[NaN]}', "NaN is no value of JSON"),
        ('{"minimum":1e999,"type":"integer"}', "minimum is a number"),
        ('{"enum":[1e999]}', "inf is no JSON value"),
        ('{"minimum":' + "9" * 5000 + "}", "not valid JSON"),
        ('{"minimum":1' + "0" * 4000 + ',"type":"integer"}', "a number below 1e\\+30"),
        ('{"type":"nope"}', "nope"),
        ('{"type":123}', "no type 123"),
        ('{"$ref":"#/x"}', "#/x"),
        ('{"$ref":"https://example.invalid/x"}', "remote"),
        ('{"type":"string","pattern":"("}', "pattern"),
        ('{"type":["string",7]}', "7"),
        ('{"enum":[' + "[" * TOO_DEEP + "]" * TOO_DEEP + "]}", "nested too deeply"),
        ("[" * 100_000, "not valid JSON"),
    ],
    ids=lambda value: value[:40],
)
def test_what_has_no_grammar_is_refused(schema: str, reason: str) -> None:
    with pytest.raises(SchemaNotSupported, match=reason):
        gbnf_of(JsonSchemaGrammar(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 100_000},
        {"type": "array", "items": {"type": "array", "items": {}, "maxItems": 10**9}},
        {"enum": [f"constant {n}" for n in range(9_000)]},
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(300)}},
    ],
)
def test_large_schema_that_is_supported_compiles(byte_grammars: Acceptor, schema: object) -> None:
    grammar = gbnf_of(JsonSchemaGrammar(json.dumps(schema)))
    GrammarSampler(byte_grammars.model.vocab, grammar).close()
