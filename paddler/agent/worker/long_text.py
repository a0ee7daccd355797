"""Tokenizing long texts in bounded time.

llama.cpp tokenizes in one call that nothing can interrupt, and whose time grows with the
square of the special tokens in the text: 2 MB of them took 90 s. Cut right before a
special token, the parts are tokenized on their own to the same tokens; and a text that
cannot fit is noticed before all of it was looked at.
"""

from collections.abc import Callable, Sequence
from typing import Final

PART_CHARS: Final = 16_384
# A cut at any other place may change the tokens around it, but not the count by more.
COUNT_ERROR: Final = 16

Tokenize = Callable[[str, bool], list[int]]
"""Tokens of a text; the flag says whether it is the first part, which gets the BOS."""


def tokenize_in_parts(
    text: str, tokenize: Tokenize, cut_before: Sequence[str], *, limit: int
) -> list[int]:
    """Tokens of ``text``.

    Of a text with more than ``limit`` tokens only a part may come back: more than ``limit``
    tokens still, though not exactly the first ones. ``cut_before``: texts of the special
    tokens that take no white space off what stands before them.
    """
    tokens: list[int] = []
    start = 0
    while True:
        end = _cut(text, start + PART_CHARS, cut_before)
        part = _bounded(text[start:end], tokenize, limit - len(tokens), is_first=start == 0)
        tokens += part
        if end >= len(text) or len(tokens) > limit:
            return tokens
        start = end


def _cut(text: str, position: int, cut_before: Sequence[str]) -> int:
    """Where the first special token at or after ``position`` begins; else the end."""
    while position < len(text):
        window_end = position + PART_CHARS
        # A token may begin in this window and end in the next.
        found = [
            index
            for special in cut_before
            if (index := text.find(special, position, window_end + len(special) - 1)) >= 0
        ]
        if found:
            return min(found)
        position = window_end
    return len(text)


def _bounded(text: str, tokenize: Tokenize, limit: int, *, is_first: bool) -> list[int]:
    """Tokens of a part; of one that is far too long, just enough to tell."""
    if len(text) > 4 * PART_CHARS:
        counted: list[int] = []
        for cuts, start in enumerate(range(0, len(text), PART_CHARS)):
            counted += tokenize(text[start : start + PART_CHARS], is_first and start == 0)
            if len(counted) - COUNT_ERROR * cuts > limit:
                return counted
    return tokenize(text, is_first)
