"""The bounded line of requests that wait for a slot: first come, first served.

A newcomer never overtakes: while anybody waits, it goes to the end of the line. A request
whose agent was lost before its first token returns to where its arrival puts it.
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeAlias

from paddler.balancer.policy import Admission, admit
from paddler.balancer.pool import Agent, Lease, LinkT, Pool
from paddler.balancer.watched import Watched


class Refusal(Enum):
    """Why a request got no slot."""

    LINE_FULL = "line_full"
    SHARE_USED = "share_used"
    WAITED_TOO_LONG = "waited_too_long"
    STOPPING = "stopping"


Place: TypeAlias = asyncio.Future[Lease[LinkT] | Refusal]
Prefer: TypeAlias = Callable[[], Agent[LinkT] | None]
"""Asked at the claim, as agents come and go while one waits."""


class Ticket(Generic[LinkT]):
    """When a request arrived, and how long it may still wait, over all its waits.

    ``prefer``: tells which agent should have it, of those that are equally busy; ``None``: any.
    ``tenant``: whose it is.
    """

    __slots__ = ("number", "patience_s", "prefer", "tenant", "was_served")

    def __init__(
        self, number: int, patience_s: float, prefer: Prefer[LinkT] | None, tenant: str
    ) -> None:
        self.tenant = tenant
        self.number = number
        self.patience_s = patience_s
        self.prefer = prefer
        self.was_served = False


class Waitline(Watched, Generic[LinkT]):
    """Hands free slots of ``pool`` to those who wait; tells when :attr:`waiting` changes.

    ``limit``: requests that may wait. ``timeout_s``: longest stay. ``may_wait``: whether one
    more of a tenant may, of whom so many do.
    """

    def __init__(
        self,
        pool: Pool[LinkT],
        *,
        limit: int,
        timeout_s: float,
        may_wait: Callable[[str, int], bool] = lambda tenant, waiting: True,
    ) -> None:
        super().__init__()
        self._may_wait = may_wait
        self._pool = pool
        self._limit = limit
        self._timeout_s = timeout_s
        self._places: dict[Ticket[LinkT], Place[LinkT]] = {}
        self._tickets = 0
        self._is_serving = False
        self._is_stopped = False
        pool.watch(self._serve)

    @property
    def waiting(self) -> int:
        """Requests that wait right now."""
        return len(self._places)

    def take_ticket(self, prefer: Prefer[LinkT] | None = None, tenant: str = "") -> Ticket[LinkT]:
        """A place in the order of arrival; one for the whole life of a request."""
        self._tickets += 1
        return Ticket(self._tickets, self._timeout_s, prefer, tenant)

    async def wait_slot(self, ticket: Ticket[LinkT]) -> Lease[LinkT] | Refusal:
        """A slot, at once or after a wait, or why there is none.

        Cancelling gives the place back, and the slot too if it was handed over in the same
        moment.
        """
        if self._is_stopped:
            return Refusal.STOPPING
        # Mostly nobody waits.
        is_first = not self._places or all(other.number > ticket.number for other in self._places)
        if is_first and (lease := self._claim(ticket)) is not None:
            ticket.was_served = True
            return lease
        # Who lost a slot is let back in over the limit, unless nobody may wait at all.
        waiting = 0 if ticket.was_served else len(self._places)
        if admit(waiting=waiting, limit=self._limit) is Admission.REFUSE:
            return Refusal.LINE_FULL
        waiting = sum(other.tenant == ticket.tenant for other in self._places)
        if not ticket.was_served and not self._may_wait(ticket.tenant, waiting):
            return Refusal.SHARE_USED
        return await self._wait_in_line(ticket)

    def stop(self) -> None:
        """Send everybody away, now and from now on."""
        self._is_stopped = True
        for place in self._places.values():
            self._answer(place, Refusal.STOPPING)
        self._places.clear()
        self._changed()

    async def _wait_in_line(self, ticket: Ticket[LinkT]) -> Lease[LinkT] | Refusal:
        loop = asyncio.get_running_loop()
        place: Place[LinkT] = loop.create_future()
        self._places[ticket] = place
        self._changed()
        entered_at = loop.time()
        timer = loop.call_later(ticket.patience_s, self._answer, place, Refusal.WAITED_TOO_LONG)
        try:
            return await place
        except asyncio.CancelledError:
            answer = place.result() if place.done() and not place.cancelled() else None
            if isinstance(answer, Lease):
                answer.release()
            raise
        finally:
            timer.cancel()
            ticket.patience_s -= loop.time() - entered_at
            if self._places.pop(ticket, None) is not None:
                self._changed()

    def _serve(self) -> None:
        """Hand free slots out, oldest first. A claim changes the pool, which calls this again."""
        if self._is_serving:
            return
        self._is_serving = True
        try:
            served = False
            while self._places:
                ticket = min(self._places, key=lambda ticket: ticket.number)
                if self._places[ticket].done():  # timed out or cancelled, not yet gone
                    del self._places[ticket]
                elif (lease := self._claim(ticket)) is not None:
                    ticket.was_served = True
                    self._answer(self._places.pop(ticket), lease)
                else:
                    break
                served = True
        finally:
            self._is_serving = False
        if served:
            self._changed()

    def _claim(self, ticket: Ticket[LinkT]) -> Lease[LinkT] | None:
        return self._pool.claim(ticket.prefer() if ticket.prefer is not None else None)

    def _answer(self, place: Place[LinkT], answer: Lease[LinkT] | Refusal) -> None:
        if not place.done():
            place.set_result(answer)
