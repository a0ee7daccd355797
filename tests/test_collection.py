"""Garbage is looked for seldom, which is fine as long as requests leave none behind."""

import asyncio
import gc
import json

import pytest

from bench.scripted.fleet import ScriptedFleet
from bench.scripted.script import Script
from paddler.collection import THRESHOLDS, collect_seldom
from paddler.config import Address
from tests.balancer.services.running import JSON_TYPE, Running, on_balancer, request

CHAT = "/v1/chat/completions"


def test_what_a_process_begins_with_is_not_looked_at_again() -> None:
    before = gc.get_threshold()
    try:
        collect_seldom()
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


@pytest.mark.parametrize("leaves_early", [False, True])
def test_streams_leave_no_objects_that_refer_to_themselves(leaves_early: bool) -> None:
    async def stream(running: Running) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.openai)
        body = {"model": "any", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
        writer.write(request("POST", CHAT, json.dumps(body).encode(), JSON_TYPE))
        await reader.readuntil(b'"content":" ' if leaves_early else b"[DONE]")
        writer.close()
        await writer.wait_closed()

    async def wait_idle(running: Running) -> None:
        while (
            running.balancer.pool.slots_busy
            or running.balancer.count_connections()["compat-openai"]
        ):
            await asyncio.sleep(0.005)  # between two looks

    async def test(running: Running) -> None:
        address = Address("127.0.0.1", "127.0.0.1", running.management)
        script = Script(slots=8, tokens_per_s=100.0, tokens=100_000 if leaves_early else 3)
        async with ScriptedFleet(address, 1, script).running() as fleet:
            await fleet.wait_joined()
            await stream(running)  # what is made once is there
            await wait_idle(running)
            gc.collect()
            gc.disable()
            try:
                for _ in range(5):
                    await stream(running)
                await wait_idle(running)
                assert gc.collect() == 0
            finally:
                gc.enable()

    on_balancer(test)
