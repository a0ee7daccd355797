import pytest

from paddler.balancer.policy import Admission, admit, may_fail_over


@pytest.mark.parametrize(
    ("waiting", "limit", "expected"),
    [
        (0, 0, Admission.REFUSE),
        (0, 1, Admission.WAIT),
        (1, 1, Admission.REFUSE),
        (29, 30, Admission.WAIT),
        (30, 30, Admission.REFUSE),
    ],
)
def test_the_line_takes_no_more_than_its_limit(
    waiting: int, limit: int, expected: Admission
) -> None:
    assert admit(waiting=waiting, limit=limit) is expected


@pytest.mark.parametrize(
    ("tokens", "failovers", "expected"),
    [(0, 0, True), (0, 1, True), (0, 2, False), (1, 0, False)],
)
def test_only_an_unheard_answer_starts_again_and_at_most_twice(
    tokens: int, failovers: int, expected: bool
) -> None:
    assert may_fail_over(tokens_sent=tokens, failovers=failovers) is expected
