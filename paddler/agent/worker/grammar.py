"""Grammars of requests: a JSON schema or GBNF text to what the sampler takes."""

import json

from paddler.agent.worker.gbnf.notations import json_notation
from paddler.agent.worker.gbnf.schemas import SchemaRules
from paddler.agent.worker.gbnf.writing import Gbnf, Rules, SchemaNotSupported
from paddler.messages.inference import GbnfGrammar, Grammar, JsonSchemaGrammar

__all__ = ["Gbnf", "SchemaNotSupported", "gbnf_of"]


def gbnf_of(grammar: Grammar) -> Gbnf:
    """The grammar as GBNF, which may still not compile; :class:`SchemaNotSupported`."""
    match grammar:
        case GbnfGrammar():
            return Gbnf(grammar.grammar, grammar.root)
        case JsonSchemaGrammar():
            return _json_grammar(grammar.schema)


def _json_grammar(schema: str) -> Gbnf:
    try:
        parsed = json.loads(schema, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise SchemaNotSupported(f"the schema is not valid JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise SchemaNotSupported(
            f"a JSON schema is an object; this is {type(parsed).__name__}: {schema[:100]}"
        )
    rules = Rules()
    try:
        root = SchemaRules(rules, parsed, json_notation(rules)).value(parsed, "root")
    except RecursionError as error:
        raise SchemaNotSupported("the schema is nested too deeply") from error
    return rules.grammar(root)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no value of JSON")
