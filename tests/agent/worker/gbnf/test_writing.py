import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.agent.worker.gbnf.writing import (
    MAX_GRAMMAR_CHARS,
    MAX_REPETITIONS,
    Gbnf,
    NotWritable,
    Rules,
    SchemaNotSupported,
    literal,
    none_of,
    one_of,
    one_of_texts,
    other_than,
    repeated,
    until,
)
from tests.agent.worker.accepting import Acceptor

TEXTS = st.text('ab<|/"\\\n]^-é😀', max_size=8)


def grammar(body: str) -> Gbnf:
    return Gbnf(f"root ::= {body}\n", "root")


@given(text=TEXTS, other=TEXTS)
def test_literal_is_this_text_only(byte_grammars: Acceptor, text: str, other: str) -> None:
    written = grammar(literal(text))
    assert byte_grammars.accepts(written, text)
    assert byte_grammars.accepts(written, other) == (other == text)


@given(members=st.text('ab<|/"\\\n]^-é😀', min_size=1), char=st.sampled_from('ab<|/"\\\n]^-é😀'))
def test_classes_are_these_characters_or_all_others(
    byte_grammars: Acceptor, members: str, char: str
) -> None:
    assert byte_grammars.accepts(grammar(one_of(members)), char) == (char in members)
    assert byte_grammars.accepts(grammar(none_of(members)), char) == (char not in members)


@pytest.mark.parametrize(
    ("least", "most", "allowed"),
    [
        (0, 0, {0}),
        (1, 1, {1}),
        (0, 1, {0, 1}),
        (0, None, set(range(9))),
        (1, None, set(range(1, 9))),
        (3, None, set(range(3, 9))),
        (2, 2, {2}),
        (2, 5, {2, 3, 4, 5}),
        (8, MAX_REPETITIONS + 1, {8}),
    ],
)
def test_repetition_has_both_bounds(
    byte_grammars: Acceptor, least: int, most: int | None, allowed: set[int]
) -> None:
    written = grammar(repeated('"x"', least, most))
    assert {n for n in range(9) if byte_grammars.accepts(written, "x" * n)} == allowed


def test_repetition_that_llama_cpp_has_no_room_for_is_without_end_or_refused() -> None:
    assert repeated("x", 0, MAX_REPETITIONS + 1) == "x*"
    with pytest.raises(SchemaNotSupported, match=f"{MAX_REPETITIONS + 1} repetitions"):
        repeated("x", MAX_REPETITIONS + 1, None)


def test_same_bodies_are_one_rule() -> None:
    rules = Rules()
    assert rules.add("a", '"x"') == rules.add("b", '"x"') == "a"
    assert rules.add("a", '"y"') == "a-2"
    assert rules.add("a b/c", '"z"') == "a-b-c"
    assert rules.grammar("a").text == 'a ::= "x"\na-2 ::= "y"\na-b-c ::= "z"\n'


def test_reserved_rule_may_refer_to_itself_and_is_left_out_without_a_body() -> None:
    rules = Rules()
    name = rules.reserve("list")
    rules.reserve("never")
    rules.define(name, f'"x" {name} | ""')
    rules.define(rules.reserve("nothing"), "")
    assert rules.grammar(name).text == 'list ::= "x" list | ""\nnothing ::= ""\n'


def test_names_avoid_those_of_a_grammar_that_they_are_added_to() -> None:
    assert Rules(avoiding='gap ::= "x"').add("gap", '"y"') == "gap-2"


def test_rules_that_become_too_many_are_refused() -> None:
    rules = Rules()
    rules.add("rule", literal("x" * (MAX_GRAMMAR_CHARS - 20)))
    with pytest.raises(SchemaNotSupported, match="too large"):
        rules.add("rule", literal("y" * 20))


@given(texts=st.lists(st.text("ab", max_size=4), min_size=1), other=st.text("ab", max_size=5))
def test_choice_of_texts_is_any_of_them(
    byte_grammars: Acceptor, texts: list[str], other: str
) -> None:
    rules = Rules()
    written = rules.grammar(rules.add("root", one_of_texts(rules, "text", texts)))
    assert all(byte_grammars.accepts(written, text) for text in texts)
    assert byte_grammars.accepts(written, other) == (other in texts)


@given(texts=st.lists(st.text("ab!", max_size=3), max_size=4), other=st.text("ab!é", max_size=4))
def test_other_texts_are_none_of_these_and_not_empty(
    byte_grammars: Acceptor, texts: list[str], other: str
) -> None:
    rules = Rules()
    written = rules.grammar(other_than(rules, "other", texts, "!"))
    is_other = bool(other) and "!" not in other and other not in texts
    assert byte_grammars.accepts(written, other) == is_other


MARKS = st.lists(st.text("ab<", min_size=1, max_size=4), min_size=1, max_size=3, unique=True)


def first_end(text: str, marks: list[str]) -> int | None:
    """Where the first mark to be complete in ``text`` ends."""
    ends = [text.find(mark) + len(mark) for mark in marks if mark in text]
    return min(ends, default=None)


@given(marks=MARKS, seen=st.text("ab<", max_size=3), text=st.text("ab<é", max_size=9))
def test_text_goes_on_until_the_first_mark_is_complete(
    byte_grammars: Acceptor, marks: list[str], seen: str, text: str
) -> None:
    if first_end(seen, marks) is not None:
        return  # What was seen before must not be the end already.
    rules = Rules()
    written = rules.grammar(until(rules, "text", dict.fromkeys(marks, '"!"'), seen=seen))
    end = first_end(seen + text, marks)
    is_whole = end == len(seen + text)
    assert byte_grammars.accepts(written, f"{text}!") == is_whole
    assert not byte_grammars.accepts(written, text)


@given(marks=MARKS, text=st.text("ab<é", max_size=9))
def test_text_that_may_end_may_not_have_more_behind_a_mark(
    byte_grammars: Acceptor, marks: list[str], text: str
) -> None:
    rules = Rules()
    written = rules.grammar(until(rules, "text", dict.fromkeys(marks, '"!"'), may_end=True))
    assert byte_grammars.accepts(written, text) == (first_end(text, marks) is None)


def test_each_mark_leads_to_its_own(byte_grammars: Acceptor) -> None:
    rules = Rules()
    written = rules.grammar(until(rules, "text", {"<a>": '"1"', "<b>": '"2"', "<c>": ""}))
    texts = ["x<a>1", "<b>2", "<<c>", "x<a>2", "<b>", "x"]
    assert [byte_grammars.accepts(written, text) for text in texts] == [True] * 3 + [False] * 3


def test_forbidden_text_cannot_come_first(byte_grammars: Acceptor) -> None:
    rules = Rules()
    written = rules.grammar(until(rules, "text", {"</p>": ""}, forbidden=["</param>", "</pre"]))
    assert byte_grammars.accepts(written, "a </pr </para </p>")
    assert byte_grammars.refused(written, "a </param></p>") == "></p>"
    assert byte_grammars.refused(written, "a </pre></p>") == "e></p>"


def test_error_says_which_property_is_meant() -> None:
    error = NotWritable("nothing fits")
    assert str(error) == "nothing fits"
    inner = error.within("b").within("a")
    assert isinstance(inner, NotWritable)
    assert str(inner) == 'property "a.b": nothing fits'
    for _ in range(9):
        inner = inner.within("x")
    assert re.fullmatch(r'property "(x\.){8}…": nothing fits', str(inner))
