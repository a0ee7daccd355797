import json

import pytest

from paddler.agent.worker.grammar import Gbnf, SchemaNotSupported, gbnf_of
from paddler.messages.inference import GbnfGrammar, JsonSchemaGrammar


def test_gbnf_is_taken_as_it_is() -> None:
    assert gbnf_of(GbnfGrammar("start ::= [a]", "start")) == Gbnf("start ::= [a]", "start")


def test_a_schema_becomes_a_grammar_with_the_rule_root() -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    grammar = gbnf_of(JsonSchemaGrammar(json.dumps(schema)))
    assert grammar.root == "root"
    assert "answer" in grammar.text


def test_strings_of_a_schema_hold_no_raw_control_characters() -> None:
    grammar = gbnf_of(JsonSchemaGrammar('{"type": "string"}'))
    assert r"char ::= [^" + '"' + r"\\\x7F\x00-\x1F]" in grammar.text


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "list"),
        ("7", "int"),
        ('{"type":"nope"}', "nope"),
        ('{"$ref":"#/x"}', "#/x"),
        ('{"$ref":"https://example.invalid/x"}', "remote"),
        ('{"type":"string","pattern":"("}', "Pattern"),
        ('{"type":["string",7]}', "7"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_what_has_no_grammar_is_refused(schema: str, reason: str) -> None:
    with pytest.raises(SchemaNotSupported, match=reason):
        gbnf_of(JsonSchemaGrammar(schema))
