"""The bounded line of requests that wait for a slot: first come, first served.

A newcomer never overtakes: while anybody waits, it goes to the end of the line. A request
whose agent was lost before its first token returns to the front, since it came first.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeAlias

from paddler.balancer.policy import Admission, admit
from paddler.balancer.pool import Lease, LinkT, Pool


class Refusal(Enum):
    """Why a request got no slot."""

    LINE_FULL = "line_full"
    WAITED_TOO_LONG = "waited_too_long"
    STOPPING = "stopping"


Place: TypeAlias = asyncio.Future[Lease[LinkT] | Refusal]


class Waitline(Generic[LinkT]):
    """Hands free slots of ``pool`` to those who wait. Counts everybody who waits for one.

    ``limit``: requests that may wait. ``timeout_s``: longest stay.
    """

    def __init__(self, pool: Pool[LinkT], *, limit: int, timeout_s: float) -> None:
        self._pool = pool
        self._limit = limit
        self._timeout_s = timeout_s
        self._places: deque[Place[LinkT]] = deque()
        self._is_serving = False
        self._is_stopped = False
        self._watchers: list[Callable[[], None]] = []
        pool.watch(self._serve)

    @property
    def waiting(self) -> int:
        """Requests that wait right now."""
        return len(self._places)

    def watch(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after every change of :attr:`waiting`."""
        self._watchers.append(callback)

    async def wait_slot(self, *, goes_first: bool = False) -> Lease[LinkT] | Refusal:
        """A slot, at once or after a wait, or why there is none.

        ``goes_first``: a request that had a slot and lost it. Cancelling gives the place
        back, and the slot too if it was handed over in the same moment.
        """
        if self._is_stopped:
            return Refusal.STOPPING
        if (goes_first or not self._places) and (lease := self._pool.claim()) is not None:
            return lease
        # Whoever lost a slot is let back in over the limit, unless nobody may wait at all.
        waiting = 0 if goes_first else len(self._places)
        if admit(waiting=waiting, limit=self._limit) is Admission.REFUSE:
            return Refusal.LINE_FULL
        return await self._wait_in_line(goes_first=goes_first)

    def stop(self) -> None:
        """Send everybody away, now and from now on."""
        self._is_stopped = True
        while self._places:
            self._answer(self._places.popleft(), Refusal.STOPPING)
        self._changed()

    async def _wait_in_line(self, *, goes_first: bool) -> Lease[LinkT] | Refusal:
        loop = asyncio.get_running_loop()
        place: Place[LinkT] = loop.create_future()
        if goes_first:
            self._places.appendleft(place)
        else:
            self._places.append(place)
        self._changed()
        timer = loop.call_later(self._timeout_s, self._answer, place, Refusal.WAITED_TOO_LONG)
        try:
            return await place
        except asyncio.CancelledError:
            if (
                place.done()
                and not place.cancelled()
                and isinstance(lease := place.result(), Lease)
            ):
                lease.release()
            raise
        finally:
            timer.cancel()
            if place in self._places:
                self._places.remove(place)
                self._changed()

    def _serve(self) -> None:
        """Hand free slots out, front first. A claim changes the pool, which calls this again."""
        if self._is_serving:
            return
        self._is_serving = True
        try:
            served = False
            while self._places:
                if self._places[0].done():  # timed out or cancelled, not yet gone
                    self._places.popleft()
                elif (lease := self._pool.claim()) is not None:
                    self._answer(self._places.popleft(), lease)
                else:
                    break
                served = True
        finally:
            self._is_serving = False
        if served:
            self._changed()

    def _answer(self, place: Place[LinkT], answer: Lease[LinkT] | Refusal) -> None:
        if not place.done():
            place.set_result(answer)

    def _changed(self) -> None:
        for callback in self._watchers:
            callback()
