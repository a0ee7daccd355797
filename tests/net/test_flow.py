"""Backpressure as writers see it."""

import asyncio

import pytest

from paddler.net.flow import FlowControl
from tests.net.conftest import Run


def test_listeners_are_told_of_each_change_until_forgotten() -> None:
    flow = FlowControl()
    told: list[bool] = []
    flow.on_change(told.append)
    flow.pause()
    flow.resume()
    flow.forget(told.append)
    flow.forget(told.append)
    flow.pause()
    assert told == [True, False]
    assert flow.is_paused


def test_drain_returns_at_once_unless_paused(run: Run) -> None:
    run(FlowControl().drain())


def test_drain_waits_for_the_reader(run: Run) -> None:
    async def check() -> None:
        flow = FlowControl()
        flow.pause()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(flow.drain())
            cancelled = group.create_task(flow.drain())
            await asyncio.sleep(0)
            assert not waiting.done()
            cancelled.cancel()
            flow.resume()

    run(check())


@pytest.mark.parametrize("pauses", [True, False])
def test_drain_of_a_lost_connection_is_an_error(run: Run, pauses: bool) -> None:
    async def check() -> None:
        flow = FlowControl()
        if pauses:
            flow.pause()
        waiting = asyncio.ensure_future(flow.drain())
        if pauses:
            await asyncio.sleep(0)
        flow.close()
        with pytest.raises(ConnectionResetError):
            await waiting

    run(check())
