"""The histogram against sorted lists."""

import math

from hypothesis import given
from hypothesis import strategies as st

from bench.load.histogram import Histogram

durations = st.lists(st.floats(1e-6, 60_000.0), min_size=1, max_size=200)


def histogram_of(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(values=durations, percent=st.sampled_from([0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_right_to_two_percent(values: list[float], percent: float) -> None:
    wanted = sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
    found = histogram_of(values).percentile_s(percent)
    assert abs(found - wanted) <= wanted * 0.016 + 1.5e-6


@given(first=durations, second=durations)
def test_merged_histograms_are_as_one(first: list[float], second: list[float]) -> None:
    merged = histogram_of(first)
    merged.merge(histogram_of(second))
    whole = histogram_of(first + second)
    assert (merged.count, merged.peak_s) == (whole.count, whole.peak_s)
    percents = (1, 50, 99, 100)
    assert merged.percentiles_s(percents) == whole.percentiles_s(percents)


def test_a_histogram_of_nothing_says_nothing() -> None:
    empty = Histogram()
    assert (empty.percentile_s(99), empty.mean_s, empty.peak_s) == (0.0, 0.0, 0.0)


def test_durations_beyond_every_bucket_count_in_the_last_one() -> None:
    histogram = histogram_of([-1.0, 0.0, 1e9])
    assert histogram.count == 3
    assert histogram.percentile_s(1) < 1e-6
    assert histogram.percentile_s(100) > 60_000


def test_one_record_may_stand_for_many() -> None:
    histogram = Histogram()
    histogram.record(0.001, 99)
    histogram.record(1.0)
    assert histogram.percentile_s(99) < 0.0011
    assert histogram.percentile_s(99.9) > 0.98
