"""What is told, and how often."""

import contextlib
import time

from paddler.agent.models.causes import Cause, issue_of
from paddler.agent.models.reports import progress_reported, report_wait
from paddler.messages.fetch import FetchEvent, Receiving, UrlJob, Waiting


def test_progress_is_told_at_first_at_last_and_rarely_between() -> None:
    events: list[FetchEvent] = []
    started_at = time.monotonic()
    with progress_reported(events.append, "m.gguf") as on_progress:
        for received in range(10_001):
            on_progress(received, 10_000)
    elapsed_s = time.monotonic() - started_at
    assert events[0] == Receiving(filename="m.gguf", received=0, total=10_000)
    assert events[-1] == Receiving(filename="m.gguf", received=10_000, total=10_000)
    assert len(events) <= 2 + 5 * elapsed_s


def test_what_breaks_off_is_told_to_its_last_byte() -> None:
    events: list[FetchEvent] = []
    with (
        contextlib.suppress(OSError),
        progress_reported(events.append, "m.gguf") as on_progress,
    ):
        for received in range(100):
            on_progress(received, 10_000)
        raise OSError
    assert events[-1] == Receiving(filename="m.gguf", received=99, total=10_000)


def test_a_wait_is_told_with_its_issue_once_it_is_long() -> None:
    events: list[FetchEvent] = []
    issue = issue_of(Cause.LOCKED, UrlJob("http://h/m"))
    on_wait = report_wait(events.append, issue)
    on_wait(False)
    on_wait(True)
    assert events == [Waiting(), Waiting(issue)]
