import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.agent.worker.gbnf.ranges import integers_between, numbers_between
from paddler.agent.worker.gbnf.writing import Gbnf, NotWritable
from tests.agent.worker.accepting import Acceptor

NEAR_AND_FAR = st.integers(-30, 30) | st.integers(-(10**6), 10**6)
BOUNDS = st.none() | NEAR_AND_FAR


def grammar(expression: str) -> Gbnf:
    return Gbnf(f"root ::= {expression}\n", "root")


@given(least=BOUNDS, most=BOUNDS, numbers=st.lists(NEAR_AND_FAR, max_size=4))
def test_whole_numbers_are_those_between_the_bounds(
    byte_grammars: Acceptor, least: int | None, most: int | None, numbers: list[int]
) -> None:
    def is_between(number: int) -> bool:
        return (least is None or number >= least) and (most is None or number <= most)

    try:
        written = grammar(integers_between(least, most))
    except NotWritable:
        assert least is not None
        assert most is not None
        assert least > most
        return
    for bound in (least, most):
        numbers += [] if bound is None else [bound - 1, bound, bound + 1]
    for number in numbers:
        assert byte_grammars.accepts(written, str(number)) == is_between(number), number


@pytest.mark.parametrize("text", ["", "-", "01", "+1", "1.0", "1e3", "-0", " 1"])
def test_what_json_does_not_call_a_whole_number_is_none(byte_grammars: Acceptor, text: str) -> None:
    assert not byte_grammars.accepts(grammar(integers_between(-5, None)), text)


@given(
    least=st.none() | st.sampled_from([-3, -0.5, 0, 0.25, 1, 2.5, 10]),
    most=st.none() | st.sampled_from([-2, -0.25, 0, 0.8, 1, 2.5, 7.125, 100]),
    is_least_excluded=st.booleans(),
    is_most_excluded=st.booleans(),
    thousandths=st.lists(st.integers(-4000, 12000), max_size=5),
)
def test_decimal_numbers_are_those_between_the_bounds(
    byte_grammars: Acceptor,
    least: float | None,
    most: float | None,
    is_least_excluded: bool,
    is_most_excluded: bool,
    thousandths: list[int],
) -> None:
    def is_between(number: float) -> bool:
        is_low = least is not None and (number < least or (is_least_excluded and number == least))
        is_high = most is not None and (number > most or (is_most_excluded and number == most))
        return not is_low and not is_high

    numbers = [0.0, 1.0, *(number / 1000 for number in thousandths)]
    for bound in (least, most):
        numbers += [] if bound is None else [bound - 0.001, bound, bound + 0.001]
    try:
        written = grammar(numbers_between(least, most, is_least_excluded, is_most_excluded))
    except NotWritable:
        assert not any(map(is_between, numbers))
        return
    for number in numbers:
        text = f"{number:.3f}".rstrip("0").rstrip(".")
        if text != "-0":
            assert byte_grammars.accepts(written, text) == is_between(number), text


@pytest.mark.parametrize("text", ["0", "-1.5", "1e9", "2E-5", "123456789012345", "0.1"])
def test_number_without_bounds_is_any_of_json(byte_grammars: Acceptor, text: str) -> None:
    assert byte_grammars.accepts(grammar(numbers_between(None, None, False, False)), text)
