"""Counts and distributions since the start, cheap enough to keep for every request."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Final

from paddler.balancer.records import RequestRecord

WAIT_BOUNDS_S: Final = (0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
FIRST_TOKEN_BOUNDS_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKEN_GAP_BOUNDS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5)


class Distribution:
    """How many values were at most each of ``bounds``, and their sum."""

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus has them."""
        counted = 0
        buckets = []
        for bound, count in zip((*self.bounds, float("inf")), self._counts, strict=True):
            counted += count
            buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), counted))
        return [(bound, float(count)) for bound, count in buckets]


class Measures:
    """All of one balancer. Label sets are bounded: routes and outcomes are ours."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()  # by route and outcome
        self.waited = Distribution(WAIT_BOUNDS_S)
        self.first_token = Distribution(FIRST_TOKEN_BOUNDS_S)
        self.token_gap = Distribution(TOKEN_GAP_BOUNDS_S)
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self.failovers = 0

    def on_record(self, record: RequestRecord) -> None:
        """Count one request."""
        self.requests[record.route, record.outcome.value] += 1
        self.waited.observe(record.waited_s)
        if record.first_token_s is not None:
            self.first_token.observe(record.first_token_s)
        if record.token_gap_s is not None:
            self.token_gap.observe(record.token_gap_s)
        self.prompt_tokens += record.prompt_tokens
        self.cached_tokens += record.cached_tokens
        self.generated_tokens += record.generated_tokens
        self.failovers += record.failovers
