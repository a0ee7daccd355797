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
    ("was_heard", "failovers", "expected"),
    [(False, 0, True), (False, 1, True), (False, 2, False), (True, 0, False)],
)
def test_only_an_unheard_answer_starts_again_and_at_most_twice(
    was_heard: bool, failovers: int, expected: bool
) -> None:
    assert may_fail_over(was_heard=was_heard, failovers=failovers) is expected
