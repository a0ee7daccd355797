"""What a report says of its own numbers."""

import pytest

from bench.load.histogram import Histogram
from bench.load.report import notes_on, times_of


@pytest.mark.parametrize(
    ("cpu", "lag_s", "stolen", "said"),
    [
        (0.9, 0.009, 0.05, []),
        (0.95, 0.001, 0.0, ["the generator used 95% of its core"]),
        (0.1, 0.02, 0.0, ["the generator was late by 20 ms"]),
        (0.1, 0.001, 0.26, ["the hypervisor gave 26% of this machine's processors to others"]),
    ],
    ids=["quiet", "busy", "late", "stolen"],
)
def test_a_note_says_where_numbers_are_the_machines(
    cpu: float, lag_s: float, stolen: float, said: list[str]
) -> None:
    lag = Histogram()
    lag.record(lag_s)
    notes = notes_on(cpu, times_of(lag), stolen)
    assert [note.startswith(words) for note, words in zip(notes, said, strict=True)] == [
        True
    ] * len(said)
