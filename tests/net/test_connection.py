"""One HTTP connection: routing, bodies, streams, refusals, times, and clients that leave."""

import asyncio
import contextlib
import socket
from contextvars import ContextVar

import pytest

from paddler._fastpath import FRAMING_CHUNKED, FRAMING_RAW
from paddler.errors import ClientError
from paddler.net.connection import Exchange, HttpConnection
from paddler.net.http import HttpLimits, Response, Router, Site, json, text
from paddler.net.open_connections import OpenConnections
from paddler.net.read_buffer import READ_BUFFER
from paddler.proto.events import RequestHead
from paddler.proto.http1 import encode_chunk
from tests.net.conftest import Run
from tests.net.peers import Client, Waiting, get, health, leaving_no_cycles, post, serving, site_of


async def echo(exchange: Exchange) -> Response:
    request = exchange.request
    return Response(200, request.body or request.query.encode(), "x/y", (("x-path", request.path),))


async def stream(exchange: Exchange) -> None:
    exchange.start(200, "application/json", (("cache-control", "no-cache"),))
    exchange.write(b"a\n")
    exchange.write(b"")
    await asyncio.sleep(0)
    exchange.write(b"b\n")


async def starts_badly(exchange: Exchange) -> None:
    exchange.start(200, "text/plain", (("x-name", "two\r\nlines"),))


async def holds_and_flushes(exchange: Exchange) -> None:
    exchange.start(200, "text/plain", more=True)
    exchange.write(b"")  # whatever is held goes out before the wait
    await asyncio.sleep(3600)


async def stream_in_two(exchange: Exchange) -> None:
    """Two pieces that go out with the head, and one that goes out with the end."""
    exchange.start(200, "text/plain", more=True)
    exchange.write(b"a", more=True)
    exchange.write(b"b")
    await asyncio.sleep(0)
    exchange.write(b"c", more=True)
    exchange.finish()


QUICK = HttpLimits(
    head_timeout_s=0.05,
    body_progress_timeout_s=0.05,
    keep_alive_timeout_s=0.05,
    linger_timeout_s=0.05,
)
PATIENT_READER = HttpLimits(max_linger_bytes=1_000)

SITE = site_of(
    ("GET", "/health", health),
    ("POST", "/echo", echo),
    ("GET", "/echo", echo),
    ("GET", "/stream", stream),
    ("GET", "/agents/{id}", echo),
)


# --- requests and responses ----------------------------------------------------------------------


def test_response_is_framed_by_its_length(run: Run) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            answer = await client.ask(get("/health"))
            assert (answer.status, answer.body) == (200, b"OK")
            assert list(answer.headers) == [
                ("content-type", "text/plain; charset=utf-8"),
                ("content-length", "2"),
            ]

    run(check())


def test_requests_follow_each_other_on_one_connection(run: Run) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            assert (await client.ask(get("/echo?a=b"))).body == b"a=b"
            assert (await client.ask(post("/echo", b"body"))).body == b"body"
            assert (await client.ask(get("/missing"))).status == 404
            chunks = b"2\r\nab\r\n" * 1000 + b"0\r\n\r\n"
            wire = get("/echo", "Transfer-Encoding: chunked\r\n", method="POST") + chunks
            assert (await client.ask(wire)).body == b"ab" * 1000

    run(check())


def test_large_body_arrives_whole(run: Run) -> None:
    async def check() -> None:
        body = bytes(range(256)) * 20_000
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            assert (await client.ask(post("/echo", body))).body == body

    run(check())


def test_pipelined_requests_are_answered_in_order(run: Run) -> None:
    async def check() -> None:
        # More than may wait, so that reading stops and goes on again.
        wires = [get(f"/echo?{index}") for index in range(4_000)]
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            client.send(b"".join(wires))
            for index in range(4_000):
                assert (await client.answer()).body == b"%d" % index

    run(check())


def test_pipelined_request_knows_nothing_of_the_one_before(run: Run) -> None:
    seen: ContextVar[str] = ContextVar("seen", default="nothing")

    async def remember(exchange: Exchange) -> Response:
        before = seen.get()
        seen.set(exchange.request.path)
        return text(200, before)

    async def check() -> None:
        site = site_of(("GET", "/a", remember))
        async with serving(site) as listener, await Client.connect(listener) as client:
            client.send(get("/a") * 3)
            assert [(await client.answer()).body for _ in range(3)] == [b"nothing"] * 3

    run(check())


@pytest.mark.parametrize(
    ("wire", "status", "body", "allow"),
    [
        (get("/missing"), 404, b"", None),
        (get("/health", method="PUT"), 405, b"PUT is not allowed here (allowed: GET)", "GET"),
        (get("/health", method="NEW"), 405, b"NEW is not allowed here (allowed: GET)", "GET"),
        (post("/agents/1", b"x"), 405, b"POST is not allowed here (allowed: GET)", "GET"),
    ],
)
def test_unknown_paths_and_methods_are_refused_and_the_connection_goes_on(
    run: Run, wire: bytes, status: int, body: bytes, allow: str | None
) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            answer = await client.ask(wire)
            assert (answer.status, answer.body) == (status, body)
            assert answer.headers.get("allow") == allow
            assert (await client.ask(get("/health"))).body == b"OK"

    run(check())


def test_head_request_gets_no_body(run: Run) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            answer = await client.ask(get("/health", method="HEAD"))
            assert answer.status == 405
            assert int(answer.headers.get("content-length", "0")) > 0
            assert (await client.ask(get("/health"))).body == b"OK"

    run(check())


def test_bodiless_status_has_no_length(run: Run) -> None:
    async def no_content(exchange: Exchange) -> Response:
        return Response(204)

    async def check() -> None:
        site = site_of(("GET", "/", no_content))
        async with serving(site) as listener, await Client.connect(listener) as client:
            answer = await client.ask(get("/"))
            assert (answer.status, len(answer.headers)) == (204, 0)

    run(check())


@pytest.mark.parametrize(
    ("version", "fields", "connection", "is_kept"),
    [
        ("1.1", "", None, True),
        ("1.1", "Connection: close\r\n", "close", False),
        ("1.0", "", "close", False),
        ("1.0", "Connection: keep-alive\r\n", "keep-alive", True),
    ],
)
def test_connection_is_kept_as_agreed(
    run: Run, version: str, fields: str, connection: str | None, is_kept: bool
) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            answer = await client.ask(get("/health", fields, version))
            assert answer.headers.get("connection") == connection
            if is_kept:
                assert (await client.ask(get("/health", fields, version))).status == 200
            else:
                assert await client.is_ended()

    run(check())


# --- bodies that are announced, too long, or late ------------------------------------------------


def test_client_that_waits_for_leave_to_send_gets_it(run: Run) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            fields = "Content-Length: 2\r\nExpect: 100-continue\r\n"
            client.send(get("/echo", fields, method="POST"))
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert (await client.ask(b"ab")).body == b"ab"

    run(check())


def test_client_that_waits_for_leave_is_refused_before_the_body(run: Run) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            fields = "Content-Length: 2\r\nExpect: 100-continue\r\n"
            answer = await client.ask(get("/missing", fields, method="POST"))
            assert answer.status == 404
            assert answer.headers.get("connection") == "close"
            assert await client.is_ended()

    run(check())


@pytest.mark.parametrize("max_body_bytes", [10, None])
@pytest.mark.parametrize(
    "wire",
    [
        post("/", b"x" * 11),
        get("/", "Content-Length: 11\r\n", method="POST"),
        get("/", "Transfer-Encoding: chunked\r\n", method="POST") + b"b\r\n",
    ],
)
def test_body_beyond_its_limit_is_refused(
    run: Run, wire: bytes, max_body_bytes: int | None
) -> None:
    async def check() -> None:
        router = Router()
        router.add("POST", "/", echo, max_body_bytes=max_body_bytes)
        site = Site(router=router, max_body_bytes=10 if max_body_bytes is None else 1)
        async with serving(site) as listener, await Client.connect(listener) as client:
            answer = await client.ask(wire)
            assert answer.status == 413
            assert answer.body == b"body of 11 bytes is larger than allowed (limit: 10 bytes)"
            assert await client.is_ended()

    run(check())


def test_refused_client_can_read_why_though_it_is_still_sending(run: Run) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            wire = get("/echo", "Content-Length: 100000000\r\n", method="POST")
            answer = await client.ask(wire + bytes(500_000))
            assert answer.status == 413
            assert await client.is_ended()

    run(check())


def test_client_that_sends_on_and_on_after_a_refusal_is_cut(run: Run) -> None:
    async def check() -> None:
        site = site_of(limits=PATIENT_READER)
        async with serving(site) as listener, await Client.connect(listener) as client:
            client.send(b"\n")
            await client.reader.read()
            with contextlib.suppress(ConnectionError):
                while len(listener.connections):
                    client.send(bytes(1_001))
                    await client.writer.drain()

    run(check())


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"GET / HTTP/1.1\n", 400),
        (get("/", "Transfer-Encoding: gzip, chunked\r\n"), 501),
        (get("/", "Expect: x\r\n"), 417),
        (b"GET /" + b"a" * 9_000, 414),
        (get("/", "a: b\r\n" * 101), 431),
        (get("/").replace(b"1.1", b"3.0"), 505),
    ],
)
def test_offences_are_answered_and_end_the_connection(run: Run, wire: bytes, status: int) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            answer = await client.ask(wire)
            assert answer.status == status
            assert answer.headers.get("connection") == "close"
            assert answer.headers.get("content-type") == "text/plain; charset=utf-8"
            assert await client.is_ended()

    run(check())


def test_offence_behind_a_good_request_comes_after_its_answer(run: Run) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            assert (await client.ask(get("/health") + b"\n")).status == 200
            assert (await client.answer()).status == 400

    run(check())


def test_site_renders_refusals_in_its_own_shape(run: Run) -> None:
    def render(status: int, code: str, message: str, headers: object) -> Response:
        return json(status, f"{code}: {message}".encode())

    async def check() -> None:
        site = Site(router=Router(), render_error=render)
        async with serving(site) as listener, await Client.connect(listener) as client:
            assert (await client.ask(get("/x"))).body == b"not_found: no such path: /x"
            answer = await client.ask(get("/x", "Host: other\r\n"))
            assert answer.body == b"protocol_error: 2 Host fields; there must be one"

    run(check())


def test_what_the_guard_refuses_is_not_read(run: Run) -> None:
    def guard(head: RequestHead) -> Response | None:
        return text(421, "not here") if head.headers.get("host") == "other" else None

    async def check() -> None:
        router = Router()
        router.add("POST", "/echo", echo)
        site = Site(router=router, guard=guard, headers=(("x-site", "this"),))
        async with serving(site) as listener, await Client.connect(listener) as client:
            answer = await client.ask(post("/echo", b"body"))
            assert (answer.status, answer.headers.get_all("x-site")) == (200, ["this"])
            head = b"POST /echo HTTP/1.1\r\nHost: other\r\nContent-Length: 9\r\n\r\n"
            answer = await client.ask(head)  # its body never comes
            assert (answer.status, answer.body) == (421, b"not here")
            assert answer.headers.get_all("x-site") == ["this"]
            assert answer.headers.get("connection") == "close"

    run(check())


# --- handlers that fail --------------------------------------------------------------------------


def test_error_raised_on_purpose_becomes_a_response(run: Run) -> None:
    async def refuse(exchange: Exchange) -> Response:
        raise ClientError("no such agent", status=404, code="no_such_agent")

    async def check() -> None:
        site = site_of(("GET", "/", refuse))
        async with serving(site) as listener, await Client.connect(listener) as client:
            answer = await client.ask(get("/"))
            assert (answer.status, answer.body) == (404, b"no such agent")
            assert (await client.ask(get("/"))).status == 404

    run(check())


async def broken(exchange: Exchange) -> Response:
    raise KeyError("secret")


async def silent(exchange: Exchange) -> None:
    return


async def injecting(exchange: Exchange) -> Response:
    return Response(200, headers=(("x", "a\r\nb: c"),))


@pytest.mark.parametrize("handler", [broken, silent, injecting])
def test_bug_is_logged_once_and_not_shown(
    run: Run, caplog: pytest.LogCaptureFixture, handler: object
) -> None:
    async def check() -> None:
        site = site_of(("GET", "/", handler))  # type: ignore[arg-type]
        async with serving(site) as listener, await Client.connect(listener) as client:
            answer = await client.ask(get("/"))
            assert (answer.status, answer.body) == (500, b"internal server error")

    run(check())
    (record,) = caplog.records
    assert record.getMessage() == "GET / failed"
    assert record.exc_info is not None


async def breaks_midway(exchange: Exchange) -> None:
    exchange.start(200, "text/plain")
    exchange.write(b"half")
    raise KeyError("bug")


async def refuses_midway(exchange: Exchange) -> None:
    exchange.start(200, "text/plain")
    raise ClientError("too late")


async def answers_twice(exchange: Exchange) -> Response:
    exchange.start(200, "text/plain")
    exchange.finish()
    return text(200, "again")


async def starts_twice(exchange: Exchange) -> None:
    exchange.start(200, "text/plain")
    exchange.start(200, "text/plain")


async def writes_too_late(exchange: Exchange) -> None:
    exchange.start(200, "text/plain")
    exchange.finish()
    exchange.write(b"more")


@pytest.mark.parametrize(
    "handler",
    [breaks_midway, refuses_midway, answers_twice, starts_twice, writes_too_late],
)
def test_failure_after_the_response_began_cuts_the_connection(
    run: Run, caplog: pytest.LogCaptureFixture, handler: object
) -> None:
    async def check() -> None:
        site = site_of(("GET", "/", handler))  # type: ignore[arg-type]
        async with serving(site) as listener, await Client.connect(listener) as client:
            client.send(get("/"))
            with contextlib.suppress(ConnectionError):
                data = await client.reader.read()
                is_whole = handler in (answers_twice, writes_too_late)
                assert is_whole or not data.endswith(b"0\r\n\r\n")

    run(check())
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (asyncio.CancelledError(), []),
        (
            BaseExceptionGroup("several", [BaseException("one")]),
            ["a response could not be made"],
        ),
    ],
    ids=["cancels itself", "fails beyond errors"],
)
def test_handler_whose_task_breaks_off_leaves_no_connection(
    run: Run, caplog: pytest.LogCaptureFixture, error: BaseException, logged: list[str]
) -> None:
    async def breaking_off(exchange: Exchange) -> Response:
        raise error

    async def check() -> None:
        site = site_of(("GET", "/", breaking_off))
        async with serving(site) as listener, await Client.connect(listener) as client:
            client.send(get("/"))
            assert await client.is_ended()

    run(check())
    assert [record.getMessage() for record in caplog.records] == logged


def test_broken_error_page_cuts_the_connection(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    def render(status: int, code: str, message: str, headers: object) -> Response:
        raise KeyError(code)

    async def check() -> None:
        router = Router()
        router.add("GET", "/", broken)
        site = Site(router=router, render_error=render)
        async with serving(site) as listener, await Client.connect(listener) as client:
            client.send(get("/"))
            assert await client.is_ended()

    run(check())
    assert [record.getMessage() for record in caplog.records] == [
        "GET / failed",
        "a response could not be made",
    ]


# --- streams -------------------------------------------------------------------------------------


def test_stream_is_chunked_and_the_connection_goes_on(run: Run) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            for _ in range(2):
                answer = await client.ask(get("/stream"))
                assert answer.body == b"a\nb\n"
                assert answer.headers.get("cache-control") == "no-cache"
                assert answer.headers.get("transfer-encoding") == "chunked"

    run(check())


def test_stream_to_http_1_0_ends_with_the_connection(run: Run) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            answer = await client.ask(get("/stream", "Connection: keep-alive\r\n", "1.0"))
            assert answer.body == b"a\nb\n"
            assert "transfer-encoding" not in answer.headers
            assert answer.headers.get("connection") == "close"

    run(check())


def test_a_head_that_cannot_be_sent_is_an_error_of_ours(run: Run) -> None:
    async def check() -> None:
        site = site_of(("GET", "/", starts_badly))
        async with serving(site) as listener, await Client.connect(listener) as client:
            assert (await client.ask(get("/"))).status == 500

    run(check())


def test_a_write_of_nothing_sends_what_is_held(run: Run) -> None:
    async def check() -> None:
        site = site_of(("GET", "/", holds_and_flushes))
        async with serving(site) as listener, await Client.connect(listener) as client:
            client.send(get("/"))
            assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")

    run(check())


@pytest.mark.parametrize(
    ("version", "opening", "ending"),
    [
        ("1.1", b"\r\n\r\n1\r\na\r\n1\r\nb\r\n", b"1\r\nc\r\n0\r\n\r\n"),
        ("1.0", b"\r\n\r\nab", b"c"),
    ],
)
def test_pieces_that_follow_at_once_go_out_together(
    run: Run, monkeypatch: pytest.MonkeyPatch, version: str, opening: bytes, ending: bytes
) -> None:
    sent: list[bytes] = []
    send = HttpConnection.send

    def send_and_note(connection: HttpConnection, data: bytes) -> None:
        sent.append(data)
        send(connection, data)

    monkeypatch.setattr(HttpConnection, "send", send_and_note)

    async def check() -> None:
        site = site_of(("GET", "/", stream_in_two))
        async with serving(site) as listener, await Client.connect(listener) as client:
            assert (await client.ask(get("/", version=version))).body == b"abc"

    run(check())
    assert len(sent) == 2
    assert sent[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent[0].endswith(opening)
    assert sent[1] == ending


@pytest.mark.parametrize(
    ("version", "framing", "framed"),
    [("1.1", FRAMING_CHUNKED, b"3\r\nraw\r\n"), ("1.0", FRAMING_RAW, b"raw")],
)
def test_raw_writes_carry_the_framing_that_the_exchange_names(
    run: Run, version: str, framing: int, framed: bytes
) -> None:
    async def raw(exchange: Exchange) -> None:
        exchange.start(200, "text/plain")
        assert exchange.framing == framing
        exchange.write_raw(framed)
        assert exchange.is_started
        exchange.finish()
        assert exchange.is_finished

    async def check() -> None:
        site = site_of(("GET", "/", raw))
        async with serving(site) as listener, await Client.connect(listener) as client:
            assert (await client.ask(get("/", version=version))).body == b"raw"

    run(check())


def test_raw_writes_keep_their_place_whatever_the_client_reads(run: Run) -> None:
    written: list[bytes] = []
    paused = asyncio.Event()

    def piece() -> bytes:
        written.append(b"%08d" % len(written) * 1_000)
        return written[-1]

    async def flood(exchange: Exchange) -> None:
        exchange.start(200, "text/plain")
        for _ in range(3):
            while not exchange.flow.is_paused:
                exchange.write_raw(encode_chunk(piece()))
                exchange.write(piece())
            exchange.write_raw(encode_chunk(piece()))
            paused.set()
            await exchange.flow.drain()

    async def check() -> None:
        site = site_of(("GET", "/", flood))
        async with serving(site) as listener, await Client.connect(listener) as client:
            client.writer.transport.pause_reading()
            client.send(get("/"))
            await paused.wait()
            client.writer.transport.resume_reading()
            assert (await client.answer()).body == b"".join(written)

    run(check())


def test_stream_is_cut_where_the_handler_aborts(run: Run) -> None:
    async def abort(exchange: Exchange) -> None:
        exchange.start(200, "text/plain")
        exchange.abort()
        exchange.write(b"to nobody")

    async def check() -> None:
        site = site_of(("GET", "/", abort))
        async with serving(site) as listener, await Client.connect(listener) as client:
            client.send(get("/"))
            with contextlib.suppress(ConnectionError):
                assert b"0\r\n\r\n" not in await client.reader.read()

    run(check())


def test_flow_tells_of_a_reader_that_does_not_keep_up(run: Run) -> None:
    async def flood(exchange: Exchange) -> None:
        exchange.start(200, "text/plain")
        while not exchange.flow.is_paused:
            exchange.write(bytes(100_000))
        paused.set()
        await exchange.flow.drain()
        exchange.write(b"end")

    paused = asyncio.Event()

    async def check() -> None:
        site = site_of(("GET", "/", flood))
        async with serving(site) as listener, await Client.connect(listener) as client:
            client.send(get("/"))
            await paused.wait()
            assert (await client.answer()).body.endswith(b"end")

    run(check())


def test_stream_whose_client_does_not_read_is_cut_at_the_bound(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def flood(exchange: Exchange) -> None:
        entered.set()
        exchange.start(200, "text/plain")
        while True:
            exchange.write(bytes(100_000))
            await asyncio.sleep(0)

    entered = asyncio.Event()

    async def check() -> None:
        site = site_of(("GET", "/", flood))
        async with serving(site) as listener, await Client.connect(listener) as client:
            client.writer.transport.pause_reading()
            client.send(get("/"))
            await entered.wait()
            await listener.connections.wait_empty()

    run(check())
    assert "cutting a client: it left" in caplog.text


# --- clients that leave --------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["close", "half-close", "reset"])
@pytest.mark.parametrize("starts", [False, True])
def test_handler_is_cancelled_when_its_client_leaves(run: Run, leave: str, starts: bool) -> None:
    async def check() -> None:
        handler = Waiting(starts=starts)
        site = site_of(("POST", "/", handler))
        async with serving(site) as listener:
            with socket.create_connection((listener.host, listener.port)) as client:
                client.sendall(post("/", b"x"))
                await handler.entered.wait()
                if leave == "half-close":
                    client.shutdown(socket.SHUT_WR)
                elif leave == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if leave != "half-close":
                    client.close()
                await handler.ended.wait()
            assert handler.is_cancelled

    run(check())


class Silent(asyncio.Transport):
    """Takes nothing and tells nothing."""

    def is_closing(self) -> bool:
        return False


def test_client_that_leaves_before_its_handler_runs_leaves_nothing(run: Run) -> None:
    async def check() -> None:
        handler, connections = Waiting(), OpenConnections()
        connection = HttpConnection(site_of(("GET", "/", handler)), connections)
        connection.connection_made(Silent())
        wire = get("/")
        READ_BUFFER[: len(wire)] = wire
        connection.buffer_updated(len(wire))
        connection.connection_lost(None)  # in the same turn: its task has not begun
        await connections.wait_empty()
        assert not handler.entered.is_set()

    with leaving_no_cycles():
        run(check())


def test_clients_that_leave_leave_no_cycles_behind(run: Run) -> None:
    async def check() -> None:
        handler = Waiting(starts=True)
        async with serving(site_of(("POST", "/", handler))) as listener:
            for _ in range(5):
                with socket.create_connection((listener.host, listener.port)) as client:
                    client.sendall(post("/", b"x"))
                    await handler.entered.wait()
                await listener.connections.wait_empty()
                handler.entered.clear()

    with leaving_no_cycles():
        run(check())


# --- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wire", [b"GET / HT", get("/echo", "Content-Length: 3\r\n", method="POST") + b"ab"]
)
def test_client_that_dawdles_is_answered_408(run: Run, wire: bytes) -> None:
    async def check() -> None:
        site = site_of(("POST", "/echo", echo), limits=QUICK)
        async with serving(site) as listener, await Client.connect(listener) as client:
            assert (await client.ask(wire)).status == 408
            assert await client.is_ended()

    run(check())


def test_head_timeout_is_not_prolonged_by_more_of_the_head(run: Run) -> None:
    async def check() -> None:
        site = site_of(limits=QUICK)
        async with serving(site) as listener, await Client.connect(listener) as client:
            client.send(b"GET / HTTP/1.1\r\n")
            answer = asyncio.ensure_future(client.answer())
            while not answer.done():
                client.send(b"a: b\r\n")
                await asyncio.wait([answer], timeout=QUICK.head_timeout_s / 5)
            assert answer.result().status == 408

    run(check())


TRICKLES = {
    "length": (post("/echo", bytes(1_000_000))[:-1_000_000], b"x"),
    "chunks": (get("/echo", "Transfer-Encoding: chunked\r\n", method="POST"), b"1\r\nx\r\n"),
}


@pytest.mark.parametrize("framing", TRICKLES)
def test_body_timeout_is_not_prolonged_by_a_trickle(run: Run, framing: str) -> None:
    async def check() -> None:
        head, drop = TRICKLES[framing]
        site = site_of(("POST", "/echo", echo), limits=QUICK)
        async with serving(site) as listener, await Client.connect(listener) as client:
            client.send(head)
            answer = asyncio.ensure_future(client.answer())
            while not answer.done():
                client.send(drop)
                await asyncio.wait([answer], timeout=QUICK.body_progress_timeout_s / 5)
            assert answer.result().status == 408
            assert b"expected its end, or 4096 bytes" in answer.result().body

    run(check())


def test_body_that_comes_slowly_but_surely_is_taken(run: Run) -> None:
    async def check() -> None:
        limits = HttpLimits(body_progress_timeout_s=1.0, body_step_bytes=100)
        site = site_of(("POST", "/echo", echo), limits=limits)
        async with serving(site) as listener, await Client.connect(listener) as client:
            body = bytes(3_000)
            client.send(post("/echo", body)[: -len(body)])
            for at in range(0, len(body), 100):
                client.send(body[at : at + 100])
                await asyncio.sleep(0.05)  # all of it takes longer than the timeout
            assert (await client.answer()).body == body

    run(check())


@pytest.mark.parametrize("wire", [b"", get("/health")])
def test_idle_connection_is_closed_without_a_word(run: Run, wire: bytes) -> None:
    async def check() -> None:
        site = site_of(("GET", "/health", health), limits=QUICK)
        async with serving(site) as listener, await Client.connect(listener) as client:
            if wire:
                await client.ask(wire)
            assert await client.is_ended()

    run(check())


def test_handler_may_take_longer_than_any_timeout(run: Run) -> None:
    async def slow(exchange: Exchange) -> Response:
        await asyncio.sleep(4 * QUICK.head_timeout_s)
        return text(200, "late")

    async def check() -> None:
        site = site_of(("GET", "/", slow), limits=QUICK)
        async with serving(site) as listener, await Client.connect(listener) as client:
            assert (await client.ask(get("/"))).body == b"late"

    run(check())


def test_client_that_never_reads_its_response_is_cut(run: Run) -> None:
    async def large(exchange: Exchange) -> Response:
        entered.set()
        return Response(200, bytes(20_000_000))

    entered = asyncio.Event()

    async def check() -> None:
        site = site_of(("GET", "/", large), limits=QUICK)
        async with serving(site) as listener:
            with socket.create_connection((listener.host, listener.port)) as client:
                client.sendall(get("/"))
                await entered.wait()
                await listener.connections.wait_empty()

    run(check())


def test_client_that_reads_slowly_but_surely_is_not_cut(run: Run) -> None:
    async def large(exchange: Exchange) -> Response:
        return Response(200, bytes(8_000_000))

    async def check() -> None:
        site = site_of(("GET", "/", large), limits=HttpLimits(body_progress_timeout_s=0.2))
        async with serving(site) as listener, await Client.connect(listener) as client:
            client.send(get("/"))
            got_bytes = 0
            while got_bytes < 8_000_000:
                got_bytes += len(await client.reader.read(400_000))
                await asyncio.sleep(0.01)

    run(check())


def test_refused_client_that_stays_is_cut_after_the_linger_time(run: Run) -> None:
    async def check() -> None:
        site = site_of(limits=QUICK)
        async with serving(site) as listener, await Client.connect(listener) as client:
            assert (await client.ask(b"\n")).status == 400
            await listener.connections.wait_empty()

    run(check())
