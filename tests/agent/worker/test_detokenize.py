import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.agent.worker.detokenize import Detokenizer


def test_character_is_held_until_it_is_whole() -> None:
    text = Detokenizer()
    assert [text.feed(bytes([byte])) for byte in "a€".encode()] == ["a", "", "", "€"]
    assert text.flush() == ""


def test_held_bytes_are_flushed_as_a_replacement_character() -> None:
    text = Detokenizer()
    assert text.feed("€".encode()[:2]) == ""
    assert text.flush() == "\ufffd"


@pytest.mark.parametrize(
    ("piece", "text"), [(b"a\xffb", "a\ufffdb"), (b"\x00", "\0"), ("<é&>".encode(), "<é&>")]
)
def test_bytes_become_text(piece: bytes, text: str) -> None:
    assert Detokenizer().feed(piece) == text


@given(text=st.text(st.characters(exclude_categories=["Cs"])), cuts=st.lists(st.integers(0, 60)))
def test_text_is_the_same_however_tokens_cut_it(text: str, cuts: list[int]) -> None:
    data = text.encode()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    joined = Detokenizer()
    pieces = [joined.feed(data[begin:end]) for begin, end in itertools.pairwise(bounds)]
    assert "".join(pieces) + joined.flush() == text
