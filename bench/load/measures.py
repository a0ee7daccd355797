"""What a run has measured so far."""

import time
from collections import Counter
from typing import Final

import msgspec

from bench.load.call import Call
from bench.load.histogram import Histogram
from bench.processor_time import processor_s, stolen_s

MAX_MOMENTS: Final = 240
"""Of the course over time: beyond it, two become one."""


class Moment(msgspec.Struct, kw_only=True):
    """What was seen in one stretch of time. ``at_s`` is its end, from the run's beginning."""

    at_s: float
    length_s: float
    tokens: int
    finished: int
    failed: int
    in_flight: int
    first_p50_s: float
    first_p99_s: float


class Measures:
    """Histograms and counts. Everything is bounded, however long the run."""

    def __init__(self, watched_pid: int | None = None) -> None:
        self._watched_pid = watched_pid
        self.watched_cpu_s: float | None = None
        """Processor time of the watched process in the window; ``None``: none was watched."""
        self.first = Histogram()
        self.gap = Histogram()
        self.whole = Histogram()
        self.age = Histogram()
        self.queued = Histogram()
        """From the intended start of a request to its sending: what the generator adds."""
        self.lag = Histogram()
        """How late the generator's own timer was."""
        self.moments: list[Moment] = []
        self._recent_first = Histogram()
        self.reset()

    def reset(self) -> None:
        """Begin anew: the warm-up is over."""
        for histogram in (self.first, self.gap, self.whole, self.age, self.queued, self.lag):
            histogram.reset()
        self.errors: Counter[str] = Counter()
        self.started = self.finished = self.cut = self.unanswered = 0
        self._whole_tokens = 0
        self.began_at = time.monotonic()
        self._cpu_at = time.process_time()
        self._watched_at = self._watched_s()
        self._stolen_at = stolen_s()
        self.moments.clear()
        self._last: tuple[float, int, int, int] = (self.began_at, 0, 0, 0)
        self.window_s = self.cpu_s = self.stolen_s = 0.0
        self.window_tokens = self.window_finished = 0

    @property
    def tokens(self) -> int:
        """Tokens that have come."""
        return self._whole_tokens + self.gap.count + self.first.count

    @property
    def failed(self) -> int:
        """Requests that ended in an error."""
        return self.errors.total()

    def on_first(self, seconds: float) -> None:
        """A first token has come."""
        self.first.record(seconds)
        self._recent_first.record(seconds)

    def on_end(self, call: Call) -> None:
        """A request has ended."""
        if call.error is not None:
            self.errors[call.error] += 1  # also of one that began in the warm-up: it broke now
            return
        if call.intended_at < self.began_at:
            return  # of the warm-up
        self.finished += 1
        self.whole.record(call.ended_at - call.intended_at)
        if call.sent_at:
            self.queued.record(call.sent_at - call.intended_at)
        if call.tokens and call.first_at == call.ended_at:  # told in one document
            self._whole_tokens += call.tokens - 1

    def on_cut(self, *, is_answered: bool, count: int = 1) -> None:
        """The run has ended while ``count`` requests were under way."""
        self.cut += count
        if not is_answered:
            self.unanswered += count

    def tick(self, in_flight: int) -> Moment:
        """Note the course since the last tick, and give it."""
        at, tokens, finished, failed = self._last
        now = time.monotonic()
        self._last = (now, self.tokens, self.finished, self.failed)
        p50, p99 = self._recent_first.percentiles_s((50, 99))
        self._recent_first.reset()
        moment = Moment(
            at_s=now - self.began_at,
            length_s=now - at,
            tokens=self.tokens - tokens,
            finished=self.finished - finished,
            failed=self.failed - failed,
            in_flight=in_flight,
            first_p50_s=p50,
            first_p99_s=p99,
        )
        self.moments.append(moment)
        if len(self.moments) > MAX_MOMENTS:
            pairs = zip(self.moments[::2], self.moments[1::2], strict=False)
            self.moments = [_joined(a, b) for a, b in pairs]
        return moment

    def close_window(self) -> None:
        """Rates are of what has come until now; what is still under way counts elsewhere."""
        self.window_s = time.monotonic() - self.began_at
        self.cpu_s = time.process_time() - self._cpu_at
        if (watched_s := self._watched_s()) is not None and self._watched_at is not None:
            self.watched_cpu_s = watched_s - self._watched_at
        self.stolen_s = stolen_s() - self._stolen_at
        self.window_tokens, self.window_finished = self.tokens, self.finished

    def _watched_s(self) -> float | None:
        try:
            return None if self._watched_pid is None else processor_s(self._watched_pid)
        except OSError:
            return None  # it has ended


def _joined(first: Moment, second: Moment) -> Moment:
    return Moment(
        at_s=second.at_s,
        length_s=first.length_s + second.length_s,
        tokens=first.tokens + second.tokens,
        finished=first.finished + second.finished,
        failed=first.failed + second.failed,
        in_flight=second.in_flight,
        first_p50_s=max(first.first_p50_s, second.first_p50_s),
        first_p99_s=max(first.first_p99_s, second.first_p99_s),
    )
