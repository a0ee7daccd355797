"""The ends of connections over TLS, which knows no half-close."""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from paddler._fastpath import encode_frame
from paddler.config import ServerTls
from paddler.net.connection import Exchange
from paddler.net.http import HttpLimits, Response
from paddler.net.server import Listener
from paddler.tls import reload_context, server_context
from tests.net.conftest import Run
from tests.net.peers import Client, Socket, get, health, leaving_no_cycles, serving, site_of

KEY = 0x01020304
CLOSE = 8
SITE = site_of(("GET", "/health", health))
UPGRADE = get(
    "/socket",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n",
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    records = caplog.get_records("call")
    assert [record.getMessage() for record in records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"rubbish\r\n\r\n", 400),
        (get("/nowhere", "Content-Length: 1000\r\n", method="POST"), 404),
        (get("/health", "Connection: close\r\n") + get("/health"), 200),
    ],
    ids=["rubbish", "a body that never comes", "a request behind the last"],
)
def test_the_last_answer_arrives_and_the_connection_ends(
    run: Run, server: ssl.SSLContext, client: ssl.SSLContext, wire: bytes, status: int
) -> None:
    async def check() -> None:
        async with (
            serving(SITE, server) as listener,
            await Client.connect(listener, client) as peer,
        ):
            assert (await peer.ask(wire)).status == status
            assert await peer.is_ended()

    run(check())


def test_a_close_frame_is_answered_and_the_connection_ends(
    run: Run, server: ssl.SSLContext, client: ssl.SSLContext
) -> None:
    async def check() -> None:
        route = Socket()
        async with (
            serving(route.site, server) as listener,
            await Client.connect(listener, client) as peer,
        ):
            peer.send(UPGRADE)
            await peer.reader.readuntil(b"\r\n\r\n")
            handler = await route.opened.get()
            peer.send(encode_frame(CLOSE, b"\x03\xe8ok", KEY))
            assert (await peer.reader.read()).endswith(encode_frame(CLOSE, b""))
            assert await handler.closed == (1000, "ok")

    run(check())


# --- what is known only of the connection under TLS: see tls_server ---


def run_on_uvloop(coroutine: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await coroutine

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


def test_raw_writes_are_encrypted(run: Run, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    async def raw(exchange: Exchange) -> None:
        exchange.start(200, "text/plain")
        exchange.write_raw(b"3\r\nraw\r\n")

    async def check() -> None:
        async with (
            serving(site_of(("GET", "/", raw)), server) as listener,
            await Client.connect(listener, client) as peer,
        ):
            assert (await peer.ask(get("/"))).body == b"raw"

    run(check())


async def dial(listener: Listener, client: ssl.SSLContext) -> ssl.SSLSocket:
    """A client that does nothing by itself, not even answer a close_notify."""

    def connect() -> ssl.SSLSocket:
        plain = socket.create_connection((listener.host, listener.port), timeout=5)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        return client.wrap_socket(plain, server_hostname="127.0.0.1")

    return await asyncio.to_thread(connect)


def test_an_idle_connection_holds_no_stop_up(
    server: ssl.SSLContext, client: ssl.SSLContext
) -> None:
    async def check() -> None:
        async with serving(SITE, server) as listener:
            with await dial(listener, client) as peer:
                await asyncio.to_thread(peer.sendall, get("/health"))
                assert (await asyncio.to_thread(peer.recv, 1000)).startswith(b"HTTP/1.1 200")
                async with asyncio.timeout(1):
                    await listener.stop(8)

    run_on_uvloop(check())


def test_a_client_that_ends_and_reads_nothing_is_gone(
    server: ssl.SSLContext, client: ssl.SSLContext
) -> None:
    is_full, has_ended = asyncio.Event(), asyncio.Event()

    async def stream(exchange: Exchange) -> None:
        exchange.start(200, "text/plain")
        try:
            while True:
                if not exchange.flow.is_paused:
                    exchange.write(b"x" * 65_536)
                if exchange.flow.is_paused:
                    is_full.set()
                await asyncio.sleep(0.001)
        finally:
            has_ended.set()

    async def check() -> None:
        async with serving(site_of(("GET", "/stream", stream)), server) as listener:
            with await dial(listener, client) as peer:
                await asyncio.to_thread(peer.sendall, get("/stream"))
                await is_full.wait()
                with socket.socket(fileno=os.dup(peer.fileno())) as same:
                    same.shutdown(socket.SHUT_WR)
                await has_ended.wait()

    run_on_uvloop(check())


def test_a_slow_reader_of_the_last_answer_gets_all_of_it(
    server: ssl.SSLContext, client: ssl.SSLContext
) -> None:
    body = b"x" * 12_000_000

    async def big(exchange: Exchange) -> Response:
        return Response(200, body)

    site = site_of(("GET", "/big", big), limits=HttpLimits(body_progress_timeout_s=1.0))

    def read(peer: ssl.SSLSocket) -> int:
        began, count = time.monotonic(), 0
        while piece := peer.recv(65_536):
            count += len(piece)
            ahead_s = count / 3e6 - (time.monotonic() - began)
            time.sleep(max(0.0, ahead_s))
        return count

    async def check() -> None:
        async with serving(site, server) as listener:
            with await dial(listener, client) as peer:
                await asyncio.to_thread(peer.sendall, get("/big", "Connection: close\r\n"))
                assert await asyncio.to_thread(read, peer) > len(body)

    run_on_uvloop(check())


def test_a_connection_leaves_no_cycle_behind(
    server: ssl.SSLContext, client: ssl.SSLContext
) -> None:
    async def check() -> None:
        async with (
            serving(SITE, server) as listener,
            await Client.connect(listener, client) as peer,
        ):
            assert (await peer.ask(get("/health", "Connection: close\r\n"))).status == 200
            assert await peer.is_ended()

    with leaving_no_cycles():
        run_on_uvloop(check())


@pytest.mark.parametrize("key_type", list(trustme.KeyType))
def test_a_certificate_is_replaced_by_one_with_another_type_of_key(
    tmp_path: Path, authority: trustme.CA, client: ssl.SSLContext, key_type: trustme.KeyType
) -> None:
    tls = ServerTls("--test-tls", str(tmp_path / "cert"), str(tmp_path / "key"))

    def issue(key_type: trustme.KeyType) -> bytes:
        issued = authority.issue_cert("127.0.0.1", key_type=key_type)
        issued.private_key_pem.write_to_path(tls.key)
        issued.cert_chain_pems[0].write_to_path(tls.cert)
        return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())

    (other,) = set(trustme.KeyType) - {key_type}
    issue(other)
    context = server_context(tls)
    new = issue(key_type)
    reload_context(context, tls)
    assert shake_hands(context, client).getpeercert(binary_form=True) == new


def test_the_authority_of_clients_is_replaced(
    tmp_path: Path, authority: trustme.CA, client: ssl.SSLContext
) -> None:
    old, new = trustme.CA(), trustme.CA()
    client_ca = tmp_path / "client-ca"
    tls = ServerTls("--test-tls", str(tmp_path / "cert"), str(tmp_path / "key"), str(client_ca))
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tls.key)
    issued.cert_chain_pems[0].write_to_path(tls.cert)
    old.cert_pem.write_to_path(client_ca)
    context = server_context(tls)
    old.issue_cert("client").configure_cert(client)
    shake_hands(context, client)
    new.cert_pem.write_to_path(client_ca)
    reload_context(context, tls)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(context, client)
    new.issue_cert("client").configure_cert(client)
    shake_hands(context, client)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """The client's end of a connection."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for side in (theirs, ours, theirs, ours):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return theirs
