"""Whoever comes first wins; the others have ended when that is told."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from paddler.race import race


class Runner:
    """Runs until let go, and takes its time to end."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.ending = "running"

    async def run(self) -> str:
        try:
            await self.let_go.wait()
            self.ending = "finished"
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.ending = "cancelled"
            raise
        return self.ending


def run(test: Coroutine[Any, Any, None]) -> None:
    async def body() -> None:
        async with asyncio.timeout(10):
            await test

    asyncio.run(body())


def test_the_first_wins_and_the_others_have_ended() -> None:
    async def test() -> None:
        fast, slow = Runner(), Runner()
        fast.let_go.set()
        first, second = await race(fast.run(), slow.run())
        assert first.result() == "finished"
        assert second.cancelled()
        assert slow.ending == "cancelled"

    run(test())


def test_both_may_win() -> None:
    async def test() -> None:
        one, two = Runner(), Runner()
        one.let_go.set()
        two.let_go.set()
        assert [future.result() for future in await race(one.run(), two.run())] == ["finished"] * 2

    run(test())


def test_when_the_time_is_up_nobody_wins() -> None:
    async def test() -> None:
        runner = Runner()
        (future,) = await race(runner.run(), timeout_s=0)
        assert future.cancelled()
        assert runner.ending == "cancelled"

    run(test())


def test_a_cancelled_race_ends_everybody() -> None:
    async def test() -> None:
        runners = [Runner(), Runner()]
        task = asyncio.create_task(race(*(runner.run() for runner in runners)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert [runner.ending for runner in runners] == ["cancelled"] * 2

    run(test())


def test_a_failure_is_the_winners_to_tell() -> None:
    async def fail() -> None:
        raise ValueError("no")

    async def test() -> None:
        first, _ = await race(fail(), Runner().run())
        with pytest.raises(ValueError, match="no"):
            first.result()

    run(test())


def test_a_shielded_future_outlives_the_race() -> None:
    async def test() -> None:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        await race(asyncio.shield(future), asyncio.sleep(0))
        future.set_result("later")
        assert await future == "later"

    run(test())
