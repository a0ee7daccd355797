"""The one event stream of a panel's tab: everything at connect, then what changes.

Changes are gathered into steps, at most one every ``STEP_INTERVAL_S``, each encoded once for
all tabs. The last steps are kept. A tab that is further behind than they reach, because it
is new or reads slowly, gets everything instead: it misses steps, never news.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar

import msgspec

from paddler import __version__
from paddler.balancer.desired_state import DesiredStateStore
from paddler.balancer.history import INTERVAL_S, MAX_SAMPLES, History
from paddler.balancer.journal import MAX_EVENTS, Journal
from paddler.balancer.link import Agent, AgentLink, Pool
from paddler.balancer.services.live import LiveStreams
from paddler.balancer.waitline import Waitline
from paddler.balancer.watched import Watched
from paddler.messages import panel as wire
from paddler.messages.agents import AgentSnapshot
from paddler.messages.state import ApplicableState, fingerprint
from paddler.net.connection import Exchange
from paddler.net.http import Router
from paddler.proto import sse

STEP_INTERVAL_S: Final = 0.2
# With a large fleet, at most a fraction of the time goes into telling of it.
PACE: Final = 10.0
MAX_KEPT_STEPS: Final = 50
MAX_KEPT_BYTES: Final = 1024 * 1024
# Agents tell their details every 5 s at least, and are lost after 10 s.
SILENT_AFTER_S: Final = 7.0

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

encode = msgspec.json.Encoder().encode


class PanelFeed(Watched):
    """What the stream tells. Costs nothing while nobody listens."""

    pace_s = 0.0  # steps have their own

    def __init__(
        self,
        pool: Pool,
        waitline: Waitline[AgentLink],
        state: DesiredStateStore,
        journal: Journal,
        history: History,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._pool = pool
        self._waitline = waitline
        self._state = state
        self._journal = journal
        self._history = history
        self._clock = clock
        self._is_due = False  # a step is, or will be made
        self._next_at = 0.0
        self._version = 0
        self._steps: deque[bytes] = deque()  # those up to _version
        self._kept_bytes = 0
        self._whole = b""
        self._whole_version = -1
        # What was told last.
        self._agents: dict[str, AgentSnapshot] = {}
        self._facts: dict[str, wire.AgentFacts] = {}
        self._rates: dict[str, float] = {}
        self._waiting = -1
        self._told_state: ApplicableState | None = None
        self._last_event = 0
        self._taken = 0
        # What rates are made of.
        self._rates_taken = -1
        self._rates_at = 0.0
        self._tokens: dict[AgentLink, int] = {}
        for source in (pool, waitline, journal, history):
            source.watch(self._on_change)
        state.watch(self._on_change)

    @property
    def source(self) -> "PanelFeed":
        """Where news comes from: its own steps."""
        return self

    def read(self, cursor: int) -> tuple[bytes, int]:
        """The steps behind ``cursor``, or everything where they no longer reach back to it."""
        behind = self._version - cursor
        if cursor < 0 or behind > len(self._steps):
            return self._read_whole(), self._version
        if behind == 0:
            return b"", cursor
        return b"".join(list(self._steps)[-behind:]), self._version

    def _on_change(self) -> None:
        if self._is_due or not self._watchers:
            return
        self._is_due = True
        loop = asyncio.get_running_loop()
        loop.call_at(max(self._next_at, loop.time()), self._on_due)

    def _on_due(self) -> None:
        self._is_due = False
        if not self._watchers:
            return
        began_at = time.perf_counter()
        self._step()
        took_s = time.perf_counter() - began_at
        self._next_at = asyncio.get_running_loop().time() + max(STEP_INTERVAL_S, PACE * took_s)

    def _step(self) -> None:
        """Gather what changed since the last step; tell it, if there is anything."""
        step = self._gather(is_whole=False)
        if not step:
            return
        self._version += 1
        self._steps.append(step)
        self._kept_bytes += len(step)
        while len(self._steps) > MAX_KEPT_STEPS or self._kept_bytes > MAX_KEPT_BYTES:
            self._kept_bytes -= len(self._steps.popleft())
        self._changed()

    def _read_whole(self) -> bytes:
        if self._whole_version != self._version or len(self._watchers) == 1:
            # Who is alone gets it fresh: no steps were made for nobody.
            self._step()
            self._whole = self._gather(is_whole=True)
            self._whole_version = self._version
        return self._hello() + self._whole

    def _hello(self) -> bytes:
        return _event(
            "hello",
            wire.Hello(
                version=__version__,
                now=round(self._clock(), 3),
                interval_s=INTERVAL_S,
                max_samples=MAX_SAMPLES,
                max_events=MAX_EVENTS,
            ),
        )

    def _gather(self, *, is_whole: bool) -> bytes:
        parts = [
            self._gather_agents(is_whole),
            self._gather_facts(is_whole),
            self._gather_rates(is_whole),
            self._gather_buffer(is_whole),
            self._gather_state(is_whole),
            self._gather_samples(is_whole),
            self._gather_events(is_whole),
        ]
        return b"".join(parts)

    def _gather_agents(self, is_whole: bool) -> bytes:
        now = {agent.id: agent for agent in self._pool.snapshot().agents}
        before, self._agents = self._agents, now
        changed = list(now.values()) if is_whole else _changed_values(before, now)
        gone = [] if is_whole else [agent_id for agent_id in before if agent_id not in now]
        if not (is_whole or changed or gone):
            return b""
        return _event("agents", wire.AgentsChange(is_whole=is_whole, changed=changed, gone=gone))

    def _gather_facts(self, is_whole: bool) -> bytes:
        before = self._facts
        now = {agent.id: self._facts_of(agent) for agent in self._pool.agents}
        self._facts = now
        changed = list(now.values()) if is_whole else _changed_values(before, now)
        if not (is_whole or changed):
            return b""
        return _event("facts", wire.FactsChange(is_whole=is_whole, changed=changed))

    def _facts_of(self, agent: Agent) -> wire.AgentFacts:
        connected_s, last_seen_s = agent.link.ages()
        before = self._facts.get(agent.id)
        connected_at = self._clock() - connected_s
        # The two clocks drift apart by a little; a connection does not.
        if before is not None and abs(before.connected_at - connected_at) < 1:
            connected_at = before.connected_at
        return wire.AgentFacts(
            id=agent.id,
            version=agent.version,
            address=agent.address,
            is_drained=self._pool.is_drained(agent),
            connected_at=round(connected_at, 3),
            is_silent=last_seen_s > SILENT_AFTER_S,
            details=agent.details,
        )

    def _gather_rates(self, is_whole: bool) -> bytes:
        before = self._rates
        if self._rates_taken != self._history.taken:
            self._rates = self._measure_rates()
            self._rates_taken = self._history.taken
        changed = (
            self._rates
            if is_whole
            else {
                agent_id: rate
                for agent_id, rate in self._rates.items()
                if before.get(agent_id) != rate
            }
        )
        if not (is_whole or changed):
            return b""
        return _event("rates", wire.Rates(is_whole=is_whole, tokens_per_s=changed))

    def _measure_rates(self) -> dict[str, float]:
        """Tokens per second of each agent since the last sample that was told."""
        at = asyncio.get_running_loop().time()  # not the clock, which may jump
        elapsed_s = max(at - self._rates_at, INTERVAL_S / 2)
        before = self._tokens
        self._tokens = {agent.link: agent.link.tokens for agent in self._pool.agents}
        self._rates_at = at
        return {
            agent.id: round((agent.link.tokens - before[agent.link]) / elapsed_s, 1)
            for agent in self._pool.agents
            if agent.link in before
        }

    def _gather_buffer(self, is_whole: bool) -> bytes:
        waiting = self._waitline.waiting
        if waiting == self._waiting and not is_whole:
            return b""
        self._waiting = waiting
        return _event("buffer", wire.BufferLevel(waiting=waiting))

    def _gather_state(self, is_whole: bool) -> bytes:
        state = self._state.applicable
        if state == self._told_state and not is_whole:
            return b""
        self._told_state = state
        summary = wire.StateSummary(
            fingerprint=fingerprint(state),
            model=msgspec.to_builtins(state.model),
            multimodal_projection=msgspec.to_builtins(state.multimodal_projection),
            enable_embeddings=state.inference_parameters.enable_embeddings,
            uses_chat_template_override=state.chat_template_override is not None,
        )
        return _event("state", summary)

    def _gather_samples(self, is_whole: bool) -> bytes:
        samples, new = self._history.samples, self._history.taken - self._taken
        self._taken = self._history.taken
        told = samples if is_whole else samples[max(0, len(samples) - new) :] if new else ()
        if not (is_whole or told):
            return b""
        return _event("samples", wire.Samples(is_whole=is_whole, samples=list(told)))

    def _gather_events(self, is_whole: bool) -> bytes:
        events = self._journal.after(0 if is_whole else self._last_event)
        self._last_event = self._journal.last_id
        if not (is_whole or events):
            return b""
        return _event("events", wire.Events(is_whole=is_whole, events=list(events)))


class PanelStreamService:
    """The route of the stream."""

    def __init__(self, feed: PanelFeed, streams: LiveStreams) -> None:
        self._feed = feed
        self._streams = streams

    def add_routes(self, router: Router) -> None:
        """Register the route."""
        router.add("GET", "/api/v1/panel/stream", self.stream)

    async def stream(self, exchange: Exchange) -> None:
        """``GET /api/v1/panel/stream``."""
        await self._streams.serve(exchange, self._feed)


def _changed_values(before: dict[K, V], now: dict[K, V]) -> list[V]:
    """The values that are new or other than before."""
    return [value for key, value in now.items() if before.get(key) != value]


def _event(name: str, data: Any) -> bytes:
    return sse.encode_event(encode(data), event=name)
