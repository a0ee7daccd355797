import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.agent.worker.engine_llama import Model, start_backend
from paddler.agent.worker.long_text import PART_CHARS, tokenize_in_parts

SPECIAL = "<|s|>"
BOS = -1


def tokenize(text: str, is_first: bool) -> list[int]:
    """Specials are one token, everything else one per character."""
    tokens = [BOS] if is_first else []
    for index, piece in enumerate(text.split(SPECIAL)):
        tokens += ([0] if index else []) + [ord(char) for char in piece]
    return tokens


pieces = st.sampled_from([SPECIAL, "a", " ", "<|", "|>", "x" * 5_000, "y" * 40_000])


@given(st.lists(pieces, max_size=12).map("".join))
def test_parts_give_the_same_tokens_as_the_whole(text: str) -> None:
    assert tokenize_in_parts(text, tokenize, [SPECIAL], limit=10**9) == tokenize(text, True)


@given(st.lists(pieces, max_size=12).map("".join), st.integers(0, 60_000))
def test_what_does_not_fit_comes_back_longer_than_the_limit(text: str, limit: int) -> None:
    whole = tokenize(text, True)
    tokens = tokenize_in_parts(text, tokenize, [SPECIAL], limit=limit)
    if len(whole) <= limit:
        assert tokens == whole
    else:
        assert len(tokens) > limit


@pytest.mark.parametrize("unit", [SPECIAL, "x"])
def test_not_all_of_a_text_that_cannot_fit_is_looked_at(unit: str) -> None:
    looked_at = 0

    def counting(text: str, is_first: bool) -> list[int]:
        nonlocal looked_at
        looked_at += len(text)
        return tokenize(text, is_first)

    tokenize_in_parts(unit * 1_000_000, counting, [SPECIAL], limit=100)
    assert looked_at <= 2 * PART_CHARS


@pytest.mark.parametrize("unit", [" <|im_start|> ", "<|im_start|>user\nHi<|im_end|>\n"])
def test_the_real_tokenizer_agrees_and_does_not_stall(smollm2_path: Path, unit: str) -> None:
    start_backend()
    with Model(str(smollm2_path), n_gpu_layers=0, on_progress=lambda _: True) as model:
        text = unit * 3_000
        assert model.tokenize(text, limit=10**6) == model._tokenize_part(text, True)
        began_at = time.monotonic()
        assert len(model.tokenize(unit * 200_000, limit=8192)) > 8192
        assert time.monotonic() - began_at < 10  # in one call: minutes
