"""One request's life: wait for a slot, hand over to its agent, and see how it ends.

Tokens do not pass here: from the link's read to the client's write they stay in
``_fastpath``. This is the part that may wait.
"""

import asyncio
from typing import Final

from paddler.balancer.link import (
    AgentLink,
    Completed,
    Concluded,
    Lost,
    Outlet,
    Pool,
    item_timeout,
)
from paddler.balancer.policy import may_fail_over
from paddler.balancer.waitline import Refusal, Waitline
from paddler.messages.inference import Failure
from paddler.messages.link import Delivery, Job, Sampling

REFUSALS: Final = {
    Refusal.LINE_FULL: Failure(503, "Buffered requests overflow"),
    Refusal.WAITED_TOO_LONG: Failure(504, "Waiting for available slot timed out"),
    Refusal.STOPPING: Failure(503, "balancer is shutting down"),
}

Outcome = Completed | Concluded | Failure


class Dispatcher:
    """Runs requests on the pool's agents."""

    def __init__(self, pool: Pool, waitline: Waitline[AgentLink], *, item_timeout_s: float) -> None:
        self._pool = pool
        self._waitline = waitline
        self._item_timeout_s = item_timeout_s

    async def run(
        self,
        job: Job,
        outlet: Outlet,
        sampling: Sampling | None = None,
        delivery: Delivery | None = None,
    ) -> Outcome:
        """Serve one request through ``outlet`` and tell how it ended.

        Cancelling it means that the client is gone: the agent is told to stop, and the
        slot is free once it has confirmed, which nobody waits for here.
        """
        ticket = self._waitline.take_ticket()
        failovers = 0
        lost: Lost | None = None
        while True:
            lease = await self._waitline.wait_slot(ticket)
            if isinstance(lease, Refusal):
                if lost is not None and lease is not Refusal.STOPPING:
                    return Failure(502, lost.reason)  # no other agent took over
                return REFUSALS[lease]
            if self._item_timeout_s <= 0:
                lease.release()
                return item_timeout(self._item_timeout_s)
            link = lease.agent.link
            try:
                stream = link.start(
                    lease,
                    job,
                    sampling or Sampling(),
                    delivery or Delivery(),
                    outlet,
                    self._item_timeout_s,
                )
            except RecursionError:
                return Failure(400, "the request is nested too deeply")
            sink = stream.sink  # a stopped stream has another
            try:
                ending = await stream.ended
            except asyncio.CancelledError:
                stream.stop(Failure(499, "the client is gone"))
                raise
            if not isinstance(ending, Lost):
                return ending
            was_heard = stream.was_heard or sink.tokens > 0
            if not may_fail_over(was_heard=was_heard, failovers=failovers):
                return Failure(502, ending.reason)
            lost = ending
            failovers += 1

    def stop(self) -> None:
        """End whatever waits or runs with its named error, now and from now on."""
        self._waitline.stop()
        for agent in self._pool.agents:
            agent.link.stop_all(REFUSALS[Refusal.STOPPING])
