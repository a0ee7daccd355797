import pytest
from llama_cpp import llama_grammar

from paddler.agent.worker.candidates import SamplingFailed
from paddler.agent.worker.gbnf.checking import (
    MAX_CHAIN,
    MAX_CHARS,
    MAX_DEPTH,
    MAX_TRIALS,
    UnsafeGrammar,
    check_grammar,
)
from paddler.agent.worker.gbnf.writing import Gbnf
from paddler.agent.worker.grammar_sampler import GrammarSampler
from tests.agent.worker.accepting import Acceptor

PLAIN = [
    'root ::= "a"',
    '  # a remark\n\nroot ::= a # another\n\na ::= "b"\r\n',
    'root ::= ("a" |\n  "b"\n)* # more\nother ::= "x"',
    'root ::= "a" |\n "b"',
    'root ::= "\\"\\\\]" [^"\\]\\\\] [a-z-] . [\\x00-\\x1F] "é" "\\u00e9"',
    'root ::= "a"{3} "b"{2,} "c"{0,5} "d"{ 1 , 2 } "e"? "f"* "g"+',
    'root ::= "a" root | ""',
    'root ::= [^] "a" | []',
    'root ::= "" | "x"',
    'root ::= <[2]> !<[3]> "a"',
    'root ::= "a"\nroot ::= "b"',
    'root ::=\n "a"',
    'root ::= a? b\na ::= "x" a | ""\nb ::= "y"',
    "root ::= " + "(" * 200 + '"a"' + ")" * 200,
]


@pytest.mark.parametrize("text", PLAIN)
def test_grammar_that_llama_cpp_takes_passes(byte_grammars: Acceptor, text: str) -> None:
    check_grammar(Gbnf(text, "root"), vocabulary_size=50_000)
    GrammarSampler(byte_grammars.model.vocab, Gbnf(text, "root")).close()


@pytest.mark.parametrize(
    "name",
    ["ARITHMETIC_GBNF", "CHESS_GBNF", "JAPANESE_GBNF", "JSON_ARR_GBNF", "JSON_GBNF", "LIST_GBNF"],
)
def test_example_grammars_of_llama_cpp_pass(byte_grammars: Acceptor, name: str) -> None:
    text = getattr(llama_grammar, name)
    check_grammar(Gbnf(text, "root"), vocabulary_size=50_000)


HIDDEN_LEFT_RECURSION = 'root ::= a\na ::= b a "y" | "z"\nb ::= c\nc ::= "x"?'


def doubling(levels: int) -> str:
    rules = [f'a{n} ::= a{n + 1} "x" | a{n + 1} "y"' for n in range(levels)]
    return "\n".join(["root ::= a0", *rules, f'a{levels} ::= "z"'])


def chain(length: int) -> str:
    rules = [f"a{n} ::= a{n + 1}" for n in range(length)]
    return "\n".join(["root ::= a0", *rules, f'a{length} ::= "z"'])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x" * (MAX_CHARS + 1), f"has {MAX_CHARS + 1} characters"),
        ('root ::= "a\0"', "NUL"),
        ("root = a", "has no rule at 'root = a'"),
        ("root ::= ?", "repeats nothing"),
        ('root ::= ""*', "repeats nothing"),
        ('root ::= ("a"', "a bracket that is not closed"),
        ('root ::= "a")', "closes too much"),
        ('root ::= "unterminated', "cannot be read at"),
        ("root ::= a b]", "cannot be read at ']'"),
        ("root ::= " + "(" * 1000, f"more than {MAX_DEPTH} levels deep"),
        ("root ::= root", '"root" may begin with itself'),
        ('root ::= a "x"\na ::= root | "y"', "left recursion"),
        (HIDDEN_LEFT_RECURSION, '"a" may begin with itself'),
        ('root ::= ("a"*)*', "repeats without end"),
        ('root ::= ("a"?){0,2000}', "repeats without end"),
        (chain(MAX_CHAIN + 1), "rules that begin with each other"),
        (doubling(20), "too ambiguous"),
        ("root ::= " + " ".join(['"ab"{0,2000}'] * 60), "it makes 120001 rules"),
        ("root ::= " + " ".join([f'"{"a" * 300}"{{2000}}'] * 2), "1200000 elements"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_grammar_that_could_end_the_process_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UnsafeGrammar, match=reason):
        check_grammar(Gbnf(text, "root"), vocabulary_size=50_000)


def test_ways_to_go_on_are_bounded_by_the_vocabulary() -> None:
    words = " | ".join(f'"{n}"' for n in range(1000))
    check_grammar(Gbnf(f"root ::= {words}", "root"), vocabulary_size=MAX_TRIALS // 1000)
    with pytest.raises(UnsafeGrammar, match='1000 ways lead on from the rule "root"; 999 are'):
        check_grammar(Gbnf(f"root ::= {words}", "root"), vocabulary_size=MAX_TRIALS // 999)


@pytest.mark.parametrize("text", [HIDDEN_LEFT_RECURSION, "root ::= " + "(" * 100_000])
def test_sampler_refuses_it_before_llama_cpp_sees_it(byte_grammars: Acceptor, text: str) -> None:
    with pytest.raises(SamplingFailed, match="the grammar has"):
        GrammarSampler(byte_grammars.model.vocab, Gbnf(text, "root"))


@pytest.mark.parametrize(
    ("text", "root"),
    [('root ::= "a" missing', "root"), ('root ::= "\\q"', "root"), ('root ::= "a"', "other")],
)
def test_what_only_does_not_compile_is_for_llama_cpp_to_tell(
    byte_grammars: Acceptor, text: str, root: str
) -> None:
    check_grammar(Gbnf(text, root), vocabulary_size=50_000)
    with pytest.raises(SamplingFailed, match="does not compile"):
        GrammarSampler(byte_grammars.model.vocab, Gbnf(text, root))
