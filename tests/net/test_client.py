"""Outgoing WebSockets: why they fail, what cancelling leaves, when to try again."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from paddler.net.client import Backoff, ConnectFailed, connect_websocket
from paddler.net.connection import Exchange
from paddler.net.http import Response, text
from paddler.net.websocket import WebSocketConnection
from tests.net.conftest import Run
from tests.net.peers import Client, Recorder, get, serving, site_of


async def open_socket(
    host: str,
    port: int,
    *,
    timeout_s: float = 5.0,
    open_handler: Callable[[WebSocketConnection], Recorder] = Recorder,
) -> WebSocketConnection:
    return await connect_websocket(host, port, "/s", open_handler, connect_timeout_s=timeout_s)


@contextlib.asynccontextmanager
async def answering(data: bytes, *, hangs: bool = False) -> AsyncIterator[int]:
    """The port of a server that sends ``data`` to whoever asks, then ends, or hangs."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            writer.write(data)
            if hangs:
                await reader.read()
        writer.close()

    asked = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def open_sockets() -> int:
    """How many sockets this process has open; the loops come and go with other descriptors."""
    targets = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            targets.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return sum(target.startswith("socket:") for target in targets)


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_refused_connection_says_where_and_why(run: Run, closed_port: int) -> None:
    async def check() -> None:
        with pytest.raises(ConnectFailed) as caught:
            await open_socket("127.0.0.1", closed_port)
        assert str(caught.value) == (
            f"cannot connect to ws://127.0.0.1:{closed_port}/s: Connection refused"
        )
        assert caught.value.http_status is None

    run(check())


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_unknown_host_is_a_failure_to_connect(run: Run, host: str) -> None:
    async def check() -> None:
        with pytest.raises(ConnectFailed, match=f"cannot connect to ws://{host}:1/s: ."):
            await open_socket(host, 1)

    run(check())


def test_http_refusal_shows_status_and_body(run: Run) -> None:
    async def refuse(exchange: Exchange) -> Response:
        return text(503, "try later " * 1_000)

    async def check() -> None:
        async with serving(site_of(("GET", "/s", refuse))) as listener:
            with pytest.raises(ConnectFailed, match="the server answered 503: try later") as caught:
                await open_socket(listener.host, listener.port)
            assert caught.value.http_status == 503
            assert len(str(caught.value)) < 400

    run(check())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "the server answered 404$"),
        (b"HTTP/1.0 500 Error\r\n\r\nbecause", "the server answered 500: because"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "closed the connection without an answer"),
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 2", "the connection ended within a response"),
        (b"220 mail ready\r\n\r\n", "not an HTTP/1.1 status line"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "bad answer to a WebSocket handshake"),
    ],
)
def test_answer_that_is_no_websocket_is_told(run: Run, data: bytes, why: str) -> None:
    async def check() -> None:
        async with answering(data) as port:
            with pytest.raises(ConnectFailed, match=why):
                await open_socket("127.0.0.1", port)

    run(check())


def test_missing_answer_is_a_timeout(run: Run) -> None:
    async def check() -> None:
        async with answering(b"", hangs=True) as port:
            with pytest.raises(ConnectFailed, match=r"did not answer within 0\.05 s"):
                await open_socket("127.0.0.1", port, timeout_s=0.05)

    run(check())


def test_bug_of_the_handlers_maker_is_let_through(run: Run) -> None:
    def fail(connection: WebSocketConnection) -> Recorder:
        raise KeyError("bug")

    async def upgrade(exchange: Exchange) -> None:
        exchange.accept_websocket(Recorder)

    async def check() -> None:
        async with serving(site_of(("GET", "/s", upgrade))) as listener:
            with pytest.raises(KeyError):
                await open_socket(listener.host, listener.port, open_handler=fail)

    run(check())


@pytest.mark.parametrize("steps", range(12))
def test_cancelling_at_any_step_leaves_no_socket(run: Run, steps: int) -> None:
    opened: list[WebSocketConnection] = []

    async def upgrade(exchange: Exchange) -> None:
        exchange.accept_websocket(Recorder)

    async def check() -> None:
        async with serving(site_of(("GET", "/s", upgrade))) as listener:
            before = open_sockets()
            task = asyncio.ensure_future(open_socket(listener.host, listener.port))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                opened.append(await task)
            for connection in opened:
                connection.abort()
            async with await Client.connect(listener) as next_client:
                await next_client.ask(get("/"))  # whoever came before is accepted by now
            await listener.stop(1.0)
            assert open_sockets() <= before

    run(check())


def test_cancelling_a_connect_that_hangs_leaves_no_socket(run: Run) -> None:
    async def check() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
            host, port = server.getsockname()
            with socket.create_connection((host, port)):  # the backlog is full now
                before = open_sockets()
                tasks = [asyncio.ensure_future(open_socket(host, port)) for _ in range(3)]
                await asyncio.wait(tasks, timeout=0.05)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert open_sockets() == before

    run(check())


def test_backoff_doubles_up_to_its_maximum_and_begins_anew() -> None:
    backoff = Backoff(1.0, 6.0, random=lambda: 0.0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next() == 0.5


def test_backoff_delays_are_spread_over_the_upper_half() -> None:
    source = random.Random(1)
    delays = [Backoff(8.0, 8.0, source.random).next() for _ in range(1_000)]
    assert 4.0 <= min(delays) < 4.1
    assert 7.9 < max(delays) < 8.0
