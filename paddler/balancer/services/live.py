"""Live streams of server-sent events: what changes is told to whoever subscribed.

A subscriber that reads slowly misses steps, not news: it gets what is new when it is
ready for more. It holds up nobody, and what is unsent to it stays bounded.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from paddler.balancer.history import History
from paddler.balancer.journal import Journal
from paddler.balancer.watched import Watched
from paddler.net.connection import Exchange
from paddler.proto import sse

KEEP_ALIVE_S: Final = 10.0
# Of the time that making a snapshot takes, so that many changes of a large fleet cannot
# keep the balancer busy with telling them.
PACE: Final = 4.0

encode = msgspec.json.Encoder().encode


class Feed(Protocol):
    """What a stream tells. ``cursor``: how far a subscriber has read."""

    @property
    def pace_s(self) -> float:
        """How long a subscriber has to wait between two reads."""
        ...

    @property
    def source(self) -> Watched:
        """Where news comes from."""
        ...

    def read(self, cursor: int) -> tuple[bytes, int]:
        """The events behind ``cursor``, encoded, and the new cursor; empty: nothing is new."""
        ...


class SnapshotFeed:
    """The newest state of something, whole, at each change. Encoded once for all subscribers."""

    def __init__(self, source: Watched, snapshot: Callable[[], Any]) -> None:
        self._snapshot = snapshot
        self._version = 0
        self._encoded = b""
        self._encoded_version = -1
        self.pace_s = 0.0
        self.source = source
        source.watch(self._on_change)

    def read(self, cursor: int) -> tuple[bytes, int]:
        """The newest snapshot, unless it is the one that was read last."""
        if cursor == self._version:
            return b"", cursor
        if self._encoded_version != self._version:
            began_at = time.perf_counter()
            self._encoded = sse.encode_event(encode(self._snapshot()))
            self.pace_s = PACE * (time.perf_counter() - began_at)
            self._encoded_version = self._version
        return self._encoded, self._version

    def _on_change(self) -> None:
        self._version += 1


class JournalFeed:
    """Each event of the journal, with its id."""

    pace_s = 0.0

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.source = journal

    def read(self, cursor: int) -> tuple[bytes, int]:
        """The events since the one with this id."""
        events = self._journal.after(cursor)
        encoded = [sse.encode_event(encode(event), event_id=event.id) for event in events]
        return b"".join(encoded), self._journal.last_id


class HistoryFeed:
    """Each new sample."""

    pace_s = 0.0

    def __init__(self, history: History) -> None:
        self._history = history
        self.source = history

    def read(self, cursor: int) -> tuple[bytes, int]:
        """The samples since the ``cursor``-th."""
        samples, taken = self._history.samples, self._history.taken
        new = samples[max(0, len(samples) - (taken - cursor)) :] if taken > cursor else ()
        return b"".join(sse.encode_event(encode(sample)) for sample in new), taken


class LiveStreams:
    """All open streams of the balancer; they end at once when it stops."""

    def __init__(self) -> None:
        self._wakers: set[asyncio.Event] = set()
        self._is_closed = False

    def close(self) -> None:
        """End all streams, now and from now on."""
        self._is_closed = True
        for waker in self._wakers:
            waker.set()

    async def serve(self, exchange: Exchange, feed: Feed, *, cursor: int = -1) -> None:
        """Tell one subscriber what is new, until it leaves or the balancer stops."""
        exchange.start(200, "text/event-stream", (("cache-control", "no-cache"),))
        waker = asyncio.Event()

        def wake(*_: object) -> None:
            waker.set()

        self._wakers.add(waker)
        exchange.flow.on_change(wake)
        feed.source.watch(wake)
        try:
            while not self._is_closed:
                waker.clear()
                if not exchange.flow.is_paused:
                    data, cursor = feed.read(cursor)
                    if data:
                        exchange.write(data)
                        await asyncio.sleep(feed.pace_s)
                await self._wait(waker, exchange)
            exchange.finish()
        finally:
            self._wakers.discard(waker)
            exchange.flow.forget(wake)
            feed.source.unwatch(wake)

    async def _wait(self, waker: asyncio.Event, exchange: Exchange) -> None:
        """Return when there may be news; meanwhile show that the stream is alive."""
        while True:
            try:
                await asyncio.wait_for(waker.wait(), KEEP_ALIVE_S)
            except TimeoutError:
                if not exchange.flow.is_paused:
                    exchange.write(sse.KEEP_ALIVE)
            else:
                return
