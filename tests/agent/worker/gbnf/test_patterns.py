import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.agent.worker.gbnf.patterns import ALL, FORMATS, chars, charset, pattern_expression
from paddler.agent.worker.gbnf.writing import Gbnf, Rules, SchemaNotSupported
from tests.agent.worker.accepting import Acceptor


def grammar(pattern: str) -> Gbnf:
    rules = Rules()
    body = pattern_expression(rules, "pattern", pattern, lambda found: found.expression())
    return rules.grammar(rules.add("root", body))


RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)).map(lambda r: (r[0], sum(r))))


@given(one=RANGES, other=RANGES)
def test_sets_are_the_characters_of_their_ranges(
    one: list[tuple[int, int]], other: list[tuple[int, int]]
) -> None:
    left = charset(*one).without(charset(*other))
    for code in range(60):
        is_in = any(low <= code <= high for low, high in one)
        is_out = any(low <= code <= high for low, high in other)
        assert left.has(chr(code)) == (is_in and not is_out)


def test_all_characters_are_without_surrogates() -> None:
    assert ALL.has("\0")
    assert ALL.has("\U0010ffff")
    assert not ALL.has("\ud800")
    assert chars("ba").ranges == ((97, 98),)


PATTERNS = [
    "^ab$",
    "b",
    "^a|b$",
    "^(a|b)*c$",
    "^(?:ab)+$",
    "^(?P<n>a)b?$",
    "^a{2}$",
    "^a{1,2}b{0,}$",
    "^[ab]c?$",
    "^[^ab]$",
    "^[a-c]+$",
    "^[-a]$",
    "^.$",
    r"^\d\D$",
    r"^\w\W$",
    r"^\s\S$",
    r"^\x61\u0062$",
    r"^[\d-]$",
    r"^\.\*\($",
    "a.*c",
    "",
    "^$",
    "(|a)b",
    "^a+?b*?$",
    "^{a}$",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=st.text("abc1 .-*({}\n", max_size=5))
def test_texts_are_those_in_which_the_pattern_is_found(
    byte_grammars: Acceptor, pattern: str, text: str
) -> None:
    found = re.search(pattern.replace("$", r"\Z"), text, re.ASCII)
    assert byte_grammars.accepts(grammar(pattern), text) == (found is not None)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", ["2024-02-29"], ["2024-2-29", "2024-13-01", "x2024-01-01"]),
        ("time", ["23:59:59Z", "00:00:00.123+02:00"], ["24:00:00Z", "00:00:00"]),
        ("date-time", ["2024-02-29T10:00:00Z"], ["2024-02-29 10:00:00Z", "2024-02-29"]),
        ("uuid", ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000"]),
    ],
)
def test_formats_look_as_their_standards_say(
    byte_grammars: Acceptor, name: str, good: list[str], bad: list[str]
) -> None:
    written = grammar(FORMATS[name])
    assert all(byte_grammars.accepts(written, text) for text in good)
    assert not any(byte_grammars.accepts(written, text) for text in bad)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "does not end"),
        (")", "cannot be read on"),
        ("(?=a)", "plain groups"),
        ("(?!a)", "plain groups"),
        ("(?<=a)b", "plain groups"),
        (r"(a)\1", "this escape"),
        (r"\bword", "this escape"),
        (r"\p{L}", "this escape"),
        ("a^b", "not supported here"),
        ("(^a)", "not supported here"),
        ("(a$)", "has an anchor in it"),
        ("*a", "not supported here"),
        ("[a", "does not end"),
        ("[^\\d\\D]", "no character"),
        ("[b-a]", "out of order"),
        ("a{2,1}", "out of order"),
        ("\\", "at the end"),
        (r"\u{110000}", "no such character"),
        ("(" * 100 + ")" * 100, "levels deep"),
        ("a{3000}", "3000|2001"),
    ],
)
def test_pattern_that_no_grammar_can_say_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(SchemaNotSupported, match=reason):
        grammar(pattern)
