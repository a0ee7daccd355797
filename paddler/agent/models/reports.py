"""What a fetching process tells of its work, in the words of its pipe."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from paddler.messages.agents import AgentIssue
from paddler.messages.fetch import FetchEvent, Receiving, Waiting

_REPORT_EVERY_S: Final = 0.2

Report = Callable[[FetchEvent], None]


@contextlib.contextmanager
def progress_reported(report: Report, filename: str) -> Iterator[Callable[[int, int | None], None]]:
    """Tells of bytes of ``filename``: the first time, now and then, and how far it came."""
    due_at = 0.0
    untold: Receiving | None = None

    def on_progress(received: int, total: int | None) -> None:
        nonlocal due_at, untold
        untold = Receiving(filename=filename, received=received, total=total)
        if (now := time.monotonic()) >= due_at or received == total:
            due_at = now + _REPORT_EVERY_S
            report(untold)
            untold = None

    try:
        yield on_progress
    finally:
        if untold is not None:
            report(untold)


def report_wait(report: Report, issue: AgentIssue) -> Callable[[bool], None]:
    """Tells of a lock that somebody else holds; as an ``issue`` if that takes long."""

    def on_wait(is_long: bool) -> None:
        report(Waiting(issue if is_long else None))

    return on_wait
