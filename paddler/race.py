"""Waiting for whichever of several things comes first."""

import asyncio
from asyncio import Future
from collections.abc import Awaitable
from typing import Any


async def race(*contenders: Awaitable[Any], timeout_s: float | None = None) -> list[Future[Any]]:
    """Wait until one has ended or the time is up, cancel the others, and wait for their end.

    Gives a future for each, in the same order: ``cancelled()`` tells who lost. All have ended
    then, and also when this is cancelled. A future that must outlive the race is to be
    shielded.
    """
    futures: list[Future[Any]] = [asyncio.ensure_future(contender) for contender in contenders]
    try:
        await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in futures:
            future.cancel()
        await asyncio.wait(futures)  # Unlike awaiting them, tells their end from ours.
    return futures
