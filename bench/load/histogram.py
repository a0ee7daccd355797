"""Durations counted in buckets that grow with them, as HDR histograms do."""

from collections.abc import Iterable
from typing import Final

SUB_BITS: Final = 7
"""Buckets within each power of two: 64 from the second on, so that a value is told to 1.6 %."""
HALF: Final = 1 << (SUB_BITS - 1)
MAX_US: Final = (1 << 36) - 1  # 19 hours
BUCKETS: Final = (36 - SUB_BITS + 2) * HALF


class Histogram:
    """Counts of durations from 1 µs to 19 hours, in 15 KiB however many there are."""

    __slots__ = ("_counts", "count", "peak_s", "sum_s")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._counts = [0] * BUCKETS
        self.count = 0
        self.sum_s = 0.0
        self.peak_s = 0.0

    def record(self, seconds: float, count: int = 1) -> None:
        """Take a duration, ``count`` times; a negative one is 0."""
        micros = int(seconds * 1e6)
        if micros <= 0:
            micros, seconds = 0, max(seconds, 0.0)
        elif micros > MAX_US:
            micros = MAX_US
        shift = micros.bit_length() - SUB_BITS
        index = micros if shift <= 0 else shift * HALF + (micros >> shift)
        self._counts[index] += count
        self.count += count
        self.sum_s += seconds * count
        if seconds > self.peak_s:
            self.peak_s = seconds

    def merge(self, other: "Histogram") -> None:
        """Take all that ``other`` took."""
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        self.count += other.count
        self.sum_s += other.sum_s
        self.peak_s = max(self.peak_s, other.peak_s)

    @property
    def mean_s(self) -> float:
        """The mean; 0 of nothing."""
        return self.sum_s / self.count if self.count else 0.0

    def percentile_s(self, percent: float) -> float:
        """What ``percent`` of the durations do not exceed; 0 of nothing."""
        return next(iter(self.percentiles_s([percent])))

    def percentiles_s(self, percents: Iterable[float]) -> list[float]:
        """:meth:`percentile_s` of each, which must ascend."""
        values = []
        seen, index = 0, 0
        for percent in percents:
            wanted = max(1, -(-self.count * percent // 100))  # rounded up
            while index < BUCKETS and seen < wanted:
                seen += self._counts[index]
                index += 1
            values.append(min(_middle_s(index - 1), self.peak_s) if self.count else 0.0)
        return values


def _middle_s(index: int) -> float:
    """The middle of a bucket."""
    shift = max(0, index // HALF - 1)
    lower = (index - shift * HALF) << shift
    return (lower + (1 << shift) / 2) / 1e6
