"""Outgoing WebSocket connections, and when to try again."""

import asyncio
import os
import ssl
from collections.abc import Callable
from typing import Final, cast

from paddler.errors import PaddlerError, RemoteProtocolError
from paddler.net.read_buffer import READ_BUFFER
from paddler.net.websocket import (
    DEFAULT_SETTINGS,
    OpenHandler,
    WebSocketConnection,
    WebSocketSettings,
)
from paddler.proto.events import BodyEnd, BodyPart, Fields, HttpEvent, ResponseHead
from paddler.proto.http1 import ClientConnection
from paddler.proto.ws_handshake import ClientHandshake
from paddler.tls import tls_reason

_MAX_SNIPPET_BYTES: Final = 300  # of a refusal's body: enough for a sentence of text


class ConnectFailed(PaddlerError):
    """No WebSocket could be opened; the message says where and why.

    ``http_status`` is the server's answer, where it gave one instead.
    """

    status = 502
    code = "connect_failed"

    def __init__(self, message: str, *, http_status: int | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status


async def connect_websocket(
    host: str,
    port: int,
    path: str,
    open_handler: OpenHandler,
    *,
    connect_timeout_s: float,
    settings: WebSocketSettings = DEFAULT_SETTINGS,
    headers: Fields = (),
    tls: ssl.SSLContext | None = None,
) -> WebSocketConnection:
    """An open WebSocket to ``ws://host:port{path}``; ``ConnectFailed`` otherwise.

    ``headers`` are sent along. ``tls``: by ``wss``.
    ``connect_timeout_s`` covers everything from the name look-up to the answer. Cancelling
    leaves nothing behind.
    """
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    url = f"{'ws' if tls is None else 'wss'}://{authority}{path}"
    try:
        async with asyncio.timeout(connect_timeout_s):
            transport, opening = await asyncio.get_running_loop().create_connection(
                lambda: _Opening(url, authority, path, open_handler, settings, headers),
                host,
                port,
                ssl=tls,
            )
            try:
                return await opening.opened
            except BaseException:
                transport.abort()
                raise
    except TimeoutError:
        raise ConnectFailed(f"{url} did not answer within {connect_timeout_s:g} s") from None
    except (OSError, UnicodeError) as error:
        raise ConnectFailed(f"cannot connect to {url}: {_reason(error)}") from error
    except RemoteProtocolError as error:
        raise ConnectFailed(f"no WebSocket at {url}: {error}") from error


def _reason(error: Exception) -> str:
    """What the system says, in the same words on every event loop."""
    if isinstance(error, ssl.SSLError):
        return tls_reason(error)
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error)


class _Opening(asyncio.BufferedProtocol):
    """A transport's protocol until the handshake is through."""

    def __init__(
        self,
        url: str,
        authority: str,
        path: str,
        open_handler: OpenHandler,
        settings: WebSocketSettings,
        headers: Fields,
    ) -> None:
        self.opened: asyncio.Future[WebSocketConnection] = (
            asyncio.get_running_loop().create_future()
        )
        self._url = url
        self._handshake = ClientHandshake(authority, path, headers)
        self._http = ClientConnection()
        self._open_handler = open_handler
        self._settings = settings
        self._refusal_status = 0
        self._refusal_body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._handshake.request)

    def get_buffer(self, sizehint: int) -> memoryview:
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self._run(lambda: self._http.feed(READ_BUFFER[:nbytes]))

    def eof_received(self) -> None:
        self._run(self._http.feed_eof)

    def connection_lost(self, exc: Exception | None) -> None:
        # uvloop's TLS sends no alert: whoever refuses a certificate just closes.
        is_tls = self._url.startswith("wss:")
        hint = "does it ask for a certificate?" if is_tls else "does it speak TLS?"
        reason = exc or ConnectionResetError(
            f"the server closed the connection without an answer; {hint}"
        )
        self._fail(reason)
        if not self.opened.cancelled():
            self.opened.exception()  # whoever waited may be gone

    def _run(self, read: Callable[[], list[HttpEvent]]) -> None:
        try:
            for event in read():
                self._on_event(event)
        except Exception as error:
            self._fail(error)

    def _on_event(self, event: HttpEvent) -> None:
        match event:
            case ResponseHead(status=101):
                self._handshake.check(event)
            case ResponseHead():
                self._refusal_status = event.status
            case BodyPart(data):
                self._refusal_body += data
                if len(self._refusal_body) >= _MAX_SNIPPET_BYTES:
                    self._reject()
            case BodyEnd() if self._refusal_status >= 200:
                self._reject()
            case _:
                self._open()

    def _open(self) -> None:
        if self.opened.done():
            return
        connection = WebSocketConnection(
            self._open_handler, is_client=True, settings=self._settings
        )
        leftover = self._http.switch()
        connection.open(self._transport, leftover)
        self.opened.set_result(connection)

    def _reject(self) -> None:
        snippet = self._refusal_body[:_MAX_SNIPPET_BYTES].decode(errors="replace").strip()
        self._fail(
            ConnectFailed(
                f"no WebSocket at {self._url}: the server answered {self._refusal_status}"
                + (f": {snippet}" if snippet else ""),
                http_status=self._refusal_status,
            )
        )

    def _fail(self, error: Exception) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)


class Backoff:
    """Growing delays between tries: from ``first_s``, doubling, to ``max_s``.

    Each is drawn from the upper half of its span, so that a fleet that lost its balancer
    does not return in step. ``random`` gives values in [0, 1).
    """

    def __init__(self, first_s: float, max_s: float, random: Callable[[], float]) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._random = random
        self._span_s = first_s

    def next(self) -> float:
        """Seconds to wait before the next try."""
        span_s = self._span_s
        self._span_s = min(2 * span_s, self._max_s)
        return span_s * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """A try succeeded: begin anew."""
        self._span_s = self._first_s
