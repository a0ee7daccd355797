"""Peers for the network tests: a site that is served, and a client that sends any bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self

import msgspec

from paddler.net.http import Handler, HttpLimits, Router, Site
from paddler.net.server import Listener, listen
from paddler.proto.events import BodyEnd, BodyPart, Headers, HttpEvent, ResponseHead
from paddler.proto.http1 import ClientConnection


class Answer(msgspec.Struct):
    """A response as it was read."""

    status: int
    headers: Headers
    body: bytes


@contextlib.asynccontextmanager
async def serving(site: Site) -> AsyncIterator[Listener]:
    """Serves ``site`` on a free port; nothing is left of it afterwards."""
    listener = await listen(site, "127.0.0.1", 0)
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


class Client:
    """An HTTP client that sends exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._http: ClientConnection | None = None

    @classmethod
    async def connect(cls, listener: Listener) -> Self:
        return cls(*await asyncio.open_connection(listener.host, listener.port))

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
