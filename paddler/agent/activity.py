"""What the agent is doing right now, for people: finer than the status that clients know.

Two things go on side by side: a model's files are brought here, and a worker serves, drains
or loads. While files are on their way, that is what is told.
"""

import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec

from paddler.messages.worker import Progress

RATE_WINDOW_S: Final = 5.0
"""Bytes per second are an average over this long."""


class Phase(StrEnum):
    """What an agent may be doing."""

    IDLE = "idle"  # there is nothing to do
    DOWNLOADING = "downloading"
    WAITING_FOR_LOCK = "waiting_for_lock"  # another process on this machine downloads it
    DRAINING = "draining"  # running requests finish before a change of models
    LOADING = "loading"
    WARMING = "warming"
    SERVING = "serving"
    RETRYING = "retrying"  # something failed and is due again


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """One moment. Each number is there only in the phase that it belongs to."""

    phase: Phase = Phase.IDLE
    bytes_per_s: float | None = None
    seconds_left: float | None = None
    load_fraction: float | None = None  # 0 to 1


class ActivityBoard:
    """Owns the activity. ``watch`` callbacks run at once at each change."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._worker = Activity()
        self._files: Activity | None = None
        self._rate = Rate()
        self._watchers: list[Callable[[], object]] = []

    @property
    def now(self) -> Activity:
        """What is going on."""
        return self._files or self._worker

    def watch(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` after each change, synchronously."""
        self._watchers.append(callback)

    # --- the worker's side ---------------------------------------------------------------------

    def on_worker(self, phase: Phase) -> None:
        """The worker drains, begins to load, serves, waits for another try, or is not there."""
        is_loading = phase is Phase.LOADING
        self._set(self._files, Activity(phase=phase, load_fraction=0.0 if is_loading else None))

    def on_load_progress(self, progress: Progress) -> None:
        """How far the worker is with loading."""
        activity = Activity(phase=Phase(progress.phase), load_fraction=progress.fraction)
        self._set(self._files, activity)

    # --- the files' side -----------------------------------------------------------------------

    def on_received(self, received: int, total: int | None) -> None:
        """How much of a file is here."""
        rate = self._rate.after(self._clock(), received)
        left_s = (total - received) / rate if rate and total is not None else None
        activity = Activity(phase=Phase.DOWNLOADING, bytes_per_s=rate, seconds_left=left_s)
        self._set(activity, self._worker)

    def on_files(self, phase: Phase | None) -> None:
        """The files wait for a lock or another try; ``None``: there is nothing to bring."""
        self._rate = Rate()
        self._set(None if phase is None else Activity(phase=phase), self._worker)

    def _set(self, files: Activity | None, worker: Activity) -> None:
        if (files, worker) == (self._files, self._worker):
            return
        self._files, self._worker = files, worker
        for callback in self._watchers:
            callback()


class Rate:
    """Bytes per second over the last :data:`RATE_WINDOW_S`. Sans-IO."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def after(self, now: float, received: int) -> float | None:
        """The rate, given that ``received`` bytes are here; ``None`` while nobody can tell."""
        samples = self._samples
        if samples and received < samples[-1][1]:  # another file, or it starts over
            samples.clear()
        samples.append((now, received))
        while len(samples) > 2 and samples[1][0] <= now - RATE_WINDOW_S:
            samples.popleft()
        since, before = samples[0]
        return (received - before) / (now - since) if now > since else None
