"""The panel's event stream: everything at connect, then what changes."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Self

import msgspec

from paddler.balancer.services import panel_stream
from paddler.messages import link as wire
from paddler.messages.agents import AgentDetails, AgentStatus
from paddler.messages.link import FrameKind
from tests.balancer.services.running import Agent, Running, on_balancer, request

PATH = "/api/v1/panel/stream"
WHOLE = ["hello", "agents", "facts", "rates", "buffer", "state", "samples", "events"]


class Subscriber:
    """Reads the stream, event by event."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.reader = reader
        self._events: list[bytes] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, running: Running) -> AsyncIterator[Self]:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.panel, limit=2**24)
        writer.write(request("GET", PATH))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-type: text/event-stream\r\n" in head.lower()
        try:
            yield cls(reader)
        finally:
            writer.close()

    async def chunk(self) -> bytes:
        """What was written at once; empty at the clean end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def event(self) -> tuple[str, Any]:
        """Name and content of the next event."""
        while not self._events:
            chunk = await self.chunk()
            if chunk.startswith(b":"):
                continue
            *self._events, rest = chunk.split(b"\n\n")
            assert rest == b""
        name, data = self._events.pop(0).split(b"\n")
        return name.removeprefix(b"event: ").decode(), json.loads(data.removeprefix(b"data: "))

    async def next(self, name: str) -> Any:
        """The content of the next event of this name."""
        while True:
            seen, content = await self.event()
            if seen == name:
                return content

    async def whole(self) -> dict[str, Any]:
        """What comes at a connect."""
        return dict([await self.event() for _ in WHOLE])


def feed_of(running: Running, listeners: int = 0) -> panel_stream.PanelFeed:
    """A feed of its own, heard by so many."""
    balancer = running.balancer
    feed = panel_stream.PanelFeed(
        balancer.pool, balancer._waitline, balancer.state, balancer.journal, balancer._history
    )
    for _ in range(listeners):
        feed.watch(lambda: None)
    return feed


def test_everything_is_told_at_connect() -> None:
    async def test(running: Running) -> None:
        await Agent.join(running, "id-1", "gpu-1", slots=2)
        async with Subscriber.of(running) as subscriber:
            told = await subscriber.whole()
        assert list(told) == WHOLE
        assert told["agents"]["is_whole"] is True
        assert told["agents"]["changed"] == await running.agents()
        (facts,) = told["facts"]["changed"]
        assert (facts["id"], facts["is_drained"], facts["is_silent"]) == ("id-1", False, False)
        assert facts["details"] is None
        assert told["buffer"] == {"waiting": 0}
        assert told["state"]["model"] == "None"
        kinds = [event["kind"] for event in told["events"]["events"]]
        assert kinds == ["agent_joined"]
        listed = json.loads((await running.get(running.panel, "/api/v1/history")).body)
        samples = told["samples"]["samples"]
        assert samples == listed["samples"][: len(samples)]

    on_balancer(test)


def test_only_the_agents_that_changed_are_told() -> None:
    async def test(running: Running) -> None:
        first = await Agent.join(running, "id-1", "gpu-1")
        second = await Agent.join(running, "id-2", "gpu-2")
        async with Subscriber.of(running) as subscriber:
            await subscriber.whole()
            status = AgentStatus(desired_slots_total=1, slots_total=1, model_path="/m.gguf")
            second.send(wire.StatusReport(status))
            change = await subscriber.next("agents")
            assert change["is_whole"] is False
            assert [agent["id"] for agent in change["changed"]] == ["id-2"]
            assert change["changed"][0]["model_path"] == "/m.gguf"
            assert change["gone"] == []
            (event,) = (await subscriber.next("events"))["events"]
            assert event["kind"] == "model_loaded"
            first.leave()
            change = await subscriber.next("agents")
            assert (change["changed"], change["gone"]) == ([], ["id-1"])

    on_balancer(test)


def test_details_a_drain_and_the_wanted_state_are_told() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running, "id-1")
        async with Subscriber.of(running) as subscriber:
            await subscriber.whole()
            agent.send(wire.DetailsReport(AgentDetails(host="node-1", started_at=1.0)))
            (facts,) = (await subscriber.next("facts"))["changed"]
            assert facts["details"]["host"] == "node-1"
            await running.ask(running.panel, "POST", "/api/v1/agent/id-1/drain")
            (facts,) = (await subscriber.next("facts"))["changed"]
            assert facts["is_drained"] is True
            desired = msgspec.to_builtins(running.balancer.state.desired)
            await running.put_state(desired | {"model": {"LocalToAgent": "/m.gguf"}})
            state = await subscriber.next("state")
            assert state["model"] == {"LocalToAgent": "/m.gguf"}

    on_balancer(test)


def test_tokens_per_second_are_told_by_agent() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running, "id-1")
        async with Subscriber.of(running) as subscriber:
            await subscriber.whole()
            body = {"raw_prompt": "Go on", "max_tokens": 10}
            path = "/api/v1/continue_from_raw_prompt"
            asking = asyncio.create_task(running.post(running.panel, path, body))
            stream_id = (await agent.hear_start()).stream_id
            for _ in range(30):
                agent.say(stream_id, FrameKind.CONTENT, b"word ")
            rates = await subscriber.next("rates")
            assert 0 < rates["tokens_per_s"]["id-1"] <= 60
            agent.finish(stream_id)
            assert (await asking).status == 200
            sample = (await subscriber.next("samples"))["samples"][-1]
            assert sample["tokens"] in (0, 30)

    on_balancer(test)


def test_a_clock_that_jumps_changes_no_rate() -> None:
    async def test(running: Running) -> None:
        balancer, agent = running.balancer, await Agent.join(running, "id-1")
        offset_s = 0.0
        feed = panel_stream.PanelFeed(
            *(balancer.pool, balancer._waitline, balancer.state),
            *(balancer.journal, balancer._history),
            clock=lambda: time.time() + offset_s,
        )
        feed._measure_rates()
        body = {"raw_prompt": "Go on", "max_tokens": 10}
        path = "/api/v1/continue_from_raw_prompt"
        asking = asyncio.create_task(running.post(running.panel, path, body))
        stream_id = (await agent.hear_start()).stream_id
        for offset_s in (18_000.0, -18_000.0):  # noqa: B007  # the clock reads it
            before = running.balancer._history.taken
            agent.say(stream_id, FrameKind.CONTENT, b"word ")
            while running.balancer._history.taken == before:
                await asyncio.sleep(0.01)
            assert 0.1 <= feed._measure_rates()["id-1"] <= 2.0
        agent.finish(stream_id)
        assert (await asking).status == 200

    on_balancer(test)


def test_many_changes_are_few_steps() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running, "id-1")
        async with Subscriber.of(running) as subscriber:
            await subscriber.whole()
            loop = asyncio.get_running_loop()
            began_at = loop.time()
            steps = 0
            for count in range(1, 201):
                status = AgentStatus(desired_slots_total=1, download_current=count)
                agent.send(wire.StatusReport(status))
                await asyncio.sleep(0.002)
            last = 0
            while last < 200:
                (agent_now,) = (await subscriber.next("agents"))["changed"]
                last = agent_now["download_current"]
                steps += 1
            elapsed_s = loop.time() - began_at
        # The newest state came through, by at most five steps a second and one to begin with.
        assert steps <= elapsed_s / panel_stream.STEP_INTERVAL_S + 2

    on_balancer(test)


def test_who_is_too_far_behind_is_told_everything() -> None:
    async def test(running: Running) -> None:
        await Agent.join(running, "id-1")
        feed = feed_of(running, listeners=2)
        whole, cursor = feed.read(-1)
        assert whole.startswith(b"event: hello\n")
        assert feed.read(cursor) == (b"", cursor)
        for count in range(panel_stream.MAX_KEPT_STEPS):
            running.balancer.journal.add("agent_status", f"event {count}")
            feed._step()
        steps, _ = feed.read(cursor)
        assert steps.count(b"event: events\n") == panel_stream.MAX_KEPT_STEPS
        assert b"event: hello\n" not in steps
        running.balancer.journal.add("agent_status", "one too many")
        feed._step()
        again, newest = feed.read(cursor)
        assert again.startswith(b"event: hello\n")
        assert newest == cursor + panel_stream.MAX_KEPT_STEPS + 1

    on_balancer(test)


def test_what_is_kept_of_steps_is_bounded() -> None:
    async def test(running: Running) -> None:
        feed = feed_of(running, listeners=2)
        _, cursor = feed.read(-1)
        for _ in range(30):
            for _ in range(100):
                running.balancer.journal.add("agent_status", "x" * 1000)
            feed._step()
        assert feed._kept_bytes <= panel_stream.MAX_KEPT_BYTES
        assert feed._kept_bytes == sum(map(len, feed._steps))
        assert feed.read(cursor)[0].startswith(b"event: hello\n")

    on_balancer(test)


def test_a_stream_ends_when_the_balancer_stops() -> None:
    async def test(running: Running) -> None:
        async with Subscriber.of(running) as subscriber:
            await subscriber.whole()
            draining = asyncio.create_task(running.balancer.drain())
            while await subscriber.chunk():
                pass
            await draining

    on_balancer(test)


def test_nobody_listening_costs_nothing() -> None:
    async def test(running: Running) -> None:
        feed = feed_of(running)
        running.balancer.journal.add("agent_status", "unheard")
        assert not feed._is_due
        assert not feed._steps

    on_balancer(test)


def test_streams_and_a_running_answer_hold_up_no_stop() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running, "id-1")
        body = {"raw_prompt": "Go on", "max_tokens": 10}
        asking = asyncio.create_task(
            running.post(running.panel, "/api/v1/continue_from_raw_prompt", body)
        )
        stream_id = (await agent.hear_start()).stream_id
        async with Subscriber.of(running) as subscriber:
            await subscriber.whole()
            draining = asyncio.create_task(running.balancer.drain())
            while await subscriber.chunk():
                pass
            assert not draining.done()  # the answer has its time
            agent.say(stream_id, FrameKind.CONTENT, b"word")
            agent.finish(stream_id)
            answer = await asking
            assert (answer.status, b'"ContentToken":"word"' in answer.body) == (200, True)
            await draining

    on_balancer(test, "--drain-timeout", "10s")
