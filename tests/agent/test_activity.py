"""What an agent is seen to do, and how fast."""

import pytest

from paddler.agent.activity import RATE_WINDOW_S, Activity, ActivityBoard, Phase, Rate
from paddler.messages.worker import Progress


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.SERVING, Phase.RETRYING, Phase.IDLE])
def test_what_the_worker_does_is_seen(phase: Phase) -> None:
    board = ActivityBoard()
    board.on_worker(phase)
    assert board.now == Activity(phase=phase)


def test_loading_is_seen_with_its_progress() -> None:
    board = ActivityBoard()
    board.on_worker(Phase.LOADING)
    assert board.now == Activity(phase=Phase.LOADING, load_fraction=0.0)
    board.on_load_progress(Progress("loading", 0.5))
    assert board.now == Activity(phase=Phase.LOADING, load_fraction=0.5)
    board.on_load_progress(Progress("warming", 1.0))
    assert board.now == Activity(phase=Phase.WARMING, load_fraction=1.0)


def test_files_on_their_way_are_seen_before_what_serves_meanwhile() -> None:
    board = ActivityBoard()
    board.on_worker(Phase.SERVING)
    board.on_files(Phase.WAITING_FOR_LOCK)
    assert board.now.phase is Phase.WAITING_FOR_LOCK
    board.on_received(1, 10)
    assert board.now.phase is Phase.DOWNLOADING
    board.on_worker(Phase.RETRYING)
    assert board.now.phase is Phase.DOWNLOADING
    board.on_files(None)
    assert board.now.phase is Phase.RETRYING


def test_a_download_is_seen_with_its_pace_and_what_is_left() -> None:
    clock = Clock()
    board = ActivityBoard(clock)
    board.on_received(1000, 5000)
    assert board.now == Activity(phase=Phase.DOWNLOADING)
    clock.now += 2
    board.on_received(3000, 5000)
    assert board.now == Activity(phase=Phase.DOWNLOADING, bytes_per_s=1000.0, seconds_left=2.0)
    board.on_received(3000, None)
    assert board.now.seconds_left is None


def test_watchers_hear_of_changes_only() -> None:
    heard: list[Activity] = []
    board = ActivityBoard()
    board.watch(lambda: heard.append(board.now))
    board.on_worker(Phase.IDLE)
    board.on_files(None)
    assert heard == []
    board.on_worker(Phase.SERVING)
    board.on_worker(Phase.SERVING)
    assert heard == [Activity(phase=Phase.SERVING)]


def test_the_rate_is_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.after(0.0, 0) is None
    assert rate.after(0.0, 50) is None  # no time has passed
    assert rate.after(1.0, 1_000_000) == 1_000_000
    for second in range(2, 12):
        after = rate.after(float(second), 1_000_000 + 10 * second)
    assert after == pytest.approx(10)


def test_the_rate_forgets_a_file_that_starts_over() -> None:
    rate = Rate()
    rate.after(0.0, 1000)
    assert rate.after(1.0, 0) is None
    assert rate.after(2.0, 10) == 10


def test_a_long_silence_lowers_the_rate() -> None:
    rate = Rate()
    rate.after(0.0, 0)
    rate.after(1.0, 100)
    assert rate.after(1.0 + 10 * RATE_WINDOW_S, 200) == pytest.approx(100 / (10 * RATE_WINDOW_S))
