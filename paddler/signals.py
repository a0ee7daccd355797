"""Stop signals of a process: the first asks it to drain, a second ends it at once."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self

from paddler.race import race

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stop_signals() -> list[signal.Signals]:
    """Those that this process is to obey: ``nohup`` has it outlive its terminal."""
    is_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOP_SIGNALS if not (is_nohup and number is signal.SIGHUP)]


class StopSignals:
    """Catches the stop signals within its ``async with`` block."""

    def __init__(self) -> None:
        self._caught: list[signal.Signals] = []
        self._count = 0
        self._first = asyncio.Event()
        self._second = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._caught = stop_signals()
        for number in self._caught:
            loop.add_signal_handler(number, self._on_signal)
        return self

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in self._caught:
            loop.remove_signal_handler(number)

    def on_hangup(self, act: Callable[[], None]) -> None:
        """Have SIGHUP mean something else than to stop."""
        if signal.SIGHUP in self._caught:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, act)

    async def wait(self) -> None:
        """Return when the process is told to stop."""
        await self._first.wait()

    async def unless_again(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work``; a second signal cancels it."""
        drain, _ = await race(work, self._second.wait())
        if not drain.cancelled():
            drain.result()

    def _on_signal(self) -> None:
        self._count += 1
        (self._first if self._count == 1 else self._second).set()
