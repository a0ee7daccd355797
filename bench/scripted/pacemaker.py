"""Calls many agents at their due times, from one timer."""

import asyncio
import heapq
import time
from collections.abc import Callable

from bench.scripted.tally import Tally

LATE_S = 0.005
"""A step that comes later than this is told of: the machine does not keep the pace."""


class Pacemaker:
    """Due times of steps. A step gets the time at which it was due."""

    def __init__(self, tally: Tally) -> None:
        self._loop = asyncio.get_running_loop()
        self._tally = tally
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = 0  # steps that are due at one time come in the order of their asking
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def at(self, due_at: float, step: Callable[[float], None]) -> None:
        """Call ``step`` once, at ``due_at`` by ``time.monotonic()`` or as soon as may be."""
        self._order += 1
        heapq.heappush(self._due, (due_at, self._order, step))
        if self._timer is None or due_at < self._timer_at:
            self._set_timer()

    def stop(self) -> None:
        """Call nobody any more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._due[0][0]
        self._timer = self._loop.call_at(self._timer_at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = time.monotonic()  # the loop's own time stands still while it runs callbacks
        # Its timers go by milliseconds: what is due within one is due.
        while self._due and self._due[0][0] <= now + 0.0005:
            due_at, _, step = heapq.heappop(self._due)
            late_s = time.monotonic() - due_at
            if late_s > LATE_S:
                self._tally.late_steps += 1
            self._tally.peak_late_s = max(self._tally.peak_late_s, late_s)
            step(due_at)
        if self._due:
            self._set_timer()
