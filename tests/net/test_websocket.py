"""Open WebSockets, server and client ends against each other and against broken peers."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from paddler._fastpath import Relay, Sink, encode_frame
from paddler.errors import RemoteProtocolError
from paddler.messages.link import FrameKind, encode_data_frame
from paddler.net.websocket import DEFAULT_SETTINGS, WebSocketConnection, WebSocketSettings
from tests.net.conftest import Run
from tests.net.peers import Client, Recorder, Socket, connect, get, serving

CLOSE, PING, PONG = 8, 9, 10
KEY = 0x01020304


@contextlib.asynccontextmanager
async def both_ends(
    server: WebSocketSettings = DEFAULT_SETTINGS, client: WebSocketSettings = DEFAULT_SETTINGS
) -> AsyncIterator[tuple[Recorder, Recorder]]:
    """The server's and the client's end of an open WebSocket."""
    route = Socket(settings=server)
    async with serving(route.site) as listener:
        client_end = await connect(listener, client)
        server_end = await route.opened.get()
        yield server_end, client_end
        client_end.connection.abort()
        await asyncio.wait([client_end.closed])


UPGRADE = get(
    "/socket",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
)


@contextlib.asynccontextmanager
async def raw_client(route: Socket, behind: bytes = b"") -> AsyncIterator[tuple[Recorder, Client]]:
    """The server's end and a client that sends any bytes, the first right behind its request."""
    async with serving(route.site) as listener, await Client.connect(listener) as client:
        client.send(UPGRADE + behind)
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        yield await route.opened.get(), client


# --- messages ------------------------------------------------------------------------------------


def test_messages_go_both_ways(run: Run) -> None:
    async def check() -> None:
        async with both_ends() as (server, client):
            for sender, receiver in ((server, client), (client, server)):
                sender.connection.send_text(b"text")
                sender.connection.send_binary(bytes(300_000))
                assert await receiver.messages.get() == ("text", b"text")
                assert await receiver.messages.get() == ("binary", bytes(300_000))
            server.connection.write_raw(encode_frame(1, b"raw"))
            assert await client.messages.get() == ("text", b"raw")

    run(check())


@pytest.mark.parametrize("is_client", [False, True])
def test_messages_that_are_sent_soon_go_out_together_and_in_order(
    run: Run, is_client: bool
) -> None:
    async def check() -> None:
        async with both_ends() as (server, client):
            sender, receiver = (client, server) if is_client else (server, client)
            connection = sender.connection
            writes: list[bytes] = []
            write = connection.write_raw

            def write_and_note(data: bytes) -> None:
                writes.append(data)
                write(data)

            connection.write_raw = write_and_note
            connection.send_text_soon(b"one")
            connection.send_text_soon(b"two")
            assert writes == []
            assert await receiver.messages.get() == ("text", b"one")
            assert await receiver.messages.get() == ("text", b"two")
            assert len(writes) == 1
            connection.send_text_soon(b"three")
            connection.send_text(b"four")
            assert len(writes) == 2
            assert await receiver.messages.get() == ("text", b"three")
            assert await receiver.messages.get() == ("text", b"four")

    run(check())


def test_what_was_to_be_sent_soon_goes_before_the_close_frame(run: Run) -> None:
    async def check() -> None:
        async with both_ends() as (server, client):
            server.connection.send_text_soon(b"last words")
            server.connection.close(1000, "done")
            assert await client.messages.get() == ("text", b"last words")
            assert await client.closed == (1000, "done")

    run(check())


def test_what_was_to_be_sent_soon_is_dropped_with_the_connection(run: Run) -> None:
    async def check() -> None:
        async with both_ends() as (server, client):
            server.connection.send_text_soon(b"to nobody")
            server.connection.abort()
            server.connection.send_text_soon(b"nor this")
            assert (await server.closed)[0] is None
            assert (await client.closed)[0] is None
            assert client.messages.empty()

    run(check())


def test_what_comes_behind_the_handshake_is_read(run: Run) -> None:
    async def check() -> None:
        async with raw_client(Socket(), encode_frame(1, b"first", KEY)) as (server, _):
            assert await server.messages.get() == ("text", b"first")

    run(check())


def test_handler_may_send_as_it_is_made(run: Run) -> None:
    def greet(connection: WebSocketConnection) -> Recorder:
        connection.send_text(b"hello")
        return Recorder(connection)

    async def check() -> None:
        async with serving(Socket(greet).site) as listener:
            client = await connect(listener)
            assert await client.messages.get() == ("text", b"hello")
            client.connection.close()
            await client.closed

    run(check())


def test_pings_are_answered_and_sent(run: Run) -> None:
    async def check() -> None:
        settings = WebSocketSettings(ping_interval_s=0.02)
        async with raw_client(Socket(settings=settings)) as (_, client):
            assert await client.reader.readexactly(2) == encode_frame(PING, b"")
            assert await client.reader.readexactly(2) == encode_frame(PING, b"")
        async with raw_client(Socket()) as (_, client):
            client.send(encode_frame(PING, b"abc", KEY))
            assert await client.reader.readexactly(2) == encode_frame(PING, b"")
            assert await client.reader.readexactly(5) == encode_frame(PONG, b"abc")

    run(check())


# --- closing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("closer", [0, 1])
def test_close_is_told_to_both_ends(run: Run, closer: int) -> None:
    async def check() -> None:
        async with both_ends() as ends:
            ends[closer].connection.close(1001, "bye")
            ends[closer].connection.close(1000, "again")
            assert not ends[closer].connection.is_open
            ends[closer].connection.send_text(b"to nobody")
            assert await ends[1 - closer].closed == (1001, "bye")
            assert await ends[closer].closed == (1005, "")
            assert ends[1 - closer].messages.empty()

    run(check())


def test_close_frame_is_answered_without_a_code_and_the_connection_ends(run: Run) -> None:
    async def check() -> None:
        async with raw_client(Socket()) as (server, client):
            client.send(encode_frame(CLOSE, b"\x03\xe8ok", KEY))
            assert await client.reader.read() == encode_frame(PING, b"") + encode_frame(CLOSE, b"")
            assert await server.closed == (1000, "ok")

    run(check())


@pytest.mark.parametrize("leave", ["close", "half-close"])
def test_peer_that_leaves_without_a_close_frame_is_lost(run: Run, leave: str) -> None:
    async def check() -> None:
        async with raw_client(Socket()) as (server, client):
            if leave == "close":
                client.writer.close()
            else:
                client.writer.write_eof()
            code, reason = await server.closed
            assert code is None
            assert reason.startswith("connection lost")

    run(check())


def test_peer_that_does_not_answer_a_close_frame_is_cut(run: Run) -> None:
    async def check() -> None:
        settings = WebSocketSettings(close_timeout_s=0.02)
        async with raw_client(Socket(settings=settings)) as (server, _):
            server.connection.close(1001)
            assert await server.closed == (None, "the peer did not answer a close frame")

    run(check())


def test_abort_tells_its_reason_and_nothing_more_is_read(run: Run) -> None:
    class Aborting(Recorder):
        def on_text(self, data: memoryview) -> None:
            super().on_text(data)
            self.connection.abort("enough")

    async def check() -> None:
        frame = encode_frame(1, b"x", KEY)
        async with raw_client(Socket(Aborting), frame + frame) as (server, _):
            assert await server.closed == (None, "enough")
            assert server.messages.qsize() == 1

    run(check())


class Relaying(Recorder):
    """Has its data messages read by a relay, with a client that is sent the tokens of stream 1."""

    def __init__(self, connection: WebSocketConnection) -> None:
        super().__init__(connection)
        relay = Relay()
        relay.open(Sink(1, self.on_token, 0, (b"",), b"", 0.0, 1_000))
        connection.relay_to(relay, 1_000, self.on_events)

    def on_token(self, token: bytes) -> None:
        self.messages.put_nowait(("token", token))

    def on_events(self, events: list[tuple[int, int, int, bytes]]) -> None:
        for event in events:
            self.messages.put_nowait(("event", event[3]))


def token(text: bytes, **how: Any) -> bytes:
    return encode_frame(2, encode_data_frame(1, FrameKind.CONTENT, text), KEY, **how)


def test_data_messages_are_relayed_wherever_one_may_begin(run: Run) -> None:
    async def check() -> None:
        async with raw_client(Socket(Relaying)) as (server, client):
            for wire, expected in (
                (token(b"whole"), [("token", b"whole")]),
                (token(b"a") + encode_frame(1, b"b", KEY), [("token", b"a"), ("text", b"b")]),
                (
                    encode_frame(2, b"frag", KEY, fin=False) + encode_frame(0, b"ments", KEY),
                    [("binary", b"fragments")],
                ),
                (token(b"and again"), [("token", b"and again")]),
                (
                    encode_frame(2, encode_data_frame(1, FrameKind.RESULT, b"{}"), KEY),
                    [("event", b"{}")],
                ),
            ):
                client.send(wire)
                assert [await server.messages.get() for _ in expected] == expected

    run(check())


@pytest.mark.parametrize("is_behind_handshake", [False, True])
def test_data_messages_are_not_relayed_within_another(run: Run, is_behind_handshake: bool) -> None:
    async def check() -> None:
        inner = token(b"looks like a frame")
        outer = encode_frame(2, inner, 0)
        begin = encode_frame(1, b"first", KEY) + outer[: -len(inner)]
        async with raw_client(Socket(Relaying), begin * is_behind_handshake) as (server, client):
            client.send(begin * (not is_behind_handshake))
            assert await server.messages.get() == ("text", b"first")
            client.send(inner + token(b"behind"))
            assert await server.messages.get() == ("binary", inner)
            client.send(token(b"later"))
            assert [await server.messages.get() for _ in range(2)] == [
                ("binary", encode_data_frame(1, FrameKind.CONTENT, b"behind")),
                ("token", b"later"),
            ]

    run(check())


def test_nothing_is_relayed_once_we_close(run: Run) -> None:
    async def check() -> None:
        async with raw_client(Socket(Relaying)) as (server, client):
            server.connection.close()
            client.send(token(b"late") + encode_frame(CLOSE, b"", KEY))
            assert await server.closed == (1005, "")
            assert server.messages.empty()

    run(check())


def test_nothing_is_relayed_once_we_abort(run: Run) -> None:
    class Aborting(Relaying):
        def on_events(self, events: list[tuple[int, int, int, bytes]]) -> None:
            super().on_events(events)
            self.connection.abort("enough")

    async def check() -> None:
        async with raw_client(Socket(Aborting)) as (server, client):
            last = encode_data_frame(1, FrameKind.RESULT, b"last")
            offence = encode_frame(2, b"not masked")
            client.send(token(b"a") + encode_frame(2, last, KEY) + token(b"b") + offence)
            assert await server.closed == (None, "enough")
            assert await server.messages.get() == ("token", b"a")
            assert await server.messages.get() == ("event", b"last")
            assert server.messages.empty()

    run(check())


def test_a_message_that_no_relay_understands_closes_the_connection(run: Run) -> None:
    async def check() -> None:
        async with raw_client(Socket(Relaying)) as (server, client):
            client.send(token(b"a") + encode_frame(2, b"x", KEY) + token(b"b"))
            code, reason = await server.closed
            assert code == 1002
            assert "data message" in reason
            client.send(token(b"still talking"))
            await client.reader.read()
            assert await server.messages.get() == ("token", b"a")
            assert server.messages.empty()

    run(check())


def test_tokens_are_signs_of_life(run: Run) -> None:
    async def check() -> None:
        settings = WebSocketSettings(ping_interval_s=0.05, dead_after_s=0.2)
        async with raw_client(Socket(Relaying, settings=settings)) as (server, client):
            loop = asyncio.get_running_loop()
            until = loop.time() + 0.5
            while loop.time() < until:
                client.send(token(b"."))
                assert await server.messages.get() == ("token", b".")
            assert not server.closed.done()
            code, reason = await server.closed
            assert code is None
            assert reason.startswith("no sign of life")

    run(check())


# --- offences and bugs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (encode_frame(1, b"not masked"), 1002),
        (encode_frame(1, b"\xff", KEY), 1007),
        (encode_frame(2, bytes(1_001), KEY), 1009),
    ],
)
def test_offence_is_answered_with_its_close_code(run: Run, wire: bytes, code: int) -> None:
    async def check() -> None:
        settings = WebSocketSettings(max_message_bytes=1_000)
        async with raw_client(Socket(settings=settings)) as (server, client):
            client.send(wire + encode_frame(1, b"ignored", KEY))
            told, reason = await server.closed
            assert told == code
            answer = await client.reader.read()
            assert answer == encode_frame(PING, b"") + encode_frame(
                CLOSE, code.to_bytes(2, "big") + reason.encode()
            )
            client.send(b"still talking")
            assert server.messages.empty()

    run(check())


def test_offender_that_stays_is_cut_after_the_close_time(run: Run) -> None:
    async def check() -> None:
        route = Socket(settings=WebSocketSettings(close_timeout_s=0.02))
        async with serving(route.site) as listener, await Client.connect(listener) as client:
            client.send(UPGRADE + b"\xff")
            await route.opened.get()
            await listener.connections.wait_empty()

    run(check())


class Refusing(Recorder):
    def on_text(self, data: memoryview) -> None:
        raise RemoteProtocolError("not what was asked for", close_code=1003)

    def on_binary(self, data: memoryview) -> None:
        raise KeyError("bug")


def test_handler_refuses_a_message_with_a_close_code(run: Run) -> None:
    async def check() -> None:
        async with serving(Socket(Refusing).site) as listener:
            client = await connect(listener)
            client.connection.send_text(b"x")
            assert await client.closed == (1003, "not what was asked for")

    run(check())


def test_bug_of_a_handler_is_logged_once_and_closes_with_1011(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        async with serving(Socket(Refusing).site) as listener:
            client = await connect(listener)
            client.connection.send_binary(b"x")
            client.connection.send_binary(b"x")
            assert await client.closed == (1011, "internal error")

    run(check())
    (record,) = caplog.records
    assert record.getMessage() == "a WebSocket's handler failed"


def test_handler_that_cannot_be_made_ends_the_connection(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(connection: WebSocketConnection) -> Recorder:
        raise KeyError("bug")

    async def check() -> None:
        async with serving(Socket(fail).site) as listener, await Client.connect(listener) as client:
            client.send(UPGRADE)
            with contextlib.suppress(ConnectionError):
                await client.reader.read()

    run(check())
    assert [record.getMessage() for record in caplog.records] == ["GET /socket failed"]


def test_handler_may_close_as_it_is_made(run: Run) -> None:
    def refuse(connection: WebSocketConnection) -> Recorder:
        connection.close(4000, "no")
        return Recorder(connection)

    async def check() -> None:
        async with serving(Socket(refuse).site) as listener:
            assert await (await connect(listener)).closed == (4000, "no")

    run(check())


@pytest.mark.parametrize(
    ("wire", "status", "version"),
    [
        (get("/socket"), 400, None),
        (UPGRADE.replace(b"Key: ", b"Key: x"), 400, None),
        (UPGRADE.replace(b"13", b"12"), 426, "13"),
    ],
)
def test_request_that_is_no_upgrade_is_refused_as_text(
    run: Run, wire: bytes, status: int, version: str | None
) -> None:
    async def check() -> None:
        async with serving(Socket().site) as listener, await Client.connect(listener) as client:
            answer = await client.ask(wire)
            assert answer.status == status
            assert answer.headers.get("content-type") == "text/plain; charset=utf-8"
            assert answer.headers.get("sec-websocket-version") == version

    run(check())


# --- silence and slow readers --------------------------------------------------------------------


def test_silent_peer_is_cut(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        settings = WebSocketSettings(ping_interval_s=0.02, dead_after_s=0.1)
        async with raw_client(Socket(settings=settings)) as (server, _):
            code, reason = await server.closed
            assert code is None
            assert reason.startswith("no sign of life for ")

    run(check())
    assert "no sign of life" in caplog.text


def long_frame(payload_bytes: int) -> bytes:
    return encode_frame(2, bytes(payload_bytes), mask_key=KEY)


def test_peer_whose_message_trickles_is_cut(run: Run) -> None:
    async def check() -> None:
        settings = WebSocketSettings(ping_interval_s=0.02, dead_after_s=0.2)
        async with raw_client(Socket(settings=settings)) as (server, client):
            for octet in long_frame(60_000):
                client.send(bytes((octet,)))
                await asyncio.wait([server.closed], timeout=0.01)
                if server.closed.done():
                    break
            assert server.closed.result()[1].startswith("no sign of life for ")

    run(check())


def test_peer_whose_long_message_comes_slowly_but_surely_stays(run: Run) -> None:
    async def check() -> None:
        settings = WebSocketSettings(ping_interval_s=0.02, dead_after_s=0.6, life_sign_bytes=100)
        async with raw_client(Socket(settings=settings)) as (server, client):
            wire = long_frame(3_000)
            for at in range(0, len(wire), 100):
                client.send(wire[at : at + 100])
                await asyncio.sleep(0.03)  # all of it takes longer than a silence may
            assert await server.messages.get() == ("binary", bytes(3_000))

    run(check())


def test_peer_that_answers_pings_stays(run: Run) -> None:
    async def check() -> None:
        settings = WebSocketSettings(ping_interval_s=0.03, dead_after_s=0.2)
        async with both_ends(settings, settings) as (server, client):
            await asyncio.wait([server.closed, client.closed], timeout=0.5)
            assert server.connection.is_open
            assert client.connection.is_open

    run(check())


@pytest.mark.parametrize("is_raw", [False, True])
def test_peer_that_does_not_read_is_cut_at_the_bound(run: Run, is_raw: bool) -> None:
    async def check() -> None:
        settings = WebSocketSettings(max_unsent_bytes=1_000_000, ping_interval_s=0.02)
        route = Socket(settings=settings)
        async with serving(route.site) as listener:
            with socket.create_connection((listener.host, listener.port)) as client:
                client.sendall(UPGRADE)
                server = await route.opened.get()
                told: list[bool] = []
                server.connection.flow.on_change(told.append)
                for _ in range(20):
                    if is_raw:
                        server.connection.write_raw(encode_frame(2, bytes(1_000_000)))
                    else:
                        server.connection.send_binary(bytes(1_000_000))
                code, reason = await server.closed
                assert code is None
                assert "the peer does not read" in reason
                assert told == [True]

    run(check())
