import array
import math
import struct
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler import _fastpath
from tests import fastpath_twin
from tests.fastpath_impls import IMPLS, outcome

CANDIDATE = struct.Struct("<iff")
FLOATS = st.floats(width=32)
# Few values, so that equals are common.
LOGITS = st.lists(FLOATS | st.sampled_from([0.0, -0.0, 1.0, -math.inf, math.nan]), max_size=200)


def floats(*numbers: float) -> "array.array[float]":
    return array.array("f", numbers)


def found(impl: ModuleType, logits: "array.array[float]", most: int) -> list[tuple[int, float]]:
    """What the selection says, between guards that must stay as they are."""
    room = bytearray(b"#" * (12 * len(logits) + 24))
    count = impl.likeliest(logits, most, memoryview(room)[12:-12])
    end = 12 * (count + 1)
    assert room[:12] == room[-12:] == b"#" * 12
    assert set(room[end:]) == {ord("#")}
    rows = [CANDIDATE.unpack_from(room, at) for at in range(12, end, 12)]
    assert all(probability == 0.0 for _, _, probability in rows)
    return [(token, logit) for token, logit, _ in rows]


@pytest.mark.parametrize("impl", IMPLS)
def test_the_likeliest_come_first_and_of_equals_the_lower_token(impl: ModuleType) -> None:
    logits = floats(0.5, 2.0, -1.0, 2.0, 7.0)
    assert found(impl, logits, 3) == [(4, 7.0), (1, 2.0), (3, 2.0)]
    assert [token for token, _ in found(impl, logits, 9)] == [4, 1, 3, 0, 2]


@pytest.mark.parametrize("impl", IMPLS)
def test_not_a_number_is_never_likelier_than_a_number(impl: ModuleType) -> None:
    logits = floats(math.nan, -5.0, math.nan, -math.inf, 3.0)
    assert found(impl, logits, 2) == [(4, 3.0), (1, -5.0)]
    assert found(impl, logits, 3)[2] == (0, -math.inf)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("most", "room"), [(0, 12), (-1, 12), (2, 23)])
def test_what_cannot_be_chosen_is_refused(impl: ModuleType, most: int, room: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        impl.likeliest(floats(1.0, 2.0), most, bytearray(room))


@given(logits=LOGITS, most=st.integers(1, 40))
def test_selection_agrees_with_its_twin(logits: list[float], most: int) -> None:
    numbers = floats(*logits)
    assert found(_fastpath, numbers, most) == found(fastpath_twin, numbers, most)


@pytest.mark.parametrize("impl", IMPLS)
def test_seen_tokens_cost_what_they_are_seen(impl: ModuleType) -> None:
    seen = impl.SeenTokens(5, 3)
    for token in (1, 0, 2, 2):  # the first one has left the window
        seen.accept(token)
    logits = floats(4.0, 4.0, -4.0, 4.0, -4.0)
    seen.penalize(logits, 2.0, 0.5, 0.25)
    assert list(logits) == [1.25, 4.0, -9.25, 4.0, -4.0]
    seen.restore(logits)
    assert list(logits) == [4.0, 4.0, -4.0, 4.0, -4.0]


@pytest.mark.parametrize("impl", IMPLS)
def test_penalties_are_taken_back_before_anything_else(impl: ModuleType) -> None:
    seen = impl.SeenTokens(2, 3)
    seen.accept(1)
    logits = floats(1.0, 1.0)
    seen.penalize(logits, 2.0, 0.0, 0.0)
    with pytest.raises(RuntimeError):
        seen.accept(0)
    with pytest.raises(RuntimeError):
        seen.penalize(logits, 2.0, 0.0, 0.0)
    seen.restore(logits)
    seen.restore(logits)  # nothing is left to do
    assert list(logits) == [1.0, 1.0]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("vocabulary", "window"), [(0, 1), (1, 0), (-1, 1), (1, -1), (1 << 31, 1)])
def test_no_vocabulary_and_no_window_is_refused(
    impl: ModuleType, vocabulary: int, window: int
) -> None:
    with pytest.raises((ValueError, OverflowError)):
        impl.SeenTokens(vocabulary, window)


STEPS = st.lists(
    st.integers(-2, 7)
    | st.tuples(
        st.sampled_from([0.5, 1.0, 1.1, 2.0]), st.sampled_from([-1.0, 0.0, 0.5]),
        st.sampled_from([0.0, 0.8]),
    ),
    max_size=40,
)  # fmt: skip


@given(
    window=st.integers(1, 9),
    steps=STEPS,
    numbers=st.lists(st.floats(-100, 100, width=32), min_size=6, max_size=6),
)
def test_seen_tokens_agree_with_their_twin(
    window: int, steps: list[int | tuple[float, float, float]], numbers: list[float]
) -> None:
    ours, twin = _fastpath.SeenTokens(6, window), fastpath_twin.SeenTokens(6, window)
    for step in steps:
        if isinstance(step, int):
            assert outcome(ours.accept, step) == outcome(twin.accept, step)
            continue
        mine, others = floats(*numbers), floats(*numbers)
        ours.penalize(mine, *step)
        twin.penalize(others, *step)
        assert mine.tolist() == pytest.approx(others.tolist(), rel=1e-6)
        ours.restore(mine)
        twin.restore(others)
        assert mine.tolist() == others.tolist() == numbers


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    "odd", [b"", b"123", bytes(8), bytearray(9), memoryview(bytearray(16))[::2]]
)
def test_odd_buffers_are_refused_alike(impl: ModuleType, odd: bytes) -> None:
    seen = impl.SeenTokens(2, 1)
    for call in (lambda: seen.penalize(odd, 1.0, 0.0, 0.0), lambda: seen.restore(odd)):
        with pytest.raises((ValueError, BufferError)):
            call()
