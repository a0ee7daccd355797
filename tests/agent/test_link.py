"""The agent's side of the link, with a balancer played by the test."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
import uvloop

from paddler import __version__
from paddler.agent import link
from paddler.agent.link import Link
from paddler.config import Address
from paddler.messages import link as wire
from paddler.messages.agents import AgentDetails, AgentStatus
from paddler.messages.state import DEFAULT_INFERENCE_PARAMETERS, ApplicableState
from paddler.net.connection import Exchange
from paddler.net.http import Site
from paddler.net.websocket import WebSocketConnection
from tests.net.peers import Recorder, serving, site_of

STATUS = AgentStatus(desired_slots_total=2)
DETAILS = AgentDetails(host="h", started_at=0.0)
WELCOME = wire.Welcome(wire.PROTOCOL_VERSION, "0.0.1")
STATE = ApplicableState(
    chat_template_override=None,
    inference_parameters=DEFAULT_INFERENCE_PARAMETERS,
    model="None",
    multimodal_projection="None",
)


class Balancer:
    """Takes links in, and says what the test says."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._opened: asyncio.Queue[Recorder] = asyncio.Queue()

    async def accept(self, exchange: Exchange) -> None:
        self.paths.append(exchange.request.path)

        def open_handler(connection: WebSocketConnection) -> Recorder:
            recorder = Recorder(connection)
            self._opened.put_nowait(recorder)
            return recorder

        exchange.accept_websocket(open_handler)

    @property
    def site(self) -> Site:
        return site_of(("GET", "/api/v1/agent_socket/{agent_id}", self.accept))

    async def next_link(self) -> Recorder:
        return await self._opened.get()


class Listener:
    """Keeps what the link tells."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[Any] = asyncio.Queue()

    def on_welcome(self) -> None:
        self.told.put_nowait("welcome")

    def on_state(self, message: wire.SetState) -> None:
        self.told.put_nowait(message)

    def on_start(self, message: wire.StartStream) -> None:
        self.told.put_nowait(message)

    def on_stop(self, message: wire.StopStream) -> None:
        self.told.put_nowait(message)

    def on_question(self, message: wire.Question) -> None:
        self.told.put_nowait(message)

    def on_link_lost(self) -> None:
        self.told.put_nowait("lost")

    def on_flow(self, is_paused: bool) -> None:
        self.told.put_nowait(("paused", is_paused))


class Stage:
    """A link at work."""

    def __init__(self, port: int, balancer: Balancer) -> None:
        self.balancer = balancer
        self.listener = Listener()
        self.status = STATUS
        self.link = Link(
            Address(text=f"localhost:{port}", host="127.0.0.1", port=port),
            "id-1",
            "gpu-1",
            lambda: self.status,
            self.listener,
        )

    async def told(self) -> Any:
        return await self.listener.told.get()

    async def greeted(self, answer: wire.FromBalancer = WELCOME) -> Recorder:
        """The next connection, its hello heard and answered."""
        recorder = await self.balancer.next_link()
        assert await hear(recorder) == wire.Hello(
            protocol=wire.PROTOCOL_VERSION, version=__version__, name="gpu-1", status=self.status
        )
        say(recorder, answer)
        return recorder


def say(recorder: Recorder, message: wire.FromBalancer) -> None:
    recorder.connection.send_text(wire.encode(message))


async def hear(recorder: Recorder) -> wire.FromAgent:
    kind, data = await recorder.messages.get()
    assert kind == "text"
    return wire.decode_from_agent(data)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(link, "MAX_RETRY_S", 0.01)


def on_loop(check: Coroutine[Any, Any, None]) -> None:
    async def run() -> None:
        async with asyncio.timeout(20):
            await check
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@contextlib.asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    balancer = Balancer()
    async with serving(balancer.site) as listener:
        stage = Stage(listener.port, balancer)
        running = asyncio.create_task(stage.link.run())
        try:
            yield stage
        finally:
            running.cancel()
            await asyncio.wait((running,))


def test_what_the_balancer_says_is_passed_on() -> None:
    async def check() -> None:
        async with staged() as stage:
            recorder = await stage.greeted()
            assert await stage.told() == "welcome"
            messages: list[wire.FromBalancer] = [
                wire.SetState(STATE),
                wire.StopStream(7),
                wire.Question(1, wire.AskMetadata()),
            ]
            for message in messages:
                say(recorder, message)
                assert await stage.told() == message

    on_loop(check())


def test_what_the_agent_says_arrives_and_details_only_where_they_are_welcome() -> None:
    async def check() -> None:
        async with staged() as stage:
            recorder = await stage.balancer.next_link()
            assert isinstance(await hear(recorder), wire.Hello)
            stage.link.send_details(DETAILS)  # too early: dropped
            stage.link.send_status(STATUS)
            say(recorder, WELCOME)
            assert await stage.told() == "welcome"
            stage.link.send_details(DETAILS)
            stage.link.send_answer(wire.Answer(1, "x"))
            stage.link.send_data(b"frames")
            assert await hear(recorder) == wire.StatusReport(STATUS)
            assert await hear(recorder) == wire.DetailsReport(DETAILS)
            assert await hear(recorder) == wire.Answer(1, "x")
            assert await recorder.messages.get() == ("binary", b"frames")

    on_loop(check())


def test_a_lost_link_is_dialled_again_under_the_same_id_with_the_newest_status() -> None:
    async def check() -> None:
        async with staged() as stage:
            recorder = await stage.greeted()
            assert await stage.told() == "welcome"
            recorder.connection.abort()
            assert await stage.told() == "lost"
            stage.status = AgentStatus(desired_slots_total=2, slots_total=2)
            await stage.greeted()
            assert await stage.told() == "welcome"
            assert stage.balancer.paths == ["/api/v1/agent_socket/id-1"] * 2

    on_loop(check())


def test_without_a_connection_nothing_is_kept_for_later() -> None:
    async def check() -> None:
        async with staged() as stage:
            stage.link.send_status(STATUS)
            stage.link.send_answer(wire.Answer(1))
            stage.link.send_data(b"frames")
            await stage.link.wait_closed()
            recorder = await stage.greeted()
            stage.link.say_goodbye()
            assert await hear(recorder) == wire.Goodbye()

    on_loop(check())


def test_goodbye_is_the_end() -> None:
    async def check() -> None:
        balancer = Balancer()
        async with serving(balancer.site) as listener:
            stage = Stage(listener.port, balancer)
            running = asyncio.create_task(stage.link.run())
            recorder = await stage.greeted()
            assert await stage.told() == "welcome"
            stage.link.say_goodbye()
            assert await hear(recorder) == wire.Goodbye()
            assert await recorder.closed == (1001, "the agent stops")
            await running
            assert await stage.told() == "lost"

    on_loop(check())


def test_a_refusal_is_said_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        async with staged() as stage:
            for reason in ("too old", "too old", "too new"):
                recorder = await stage.greeted(wire.Refused(reason))
                recorder.connection.close(1008, "link protocol versions differ")
                assert await stage.told() == "lost"
            await stage.greeted()
            assert await stage.told() == "welcome"

    with caplog.at_level(logging.INFO, "paddler.agent.link"):
        on_loop(check())
    refusals = [text for text in caplog.messages if "refuses this agent: " in text]
    assert [text.partition("agent: ")[2] for text in refusals] == ["too old", "too new"]


def test_a_balancer_that_is_not_there_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        stage = Stage(1, Balancer())
        running = asyncio.create_task(stage.link.run())
        while len(caplog.records) < 4:  # at debug, from the second on
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait((running,))

    with caplog.at_level(logging.DEBUG, "paddler.agent.link"):
        on_loop(check())
    levels = [record.levelno for record in caplog.records[:4]]
    assert levels == [logging.WARNING, *[logging.DEBUG] * 3]
    assert caplog.messages[0].startswith("cannot reach the balancer at localhost:1: ")


@pytest.mark.parametrize("data", [b"{", b'{"type":"news"}', b'{"type":"welcome"}', b"\xff"])
def test_what_makes_no_sense_ends_the_link(data: bytes) -> None:
    async def check() -> None:
        async with staged() as stage:
            recorder = await stage.greeted()
            recorder.connection.send_text(data)
            code, _ = await recorder.closed
            assert code == 1007
            while await stage.told() != "lost":
                pass
            await stage.greeted()

    on_loop(check())


def test_the_balancer_sends_no_data() -> None:
    async def check() -> None:
        async with staged() as stage:
            recorder = await stage.greeted()
            recorder.connection.send_binary(b"x")
            assert await recorder.closed == (1002, "a data message from the balancer")

    on_loop(check())
