"""Real signals to this process, caught by the block under test."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from paddler.signals import STOP_SIGNALS, StopSignals, stop_signals


@pytest.fixture(autouse=True)
def usual_hangup() -> Iterator[None]:
    """As if these tests were not run by ``nohup``, which they may be."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Drain:
    """Work that ends when it is let go, and knows whether it was cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.let_go = asyncio.Event()
        self.ending = "running"

    async def run(self) -> None:
        self.started.set()
        try:
            await self.let_go.wait()
            self.ending = "finished"
        except asyncio.CancelledError:
            self.ending = "cancelled"
            raise


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_ends_the_wait(number: signal.Signals) -> None:
    async def run() -> None:
        async with asyncio.timeout(5), StopSignals() as signals:
            os.kill(os.getpid(), number)
            await signals.wait()

    asyncio.run(run())


def test_a_terminal_that_goes_away_is_no_concern_of_nohup() -> None:
    assert signal.SIGHUP in stop_signals()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert stop_signals() == [signal.SIGTERM, signal.SIGINT]

    async def run() -> None:
        async with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            await signals.wait()
            await signals.unless_again(asyncio.sleep(0))

    asyncio.run(run())
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_the_drain_may_finish_after_one_signal() -> None:
    async def run() -> None:
        async with asyncio.timeout(5), StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            await signals.wait()
            drain = Drain()
            drain.let_go.set()
            await signals.unless_again(drain.run())
            assert drain.ending == "finished"

    asyncio.run(run())


def test_a_second_signal_cancels_the_drain() -> None:
    async def run() -> None:
        async with asyncio.timeout(5), StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            await signals.wait()
            drain = Drain()
            draining = asyncio.create_task(signals.unless_again(drain.run()))
            await drain.started.wait()
            os.kill(os.getpid(), signal.SIGINT)
            await draining
            while drain.ending == "running":
                await asyncio.sleep(0)
            assert drain.ending == "cancelled"

    asyncio.run(run())


def test_a_drain_that_fails_is_told() -> None:
    async def fail() -> None:
        raise ValueError("cannot drain")

    async def run() -> None:
        async with StopSignals() as signals:
            with pytest.raises(ValueError, match="cannot drain"):
                await signals.unless_again(fail())

    asyncio.run(run())


def test_signals_have_their_usual_meaning_again_afterwards() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]

    async def run() -> None:
        async with StopSignals():
            assert [signal.getsignal(number) for number in STOP_SIGNALS] != before

    asyncio.run(run())
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
