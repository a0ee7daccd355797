"""What the tests of the network side share: both event loops, and a look for leftovers."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

TEST_TIMEOUT_S = 10.0

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each event loop; all tasks that it started must end, too."""
    new_loop = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    async def bounded(coroutine: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(TEST_TIMEOUT_S):
            await coroutine
            # What is under way may end, such as the accept of a connection just closed.
            while leftover := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(leftover)

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(bounded(coroutine))

    return run
