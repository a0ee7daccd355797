"""Whether the peer reads as fast as we write."""

import asyncio
from collections.abc import Callable


class FlowControl:
    """What a transport says about its write buffer, for whoever writes to it.

    Synchronous writers look at ``is_paused`` or ask to be told with ``on_change``;
    coroutines wait in ``drain``.
    """

    __slots__ = ("_is_closed", "_listeners", "_waiters", "is_paused")

    def __init__(self) -> None:
        self.is_paused = False
        """Whether the transport holds more unsent bytes than its high mark."""
        self._is_closed = False
        self._listeners: dict[Callable[[bool], object], None] = {}  # as an ordered set
        self._waiters: list[asyncio.Future[None]] = []

    def on_change(self, listener: Callable[[bool], object]) -> None:
        """Call ``listener(is_paused)`` at each change, until ``forget``."""
        self._listeners[listener] = None

    def forget(self, listener: Callable[[bool], object]) -> None:
        """Undo ``on_change``; unknown listeners are fine."""
        self._listeners.pop(listener, None)

    async def drain(self) -> None:
        """Wait while paused. ``ConnectionResetError``: the connection is gone."""
        while self.is_paused and not self._is_closed:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self._is_closed:
            raise ConnectionResetError("the connection is gone")

    def pause(self) -> None:
        """The transport is above its high mark."""
        self._set_paused(True)

    def resume(self) -> None:
        """The transport is below its low mark again."""
        self._set_paused(False)
        self._wake()

    def close(self) -> None:
        """The connection is gone: nobody waits any longer."""
        self._is_closed = True
        self._listeners.clear()
        self._wake()

    def _set_paused(self, is_paused: bool) -> None:
        self.is_paused = is_paused
        for listener in tuple(self._listeners):
            listener(is_paused)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():  # cancelled, but not yet run
                waiter.set_result(None)
