"""Live streams on a real balancer, each read by a subscriber of its own."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Self

import pytest

from paddler.balancer.services import live
from paddler.messages import link as wire
from paddler.messages.agents import AgentStatus
from paddler.messages.link import FrameKind
from tests.balancer.services.running import Agent, Running, on_balancer, request

MANY = 400  # each takes two descriptors of this process
AGENTS = "/api/v1/agents/stream"
BUFFER = "/api/v1/buffered_requests/stream"


class Subscriber:
    """Reads one stream, event by event."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.reader = reader
        self._events: list[bytes] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, running: Running, path: str, fields: str = "") -> AsyncIterator[Self]:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.management)
        writer.write(request("GET", path, fields=fields))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-type: text/event-stream\r\n" in head.lower()
        assert b"cache-control: no-cache\r\n" in head.lower()
        try:
            yield cls(reader)
        finally:
            writer.close()

    async def chunk(self) -> bytes:
        """What was written at once; empty at the clean end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def event(self) -> tuple[bytes | None, Any]:
        """Id and content of the next event."""
        if not self._events:
            *self._events, rest = (await self.chunk()).split(b"\n\n")
            assert rest == b""
        *fields, data = self._events.pop(0).split(b"\n")
        assert data.startswith(b"data: ")
        event_id = fields[0].removeprefix(b"id: ") if fields else None
        return event_id, json.loads(data.removeprefix(b"data: "))


@pytest.mark.parametrize(
    ("path", "event"),
    [
        (AGENTS, b'data: {"agents":[]}\n\n'),
        (BUFFER, b'data: {"buffered_requests_current":0}\n\n'),
    ],
)
def test_the_wire_of_a_stream_is_to_the_letter(path: str, event: bytes) -> None:
    async def test(running: Running) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.management)
        writer.write(request("GET", path))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.lower().splitlines() == [
            b"http/1.1 200 ok",
            b"content-type: text/event-stream",
            b"cache-control: no-cache",
            b"transfer-encoding: chunked",
            b"",
        ]
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        assert await reader.readexactly(len(chunk)) == chunk
        writer.close()

    on_balancer(test)


def test_the_snapshot_comes_at_once_and_after_each_change() -> None:
    async def test(running: Running) -> None:
        async with Subscriber.of(running, AGENTS) as subscriber:
            assert (await subscriber.event())[1] == {"agents": []}
            agent = await Agent.join(running)
            (joined,) = (await subscriber.event())[1]["agents"]
            assert joined["name"] == "gpu-1"
            agent.send(wire.StatusReport(AgentStatus(desired_slots_total=1, model_path="/m")))
            (changed,) = (await subscriber.event())[1]["agents"]
            assert changed["model_path"] == "/m"
            agent.leave()
            assert (await subscriber.event())[1] == {"agents": []}

    on_balancer(test)


def test_a_request_is_seen_to_take_a_slot_and_to_give_it_back() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        async with Subscriber.of(running, AGENTS) as one, Subscriber.of(running, AGENTS) as two:
            for subscriber in (one, two):
                await subscriber.event()
            body = {"raw_prompt": "x", "max_tokens": 1}
            asked = asyncio.create_task(
                running.post(running.inference, "/api/v1/continue_from_raw_prompt", body)
            )
            start = await agent.hear_start()
            for subscriber in (one, two):
                assert (await subscriber.event())[1]["agents"][0]["slots_processing"] == 1
            agent.say(start.stream_id, FrameKind.CONTENT, b"x")
            agent.finish(start.stream_id)
            for subscriber in (one, two):
                assert (await subscriber.event())[1]["agents"][0]["slots_processing"] == 0
            await asked

    on_balancer(test)


def test_the_buffer_is_seen_to_fill_and_to_empty() -> None:
    async def test(running: Running) -> None:
        async with Subscriber.of(running, BUFFER) as subscriber:
            assert (await subscriber.event())[1] == {"buffered_requests_current": 0}
            body = {"raw_prompt": "x", "max_tokens": 1}
            asked = asyncio.create_task(
                running.post(running.inference, "/api/v1/continue_from_raw_prompt", body)
            )
            assert (await subscriber.event())[1] == {"buffered_requests_current": 1}
            asked.cancel()
            assert (await subscriber.event())[1] == {"buffered_requests_current": 0}

    on_balancer(test)


def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert live.KEEP_ALIVE_S == 10.0
    monkeypatch.setattr(live, "KEEP_ALIVE_S", 0.01)

    async def test(running: Running) -> None:
        async with Subscriber.of(running, AGENTS) as subscriber:
            await subscriber.event()
            assert await subscriber.chunk() == b": keep-alive\n\n"
            assert await subscriber.chunk() == b": keep-alive\n\n"

    on_balancer(test)


@pytest.mark.parametrize("path", [AGENTS, BUFFER, "/api/v1/events/stream"])
def test_a_stream_ends_cleanly_and_at_once_when_the_balancer_stops(path: str) -> None:
    async def test(running: Running) -> None:
        await Agent.join(running)
        async with Subscriber.of(running, path) as subscriber:
            await subscriber.event()
            began_at = asyncio.get_running_loop().time()
            drain = asyncio.create_task(running.balancer.drain())
            assert await subscriber.chunk() == b""
            assert asyncio.get_running_loop().time() - began_at < 1.0
            await drain

    on_balancer(test)


async def flood(agent: Agent, reader: Subscriber) -> None:
    """Have the fleet change, and each change read, until no socket can hold it all."""
    for number in range(20):
        path = f"/{number}/" + "m" * 1_000_000
        agent.send(wire.StatusReport(AgentStatus(desired_slots_total=1, model_path=path)))
        while (await reader.event())[1]["agents"][0]["model_path"] != path:
            pass


def test_subscribers_that_do_not_read_do_not_delay_the_end() -> None:
    stopped_at: list[float] = []

    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        async with Subscriber.of(running, AGENTS), Subscriber.of(running, AGENTS) as reader:
            await flood(agent, reader)
            stopped_at.append(time.monotonic())
            await running.balancer.drain()

    on_balancer(test)
    assert time.monotonic() - stopped_at[0] < 1.0


def test_hundreds_of_subscribers_hear_the_same_and_leave_nothing() -> None:
    async def test(running: Running) -> None:
        async with contextlib.AsyncExitStack() as stack:
            subscribers = [
                await stack.enter_async_context(Subscriber.of(running, AGENTS)) for _ in range(MANY)
            ]
            assert running.management_connections() == MANY
            agent = await Agent.join(running)
            for subscriber in subscribers:
                while not (seen := (await subscriber.event())[1]["agents"]):
                    pass
                assert seen[0]["name"] == "gpu-1"
            agent.leave()
            await agent.closed()
        while running.management_connections() > 0:
            await asyncio.sleep(0)

    on_balancer(test)


def test_a_subscriber_that_does_not_read_holds_up_nobody() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        async with Subscriber.of(running, AGENTS), Subscriber.of(running, AGENTS) as reader:
            await flood(agent, reader)

    on_balancer(test)
