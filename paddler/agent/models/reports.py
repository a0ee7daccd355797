"""What a fetching process tells of its work, in the words of its pipe."""

import time
from collections.abc import Callable
from typing import Final

from paddler.messages.agents import AgentIssue
from paddler.messages.fetch import FetchEvent, Receiving, Waiting

_REPORT_EVERY_S: Final = 0.2

Report = Callable[[FetchEvent], None]


def report_progress(report: Report, filename: str) -> Callable[[int, int | None], None]:
    """Tells of bytes of ``filename``: the first time, the last, and now and then."""
    due_at = 0.0

    def on_progress(received: int, total: int | None) -> None:
        nonlocal due_at
        if (now := time.monotonic()) >= due_at or received == total:
            due_at = now + _REPORT_EVERY_S
            report(Receiving(filename=filename, received=received, total=total))

    return on_progress


def report_wait(report: Report, issue: AgentIssue) -> Callable[[bool], None]:
    """Tells of a lock that somebody else holds; as an ``issue`` if that takes long."""

    def on_wait(is_long: bool) -> None:
        report(Waiting(issue if is_long else None))

    return on_wait
