"""Both ends for the network tests: sites and handlers, a client that sends any bytes."""

import asyncio
import contextlib
import gc
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Self

import msgspec

from paddler.net.client import connect_websocket
from paddler.net.connection import Exchange, HttpConnection
from paddler.net.http import Handler, HttpLimits, Response, Router, Site, text
from paddler.net.server import Listener, listen
from paddler.net.websocket import DEFAULT_SETTINGS, WebSocketConnection, WebSocketSettings
from paddler.proto.events import BodyEnd, BodyPart, Headers, HttpEvent, ResponseHead
from paddler.proto.http1 import ClientConnection


class Answer(msgspec.Struct):
    """A response as it was read."""

    status: int
    headers: Headers
    body: bytes


@contextlib.asynccontextmanager
async def serving(site: Site, tls: ssl.SSLContext | None = None) -> AsyncIterator[Listener]:
    """Serves ``site`` on a free port; nothing is left of it afterwards."""
    listener = await listen(site, "127.0.0.1", 0, tls)
    try:
        yield listener
    finally:
        await listener.stop(0.0)
        assert len(listener.connections) == 0


def site_of(*routes: tuple[str, str, Handler], limits: HttpLimits | None = None) -> Site:
    """A site with these routes."""
    router = Router()
    for method, pattern, handler in routes:
        router.add(method, pattern, handler)
    return Site(router=router, limits=limits or HttpLimits())


@contextlib.contextmanager
def leaving_no_cycles() -> Iterator[None]:
    """For a block at whose end no connection may be left that only a collection would find."""

    def count() -> int:
        return sum(type(one) is HttpConnection for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = count()
        yield
        assert count() == before
    finally:
        gc.enable()


class Client:
    """An HTTP client that sends exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._http: ClientConnection | None = None

    @classmethod
    async def connect(cls, listener: Listener, tls: ssl.SSLContext | None = None) -> Self:
        return cls(*await asyncio.open_connection(listener.host, listener.port, ssl=tls))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, method: str = "GET") -> Answer:
        """The next response, whole; an error if the connection ends within it."""
        events: list[HttpEvent] = []
        if self._http is None:
            self._http = ClientConnection(method)
        else:
            events = self._http.next_response(method)
        while not (events and isinstance(events[-1], BodyEnd)):
            data = await self.reader.read(65_536)
            events += self._http.feed(data) if data else self._http.feed_eof()
            if not data and not (events and isinstance(events[-1], BodyEnd)):
                raise ConnectionResetError("the connection ended without a response")
        head = next(e for e in events if isinstance(e, ResponseHead) and e.status >= 200)
        body = b"".join(e.data for e in events if isinstance(e, BodyPart))
        return Answer(head.status, head.headers, body)

    async def ask(self, wire: bytes) -> Answer:
        """Sends ``wire`` and reads one response."""
        self.send(wire)
        return await self.answer(wire.split(b" ", 1)[0].decode())

    async def is_ended(self) -> bool:
        """Waits for the end of the connection; whether nothing came before it."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


def get(path: str, fields: str = "", version: str = "1.1", method: str = "GET") -> bytes:
    """A request without a body."""
    return f"{method} {path} HTTP/{version}\r\nHost: test\r\n{fields}\r\n".encode()


def post(path: str, body: bytes, fields: str = "") -> bytes:
    """A request with a body."""
    return get(path, f"Content-Length: {len(body)}\r\n{fields}", method="POST") + body


# --- handlers ---


async def health(exchange: Exchange) -> Response:
    return text(200, "OK")


class Waiting:
    """A handler that runs until it is cancelled or let go."""

    def __init__(self, *, starts: bool = False) -> None:
        self.entered = asyncio.Event()
        self.let_go = asyncio.Event()
        self.ended = asyncio.Event()
        self.is_cancelled = False
        self._starts = starts

    async def __call__(self, exchange: Exchange) -> Response | None:
        if self._starts:
            exchange.start(200, "text/plain")
            exchange.write(b"begun")
        self.entered.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        finally:
            self.ended.set()
        return None if self._starts else text(200, "done")


# --- WebSockets ---

Message = tuple[str, bytes]


class Recorder:
    """A handler that keeps what it is given, for tests to wait on."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.closed: asyncio.Future[tuple[int | None, str]] = (
            asyncio.get_running_loop().create_future()
        )

    def on_text(self, data: memoryview) -> None:
        self.messages.put_nowait(("text", bytes(data)))

    def on_binary(self, data: memoryview) -> None:
        self.messages.put_nowait(("binary", bytes(data)))

    def on_closed(self, code: int | None, reason: str) -> None:
        self.closed.set_result((code, reason))  # an error when called twice


class Socket:
    """A site with one socket route, and the handlers of what connected to it."""

    def __init__(
        self,
        open_handler: Callable[[WebSocketConnection], Recorder] = Recorder,
        settings: WebSocketSettings = DEFAULT_SETTINGS,
    ) -> None:
        self.opened: asyncio.Queue[Recorder] = asyncio.Queue()
        self._open_handler = open_handler
        self._settings = settings

    async def __call__(self, exchange: Exchange) -> None:
        def open_handler(connection: WebSocketConnection) -> Recorder:
            handler = self._open_handler(connection)
            self.opened.put_nowait(handler)
            return handler

        exchange.accept_websocket(open_handler, self._settings)

    @property
    def site(self) -> Site:
        return site_of(("GET", "/socket", self))


async def connect(listener: Listener, settings: WebSocketSettings = DEFAULT_SETTINGS) -> Recorder:
    """A client's end of a new WebSocket."""
    recorders: list[Recorder] = []

    def open_handler(connection: WebSocketConnection) -> Recorder:
        recorders.append(Recorder(connection))
        return recorders[0]

    connection = await connect_websocket(
        listener.host,
        listener.port,
        "/socket",
        open_handler,
        connect_timeout_s=5.0,
        settings=settings,
    )
    assert connection is recorders[0].connection
    return recorders[0]
