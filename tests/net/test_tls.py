"""The ends of connections over TLS, which knows no half-close."""

import ssl
from collections.abc import Iterator

import pytest
import trustme

from paddler._fastpath import encode_frame
from tests.net.conftest import Run
from tests.net.peers import Client, Socket, get, health, serving, site_of

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
