import pytest

from paddler.balancer.measures import Distribution, Measures
from paddler.balancer.records import RequestOutcome, RequestRecord


def record(**changes: object) -> RequestRecord:
    values: dict[str, object] = {
        "route": "chat",
        "outcome": RequestOutcome.COMPLETED,
        "waited_s": 0.0,
        "first_token_s": None,
        "token_gap_s": None,
        "prompt_tokens": 0,
        "cached_tokens": 0,
        "generated_tokens": 0,
        "failovers": 0,
    }
    return RequestRecord(**(values | changes))  # type: ignore[arg-type]


def test_a_distribution_counts_up_to_each_bound() -> None:
    distribution = Distribution((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        distribution.observe(value)
    assert distribution.buckets == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]
    assert distribution.total == 12.0


def test_requests_are_counted_by_route_and_outcome() -> None:
    measures = Measures()
    for outcome in (RequestOutcome.COMPLETED, RequestOutcome.COMPLETED, RequestOutcome.FAILED):
        measures.on_record(record(outcome=outcome))
    assert measures.requests == {("chat", "completed"): 2, ("chat", "failed"): 1}


def test_what_a_request_took_is_summed() -> None:
    measures = Measures()
    for _ in range(2):
        measures.on_record(
            record(
                waited_s=0.2,
                first_token_s=0.3,
                token_gap_s=0.01,
                prompt_tokens=10,
                cached_tokens=4,
                generated_tokens=5,
                failovers=1,
            )
        )
    assert measures.waited.total == pytest.approx(0.4)
    assert measures.first_token.total == pytest.approx(0.6)
    assert measures.token_gap.total == pytest.approx(0.02)
    assert (measures.prompt_tokens, measures.cached_tokens) == (20, 8)
    assert (measures.generated_tokens, measures.failovers) == (10, 2)


def test_what_did_not_happen_is_not_timed() -> None:
    measures = Measures()
    measures.on_record(record())
    assert measures.first_token.buckets[-1] == ("+Inf", 0.0)
    assert measures.token_gap.buckets[-1] == ("+Inf", 0.0)


@pytest.mark.parametrize(
    ("outcome", "is_refusal", "is_error"),
    [
        (RequestOutcome.COMPLETED, False, False),
        (RequestOutcome.REJECTED, False, False),
        (RequestOutcome.CANCELLED, False, False),
        (RequestOutcome.LINE_FULL, True, True),
        (RequestOutcome.WAITED_TOO_LONG, True, True),
        (RequestOutcome.AGENT_LOST, False, True),
    ],
)
def test_only_the_fleets_failures_are_errors(
    outcome: RequestOutcome, is_refusal: bool, is_error: bool
) -> None:
    assert (outcome.is_refusal, outcome.is_error) == (is_refusal, is_error)
