"""One request's life: wait for a slot, hand over to its agent, and see how it ends.

Tokens do not pass here: from the link's read to the client's write they stay in
``_fastpath``. This is the part that may wait.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from paddler._fastpath import Sink
from paddler.balancer.affinity import PrefixIndex, blocks_of
from paddler.balancer.link import (
    Agent,
    AgentLink,
    Completed,
    Concluded,
    Lost,
    Outlet,
    Pool,
    Stream,
    item_timeout,
)
from paddler.balancer.policy import may_fail_over
from paddler.balancer.records import RecordListener, RequestOutcome, RequestRecord
from paddler.balancer.tenants import STATUS, current_tenant
from paddler.balancer.waitline import Refusal, Waitline
from paddler.messages.inference import Failure, TokenUsage
from paddler.messages.link import Delivery, Job, Sampling

REFUSALS: Final = {
    Refusal.LINE_FULL: Failure(503, "Buffered requests overflow"),
    Refusal.WAITED_TOO_LONG: Failure(504, "Waiting for available slot timed out"),
    Refusal.STOPPING: Failure(503, "balancer is shutting down"),
    Refusal.SHARE_USED: Failure(
        STATUS, "this key has its share of requests that wait for a slot: try again later"
    ),
}

FAILURE_OUTCOMES: Final = {
    REFUSALS[Refusal.LINE_FULL].description: RequestOutcome.LINE_FULL,
    REFUSALS[Refusal.WAITED_TOO_LONG].description: RequestOutcome.WAITED_TOO_LONG,
    REFUSALS[Refusal.STOPPING].description: RequestOutcome.STOPPING,
    REFUSALS[Refusal.SHARE_USED].description: RequestOutcome.SHARE_USED,
}
# How embeddings end well.
EMBEDDING_DONE: Final = b'"Done"'
EMBEDDED: Final = (EMBEDDING_DONE, b'"NoEmbeddingsProduced"')

Outcome = Completed | Concluded | Failure


class Dispatcher:
    """Runs requests on the pool's agents. ``listeners`` are told how each of them went."""

    def __init__(
        self,
        pool: Pool,
        waitline: Waitline[AgentLink],
        *,
        item_timeout_s: float,
        listeners: Sequence[RecordListener] = (),
        prefixes: PrefixIndex | None = None,
    ) -> None:
        """``prefixes``: lets a prompt go where its beginning is held already."""
        self._prefixes = prefixes
        self._pool = pool
        self._waitline = waitline
        self._item_timeout_s = item_timeout_s
        self._listeners = listeners

    async def run(
        self,
        job: Job,
        outlet: Outlet,
        sampling: Sampling | None = None,
        delivery: Delivery | None = None,
        *,
        route: str,
    ) -> Outcome:
        """Serve one request through ``outlet`` and tell how it ended.

        Cancelling it means that the client is gone: the agent is told to stop, and the
        slot is free once it has confirmed, which nobody waits for here. ``route`` is what
        the request is counted under.
        """
        course = _Course(route, asyncio.get_running_loop())
        outcome: Outcome | None = None
        try:
            outcome = await self._serve(
                course, job, outlet, sampling or Sampling(), delivery or Delivery()
            )
            return outcome
        finally:
            record = course.record(outcome)
            for listener in self._listeners:
                listener(record)

    def stop(self) -> None:
        """End whatever waits or runs with its named error, now and from now on."""
        self._waitline.stop()
        for agent in self._pool.agents:
            agent.link.stop_all(REFUSALS[Refusal.STOPPING])

    async def _serve(
        self, course: "_Course", job: Job, outlet: Outlet, sampling: Sampling, delivery: Delivery
    ) -> Outcome:
        blocks = self._blocks_of(job)
        ticket = self._waitline.take_ticket(
            (lambda: self._preferred(blocks)) if blocks else None, current_tenant()
        )
        lost: Lost | None = None
        while True:
            course.begin_wait()
            try:
                lease = await self._waitline.wait_slot(ticket)
            finally:
                course.end_wait()
            if isinstance(lease, Refusal):
                if lost is not None and lease is not Refusal.STOPPING:
                    return Failure(502, lost.reason)  # no other agent took over
                return REFUSALS[lease]
            if self._item_timeout_s <= 0:
                lease.release()
                return item_timeout(self._item_timeout_s)
            if self._prefixes is not None and blocks:
                self._prefixes.note(blocks, lease.agent.id)
            link = lease.agent.link
            try:
                stream = link.start(lease, job, sampling, delivery, outlet, self._item_timeout_s)
            except RecursionError:
                return Failure(400, "the request is nested too deeply")
            sink = stream.sink  # a stopped stream has another
            try:
                ending = await stream.ended
            except asyncio.CancelledError:
                stream.stop(Failure(499, "the client is gone"))
                raise
            finally:
                course.on_stream(stream, sink)
            if not isinstance(ending, Lost):
                return ending
            was_heard = stream.was_heard or sink.tokens > 0
            if not may_fail_over(was_heard=was_heard, failovers=course.failovers):
                return Failure(502, ending.reason)
            lost = ending
            course.failovers += 1

    def _blocks_of(self, job: Job) -> list[int]:
        """None where there is nothing to choose from."""
        return blocks_of(job) if self._prefixes is not None and len(self._pool) > 1 else []

    def _preferred(self, blocks: Sequence[int]) -> "Agent | None":
        agent_id = self._prefixes.find(blocks) if self._prefixes is not None else None
        return None if agent_id is None else self._pool.find(agent_id)


class _Course:
    """What is noted of a request while it runs."""

    __slots__ = (
        "_began_at",
        "_loop",
        "_route",
        "_sink",
        "_waited_s",
        "_waits_since",
        "failovers",
        "first_at",
    )

    def __init__(self, route: str, loop: asyncio.AbstractEventLoop) -> None:
        self._route = route
        self._loop = loop
        self._began_at = self._waits_since = loop.time()
        self._waited_s = 0.0
        self._sink: Sink | None = None
        self.first_at: float | None = None
        self.failovers = 0

    def begin_wait(self) -> None:
        """Waiting for a slot begins."""
        self._waits_since = self._loop.time()

    def end_wait(self) -> None:
        """It ends, with or without a slot."""
        self._waited_s += self._loop.time() - self._waits_since

    def on_stream(self, stream: Stream, sink: Sink) -> None:
        """An agent has ended its part, or was told to."""
        self._sink = sink
        self.first_at = sink.first_token_at or stream.first_result_at

    def record(self, outcome: Outcome | None) -> RequestRecord:
        """How it went; no outcome: the client left."""
        usage = outcome.finished.usage if isinstance(outcome, Completed) else TokenUsage()
        sink = self._sink
        token_gap_s = None
        if sink is not None and sink.tokens > 1:
            token_gap_s = (sink.heard_at - sink.first_token_at) / (sink.tokens - 1)
        return RequestRecord(
            route=self._route,
            outcome=outcome_of(outcome),
            waited_s=self._waited_s,
            first_token_s=None if self.first_at is None else self.first_at - self._began_at,
            token_gap_s=token_gap_s,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_prompt_tokens,
            generated_tokens=usage.completion_tokens,
            failovers=self.failovers,
        )


def outcome_of(outcome: Outcome | None) -> RequestOutcome:
    """What an outcome is counted as."""
    match outcome:
        case None:
            return RequestOutcome.CANCELLED
        case Completed():
            return RequestOutcome.COMPLETED
        case Concluded():
            if outcome.payload in EMBEDDED:
                return RequestOutcome.COMPLETED
            return RequestOutcome.REJECTED if outcome.is_refusal else RequestOutcome.FAILED
        case Failure():
            return FAILURE_OUTCOMES.get(outcome.description) or {
                400: RequestOutcome.REJECTED,
                499: RequestOutcome.CANCELLED,
                504: RequestOutcome.STALLED,
            }.get(outcome.code, RequestOutcome.AGENT_LOST)
