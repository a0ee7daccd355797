"""Grammars on the real model: whatever is drawn, the answer obeys."""

import json
from typing import Any

import pytest

from tests.e2e.fleet import Fleet, ask, conversation, raw_prompt, tokens_of

YES_NO = {"type": "gbnf", "grammar": 'root ::= "yes" | "no"', "root": "root"}
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "maxLength": 20}, "sure": {"type": "boolean"}},
    "required": ["answer", "sure"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "body", [conversation("Is the sky blue?", 20), raw_prompt("Is the sky blue? ", 20)]
)
def test_gbnf_constrains_the_answer(fleet: Fleet, body: dict[str, Any]) -> None:
    messages = ask(fleet.inference, body | {"grammar": YES_NO})
    assert "".join(tokens_of(messages)) in ("yes", "no")
    assert "Done" in messages[-1]["Response"]["response"]["GeneratedToken"]


def test_a_schema_makes_the_answer_json(fleet: Fleet) -> None:
    grammar = {"type": "json_schema", "schema": json.dumps(SCHEMA)}
    messages = ask(fleet.inference, conversation("Describe the sky.", 100) | {"grammar": grammar})
    answer = json.loads("".join(tokens_of(messages)))
    assert set(answer) == {"answer", "sure"}


def test_a_null_grammar_is_none(fleet: Fleet) -> None:
    assert tokens_of(ask(fleet.inference, raw_prompt("Once", 3) | {"grammar": None}))


@pytest.mark.parametrize(
    ("grammar", "thinking", "variant", "text"),
    [
        (YES_NO, True, "GrammarIncompatibleWithThinking", "incompatible with thinking"),
        (
            {"type": "gbnf", "grammar": 'root ::= "unterminated', "root": "root"},
            False,
            "GrammarInitializationFailed",
            'agent "agent-1": failed to initialize grammar sampler: ',
        ),
        (
            {"type": "gbnf", "grammar": "root ::= root", "root": "root"},
            False,
            "GrammarInitializationFailed",
            "left recursion",
        ),
        (
            {"type": "gbnf", "grammar": 'root ::= "a"', "root": "start"},
            False,
            "GrammarInitializationFailed",
            "start",
        ),
        (
            {"type": "json_schema", "schema": "{"},
            False,
            "GrammarSyntaxError",
            "Failed to create grammar sampler: ",
        ),
    ],
)
def test_a_bad_grammar_ends_one_request_by_name(
    fleet: Fleet, grammar: dict[str, str], thinking: bool, variant: str, text: str
) -> None:
    body = conversation("hi", 3) | {"grammar": grammar, "enable_thinking": thinking}
    (message,) = ask(fleet.inference, body)
    result = message["Response"]["response"]["GeneratedToken"]
    assert list(result) == [variant]
    assert text in result[variant]
