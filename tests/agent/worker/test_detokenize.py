import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.agent.worker.detokenize import Detokenizer


def unescape(payload: bytes) -> str:
    return str(json.loads(b'"' + payload + b'"'))


def test_character_is_held_until_it_is_whole() -> None:
    text = Detokenizer()
    assert [text.feed(bytes([byte])) for byte in "a€".encode()] == [b"a", b"", b"", "€".encode()]
    assert text.flush() == b""


def test_held_bytes_are_flushed_as_a_replacement_character() -> None:
    text = Detokenizer()
    assert text.feed("€".encode()[:2]) == b""
    assert unescape(text.flush()) == "\ufffd"


@pytest.mark.parametrize(
    ("piece", "payload"),
    [
        (b'say "hi"', rb"say \"hi\""),
        (b"a\nb\\c", rb"a\nb\\c"),
        (b"\x00", rb"\u0000"),
        (b"a\xffb", "a\ufffdb".encode()),
        ("<é&>".encode(), "<é&>".encode()),
    ],
)
def test_text_is_escaped_for_a_json_string(piece: bytes, payload: bytes) -> None:
    assert Detokenizer().feed(piece) == payload


@given(text=st.text(st.characters(exclude_categories=["Cs"])), cuts=st.lists(st.integers(0, 60)))
def test_text_is_the_same_however_tokens_cut_it(text: str, cuts: list[int]) -> None:
    data = text.encode()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    joined = Detokenizer()
    payload = b"".join(joined.feed(data[begin:end]) for begin, end in itertools.pairwise(bounds))
    assert unescape(payload + joined.flush()) == text
