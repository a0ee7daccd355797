"""Grammars of requests: a JSON schema or GBNF text to what the sampler takes."""

import json
from typing import Final, NamedTuple

from llama_cpp.llama_grammar import json_schema_to_gbnf

from paddler.messages.inference import GbnfGrammar, Grammar, JsonSchemaGrammar

# The converter's own rule lets raw control characters into strings, which JSON forbids.
_LOOSE_CHAR_RULE: Final = 'char ::= [^"\\\\] |'
_STRICT_CHAR_RULE: Final = 'char ::= [^"\\\\\\x7F\\x00-\\x1F] |'


class Gbnf(NamedTuple):
    """A grammar in llama.cpp's notation, and its start rule."""

    text: str
    root: str


class SchemaNotSupported(Exception):
    """The schema is no JSON, no schema, or one that has no grammar."""


def gbnf_of(grammar: Grammar) -> Gbnf:
    """The grammar as GBNF, which may still not compile; :class:`SchemaNotSupported`."""
    match grammar:
        case GbnfGrammar():
            return Gbnf(grammar.grammar, grammar.root)
        case JsonSchemaGrammar():
            return Gbnf(_convert(grammar.schema), "root")


def _convert(schema: str) -> str:
    try:
        parsed = json.loads(schema)
    except (json.JSONDecodeError, RecursionError) as error:
        raise SchemaNotSupported(f"the schema is not valid JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise SchemaNotSupported(
            f"a JSON schema is an object; this is {type(parsed).__name__}: {schema[:100]}"
        )
    try:
        text: str = json_schema_to_gbnf(schema)
    except (
        AssertionError,
        AttributeError,
        IndexError,
        KeyError,
        NotImplementedError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        # The converter has no errors of its own: these are what it fails with.
        raise SchemaNotSupported(str(error) or type(error).__name__) from error
    return text.replace(_LOOSE_CHAR_RULE, _STRICT_CHAR_RULE)
