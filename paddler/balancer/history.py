"""The last minutes of the fleet, a sample a second, for whoever comes to look."""

import asyncio
import time
from collections import deque
from typing import Final

import msgspec

from paddler.balancer.link import AgentLink, Pool
from paddler.balancer.records import RequestRecord
from paddler.balancer.waitline import Waitline
from paddler.balancer.watched import Watched

INTERVAL_S: Final = 1.0
MAX_SAMPLES: Final = 900
"""A quarter of an hour."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One second. ``at``: its end, in seconds since 1970."""

    at: float
    slots_busy: int
    slots_total: int
    waiting: int
    tokens: int
    first_token_ms: float | None
    """Of the requests that ended, on average; ``None``: there was none."""
    requests: int
    errors: int


class History(Watched):
    """Keeps the samples, and tells of each new one."""

    def __init__(self, pool: Pool, waitline: Waitline[AgentLink]) -> None:
        super().__init__()
        self._pool = pool
        self._waitline = waitline
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self.taken = 0
        """Samples since the start."""
        self._tokens_before: dict[AgentLink, int] = {}
        self._first_tokens_s: list[float] = []
        self._requests = 0
        self._errors = 0

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Oldest first."""
        return tuple(self._samples)

    def on_record(self, record: RequestRecord) -> None:
        """Count a request that ended."""
        self._requests += 1
        self._errors += record.outcome.is_error
        if record.first_token_s is not None:
            self._first_tokens_s.append(record.first_token_s)

    def take(self, at: float) -> Sample:
        """Close the second that ends at ``at``."""
        first_tokens_s, self._first_tokens_s = self._first_tokens_s, []
        sample = Sample(
            at=round(at, 3),
            slots_busy=self._pool.slots_busy,
            slots_total=self._pool.slots_total,
            waiting=self._waitline.waiting,
            tokens=self._count_tokens(),
            first_token_ms=round(sum(first_tokens_s) / len(first_tokens_s) * 1000, 1)
            if first_tokens_s
            else None,
            requests=self._requests,
            errors=self._errors,
        )
        self._requests = self._errors = 0
        self._samples.append(sample)
        self.taken += 1
        self._changed()
        return sample

    async def run(self) -> None:
        """Take a sample every second, until cancelled."""
        loop = asyncio.get_running_loop()
        due_at = loop.time() + INTERVAL_S
        while True:
            await asyncio.sleep(due_at - loop.time())
            self.take(time.time())
            # A second that was missed is not made up for.
            due_at = max(due_at + INTERVAL_S, loop.time())

    def _count_tokens(self) -> int:
        """Tokens passed on since the last time, on the links that are there."""
        now = {agent.link: agent.link.tokens for agent in self._pool.agents}
        count = sum(tokens - self._tokens_before.get(link, 0) for link, tokens in now.items())
        self._tokens_before = now
        return count
