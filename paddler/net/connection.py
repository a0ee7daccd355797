"""One HTTP/1.1 connection of a listener: from bytes to a handler and back.

Requests are served one after the other. A head is routed as soon as it is there, so that
what will be refused is refused before its body comes. The handler then runs as one task;
while it does, whatever the client sends ahead waits, and the client's end cancels it.

    idle ─► head ─► body ─► handler runs ─► response is sent ─► idle
               └──────┴─► refused ─► linger ─► closed         └─► closed

"Client's end" is a reset and a half-close alike: whoever stops sending is taken as gone.
"""

import asyncio
import contextvars
import logging
import math
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final, cast

from paddler._fastpath import FRAMING_CHUNKED, FRAMING_RAW
from paddler.errors import ClientError, PaddlerError, RemoteProtocolError
from paddler.net.cors import PREFLIGHT_FIELDS, Cors
from paddler.net.flow import FlowControl
from paddler.net.half_close import end_output
from paddler.net.http import (
    Handler,
    Match,
    MethodNotAllowed,
    Refusal,
    Request,
    Response,
    Site,
    text,
)
from paddler.net.open_connections import OpenConnections
from paddler.net.read_buffer import READ_BUFFER
from paddler.net.socket_writer import writer_of
from paddler.net.tls_server import close, forget, unsent_bytes, watch_end
from paddler.net.websocket import (
    DEFAULT_SETTINGS,
    OpenHandler,
    WebSocketConnection,
    WebSocketSettings,
)
from paddler.proto.events import BodyEnd, BodyPart, Fields, HttpEvent, RequestHead
from paddler.proto.http1 import (
    CONTINUE,
    LAST_CHUNK,
    ServerConnection,
    State,
    encode_chunk,
    encode_response_head,
)

_log = logging.getLogger(__name__)

NO_ORIGINS: Final = Cors(frozenset())

_CLOSE: Final = ("connection", "close")
_KEEP_ALIVE: Final = ("connection", "keep-alive")
# With status 426 (RFC 9110 §15.5.22, RFC 6455 §4.4).
_UPGRADE_REQUIRED_FIELDS: Final = (
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
)
_BODILESS_STATUSES: Final = frozenset({204, 304})


class TooManyConnections(PaddlerError):
    """File descriptors run out, so that a new connection cannot stay."""

    status = 503
    code = "too_many_connections"

    def __init__(self) -> None:
        super().__init__("there are too many connections: try again later")


class _Waiting(Enum):
    """What the connection's timer watches."""

    FOR_REQUEST = auto()
    FOR_HEAD = auto()
    FOR_BODY = auto()
    FOR_HANDLER = auto()
    """Nothing: how long an answer may take is the handler's affair."""
    FOR_READER = auto()
    """The response is complete but not all of it is sent."""
    FOR_END = auto()
    """Lingering: our side has ended, the client's is still to end."""


class Exchange:
    """One request and its response, as a handler sees them.

    The handler returns a complete ``Response``, or streams one (``start``, any number of
    ``write``, ``finish``), or accepts a WebSocket, and then returns ``None``. A handler that
    fails after ``start`` has its connection cut, so that a broken stream never looks whole.
    """

    __slots__ = (
        "_connection",
        "_head",
        "_held",
        "_is_finished",
        "_is_started",
        "_transport",
        "request",
    )

    def __init__(
        self,
        connection: "HttpConnection",
        transport: asyncio.Transport,
        head: RequestHead,
        request: Request,
    ) -> None:
        self.request = request
        self._connection = connection
        self._transport = transport
        self._head = head
        self._held = b""
        self._is_started = False
        self._is_finished = False

    @property
    def is_started(self) -> bool:
        """Whether the response began: its status can no longer change."""
        return self._is_started

    @property
    def is_finished(self) -> bool:
        """Whether the response is complete."""
        return self._is_finished

    @property
    def flow(self) -> FlowControl:
        """Whether the client keeps up."""
        return self._connection.flow

    @property
    def peer(self) -> str:
        """The client's address, for people."""
        peername = self._transport.get_extra_info("peername")
        return str(peername[0]) if peername else "unknown"

    @property
    def sender(self) -> str:
        """Who sent the request, for people: by name, where callers are known, and address."""
        principal = self.request.principal
        return f"{principal} ({self.peer})" if principal else self.peer

    @property
    def framing(self) -> int:
        """How a streamed body is framed: ``FRAMING_CHUNKED``, or ``FRAMING_RAW`` for HTTP/1.0."""
        return FRAMING_CHUNKED if self._head.version_minor == 1 else FRAMING_RAW

    def start(
        self, status: int, content_type: str, headers: Fields = (), *, more: bool = False
    ) -> None:
        """Send the head of a streamed response; ``more`` as for :meth:`write`."""
        if self._is_started:
            raise RuntimeError("the response has begun already")
        fields = (("content-type", content_type), *headers)
        if self.framing == FRAMING_CHUNKED:
            fields += (("transfer-encoding", "chunked"),)
        else:
            self._connection.keep_alive = False  # only the connection's end ends the body
        head = self._connection.encode_head(status, fields)
        self._is_started = True
        self._send(head, more=more)

    def write(self, data: bytes, *, more: bool = False) -> None:
        """Send a piece of the body.

        ``more``: another piece, or the end, follows before the handler waits for anything. They
        go out together: each by itself is a system call and a packet.

        Never blocks: a client that leaves more than ``max_unsent_bytes`` unread is cut, which
        a handler that waits in ``flow.drain()`` does not let happen.
        """
        if not self._is_started or self._is_finished:
            raise RuntimeError("there is no stream to write to")
        self._connection.check_unsent()
        if data and self.framing == FRAMING_CHUNKED:
            data = encode_chunk(data)
        self._send(data, more=more)

    @property
    def write_raw(self) -> Callable[[bytes], object]:
        """Writes bytes that carry ``framing`` already.

        Not for between a piece that was written with ``more`` and what follows it.
        """
        return self._connection.write_raw

    def respond(self, response: Response) -> None:
        """Send a complete response. What a handler returns is sent by this."""
        if self._is_started:
            raise RuntimeError("the response has begun already")
        self._connection.send(self._connection.encode_response(response))
        self._is_started = self._is_finished = True

    def finish(self) -> None:
        """End a streamed response; idempotent."""
        if not self._is_started:
            raise RuntimeError("the handler gave no response")
        if not self._is_finished:
            self._is_finished = True
            self._send(LAST_CHUNK if self.framing == FRAMING_CHUNKED else b"", more=False)

    def abort(self) -> None:
        """Cut the connection: the client sees that the response is broken."""
        self._transport.abort()

    def accept_websocket(
        self, open_handler: OpenHandler, settings: WebSocketSettings = DEFAULT_SETTINGS
    ) -> WebSocketConnection:
        """Answer 101 and go on as a WebSocket; the handler's work is done with it.

        For the handler to let through: ``RemoteProtocolError``, it was no upgrade request, and
        ``ClientError``, a page of another site asks for it.
        """
        if self._connection.is_foreign(self._head):
            origin = self._head.headers.get("origin", "")
            raise ClientError(
                f"a page of {origin[:200]!r} may not open a socket here, unless the balancer is "
                "started with that origin as a --…-cors-allowed-host",
                status=403,
                code="foreign_origin",
            )
        # wsproto takes a good part of a balancer's start to load: the first socket has it loaded.
        from paddler.proto.ws_handshake import accept_upgrade

        response = accept_upgrade(self._head)
        self._is_started = self._is_finished = True
        return self._connection.upgrade(response, open_handler, settings)

    def _send(self, data: bytes, *, more: bool) -> None:
        if self._held:
            data, self._held = self._held + data, b""
        if more:
            self._held = data
        elif data:
            self._connection.send(data)


class HttpConnection(asyncio.BufferedProtocol):
    """The protocol of an accepted transport."""

    __slots__ = (
        "_body",
        "_body_step_bytes",
        "_context",
        "_deadline",
        "_handler",
        "_head",
        "_http",
        "_is_gone",
        "_is_reading",
        "_lingered_bytes",
        "_loop",
        "_open",
        "_params",
        "_principal",
        "_site",
        "_task",
        "_timer",
        "_timer_at",
        "_transport",
        "_unsent_bytes",
        "_waiting",
        "flow",
        "keep_alive",
        "write_raw",
    )

    write_raw: Callable[[bytes], object]
    """Writes bytes as they are, while the transport is open."""
    _transport: asyncio.Transport
    _handler: Handler
    _params: Mapping[str, str]

    def __init__(self, site: Site, connections: OpenConnections) -> None:
        self.flow = FlowControl()
        self.keep_alive = True
        """Whether the connection outlives the response under way."""
        self._site = site
        self._open = connections
        self._loop = asyncio.get_running_loop()
        # Of all its requests alike: one that follows another begins within that one's task.
        self._context = contextvars.copy_context()
        self._http = ServerConnection()
        self._head: RequestHead | None = None
        self._principal = ""
        self._body: bytes | bytearray = b""
        self._body_step_bytes = 0  # of the body, since the timer was set for it
        self._task: asyncio.Task[None] | None = None
        self._is_gone = False  # lost, or another protocol's
        self._is_reading = True
        self._waiting = _Waiting.FOR_REQUEST
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._unsent_bytes = 0  # as last seen, waiting for the reader
        self._lingered_bytes = 0

    # --- for the listener ---

    def stop(self) -> None:
        """Close if no request is under way, otherwise after its response."""
        if self._waiting is _Waiting.FOR_REQUEST:
            self._hang_up()

    def end(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    # --- for the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name
        self.write_raw = writer_of(self._transport)
        watch_end(self._transport, self.eof_received)
        self._open.add(self)
        if self._open.is_stopping:  # accepted before, made known only now
            self._transport.abort()
        elif not self._open.has_room(transport):
            self._turn_away()
        self._watch_progress()

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer that the next read fills."""
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` were read."""
        if self._waiting is _Waiting.FOR_END:
            self._lingered_bytes += nbytes
            if self._lingered_bytes > self._site.limits.max_linger_bytes:
                self._transport.abort()
            return
        data = READ_BUFFER[:nbytes]
        try:
            whole = self._http.read_whole(data)
            if whole is not None:
                self._on_whole(*whole)
                return
            self._take(self._http.feed(data))
        except RemoteProtocolError as error:
            self._refuse(error)
        if self._has_pipelined_too_much():
            self._transport.pause_reading()
            self._is_reading = False
        self._watch_progress()

    def eof_received(self) -> None:
        """The client stopped sending: it counts as gone. The transport closes itself."""
        if self._task is not None:
            self._transport.abort()
        elif self._waiting is not _Waiting.FOR_END:
            self._wait_for_reader()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self.flow.pause()

    def resume_writing(self) -> None:
        """The client keeps up again."""
        self.flow.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._leave()
        self.flow.close()
        forget(self._transport)
        if self._task is not None:
            self._task.cancel()

    # --- for the exchange ---

    def send(self, data: bytes) -> None:
        """Write ``data``; nothing once the client is gone."""
        if not self._transport.is_closing():
            self.write_raw(data)

    def is_foreign(self, head: RequestHead) -> bool:
        """Whether a page of another site asks, which is not allowed to."""
        return (self._site.cors or NO_ORIGINS).is_foreign(head.headers)

    def check_unsent(self) -> None:
        """Cut a client that leaves too much unread."""
        if not self.flow.is_paused or self._transport.is_closing():
            return
        unsent = unsent_bytes(self._transport)
        limit = self._site.limits.max_unsent_bytes
        if unsent > limit:
            _log.warning("cutting a client: it left %d bytes unread (limit %d)", unsent, limit)
            self._transport.abort()

    def encode_head(self, status: int, fields: Fields) -> bytes:
        """A response's head with the fields that are the connection's affair."""
        head = self._head
        if self._open.is_stopping:
            self.keep_alive = False
        fields += self._site.headers
        if self._site.cors is not None and head is not None:
            fields += self._site.cors.origin_fields(head.headers)
        if not self.keep_alive:
            fields += (_CLOSE,)
        elif head is not None and head.version_minor == 0:
            fields += (_KEEP_ALIVE,)
        return encode_response_head(status, fields)

    def encode_response(self, response: Response) -> bytes:
        """A complete response."""
        fields: Fields = ()
        if response.content_type is not None:
            fields += (("content-type", response.content_type),)
        if response.status not in _BODILESS_STATUSES:
            fields += (("content-length", str(len(response.body))),)
        head = self.encode_head(response.status, fields + response.headers)
        is_head_request = self._head is not None and self._head.method == "HEAD"
        return head if is_head_request else head + response.body

    def upgrade(
        self, response: bytes, open_handler: OpenHandler, settings: WebSocketSettings
    ) -> WebSocketConnection:
        """Hand the transport over to a WebSocket, with what came behind the request."""
        leftover = self._http.switch()
        self._leave()
        websocket = WebSocketConnection(
            open_handler,
            is_client=False,
            settings=settings,
            flow=self.flow,
            on_lost=self._open.discard,
        )
        self._open.add(websocket)
        self.send(response)
        self._resume_reading()
        websocket.open(self._transport, leftover)
        return websocket

    # --- a request comes in ---

    def _take(self, events: list[HttpEvent]) -> None:
        for event in events:
            if isinstance(event, RequestHead):
                self._on_head(event)
            elif isinstance(event, BodyPart):
                self._on_body(event.data)
            elif isinstance(event, BodyEnd):
                self._on_request()
            else:  # pragma: no cover: a server reads none
                raise TypeError("a server reads no responses")
            if self._waiting is _Waiting.FOR_END:
                return

    def _on_whole(self, head: RequestHead, body: bytes) -> None:
        self._on_head(head)
        self._body = body
        self._on_request()

    def _on_head(self, head: RequestHead) -> None:
        self._head = head
        self.keep_alive = head.keep_alive
        route = self._route(head)
        if isinstance(route, Match):
            self._handler, self._params = route.handler, route.params
            limit = route.max_body_bytes
            self._http.set_body_limit(self._site.max_body_bytes if limit is None else limit)
            if head.expects_continue and self._http.state is not State.COMPLETE:
                self.send(CONTINUE)
        elif self._http.state is State.COMPLETE:
            self._handler, self._params = _always(route), {}
        else:
            self._respond_and_linger(route)  # rather than read a body for nothing

    def _route(self, head: RequestHead) -> Match | Response:
        site = self._site
        if site.guard is not None and (answer := site.guard(head)) is not None:
            return answer
        if head.method == "OPTIONS" and site.cors is not None and Cors.is_preflight(head):
            refusal = site.cors.refusal(head.headers)
            return (
                Response(200, headers=PREFLIGHT_FIELDS) if refusal is None else text(400, refusal)
            )
        self._principal = ""
        if site.authenticate is not None:
            known = site.authenticate(head)
            if isinstance(known, Refusal):
                return site.render_error(known.status, known.code, known.message, known.headers)
            self._principal = known
        found = site.router.resolve(head.method, head.path)
        match found:
            case Match():
                return found
            case None:
                return site.render_error(404, "not_found", f"no such path: {head.path}", ())
            case MethodNotAllowed(allow):
                message = f"{head.method} is not allowed here (allowed: {allow})"
                return site.render_error(405, "method_not_allowed", message, (("allow", allow),))

    def _on_body(self, data: bytes) -> None:
        self._body_step_bytes += len(data)
        if not self._body:
            self._body = data  # mostly the only part: no copy
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += data

    def _on_request(self) -> None:
        head = self._head
        assert head is not None
        request = Request(
            method=head.method,
            path=head.path,
            query=head.query,
            headers=head.headers,
            body=bytes(self._body),
            params=self._params,
            principal=self._principal,
        )
        self._body = b""
        self._wait(_Waiting.FOR_HANDLER, math.inf)
        exchange = Exchange(self, self._transport, head, request)
        self._task = self._loop.create_task(
            self._run(exchange, self._handler), context=self._context.copy()
        )

    # --- a response goes out ---

    async def _run(self, exchange: Exchange, handler: Handler) -> None:
        try:
            await self._answer(exchange, handler)
        except asyncio.CancelledError:
            if not self._is_gone:  # the handler's own doing
                self._transport.abort()
            raise
        except (Exception, BaseExceptionGroup) as error:
            _log.error("a response could not be made", exc_info=error)
            if not self._is_gone:
                self._transport.abort()

    async def _answer(self, exchange: Exchange, handler: Handler) -> None:
        try:
            response = await handler(exchange)
            if response is not None:
                exchange.respond(response)
            exchange.finish()
        except Exception as error:
            self._on_failure(exchange, error)
        if self.flow.is_paused and not self._is_gone:
            # The next request waits until this response is read: a client that sends
            # requests and reads no answers shall not fill our memory.
            self._wait_for_reader()
            await self.flow.drain()
        if not self._is_gone:
            self._task = None
            self._after_response()

    def _on_failure(self, exchange: Exchange, error: Exception) -> None:
        request = exchange.request
        if isinstance(error, PaddlerError):
            response = self._render_error(error)
            if exchange.is_started:
                _log.warning("%s %s was cut short: %s", request.method, request.path, error)
        else:
            _log.error("%s %s failed", request.method, request.path, exc_info=error)
            response = self._site.render_error(500, "internal_error", "internal server error", ())
        if exchange.is_started:
            self._transport.abort()
        else:
            exchange.respond(response)

    def _after_response(self) -> None:
        if self._transport.is_closing():
            return
        if not self.keep_alive or self._open.is_stopping:
            self._hang_up()
            return
        self._head = None
        try:
            if events := self._http.next_request():
                self._take(events)
        except RemoteProtocolError as error:
            self._refuse(error)
        if not self._is_reading and not self._has_pipelined_too_much():
            self._resume_reading()
        self._watch_progress()

    def _hang_up(self) -> None:
        if self._http.waiting_bytes:
            self._linger()
        else:
            close(self._transport)
            self._wait_for_reader()

    # --- a request is refused ---

    def _refuse(self, error: RemoteProtocolError) -> None:
        _log.debug("refusing a request: %s", error)
        self._respond_and_linger(self._render_error(error))

    def _render_error(self, error: PaddlerError) -> Response:
        fields = _UPGRADE_REQUIRED_FIELDS if error.status == 426 else ()
        return self._site.render_error(error.status, error.code, str(error), fields)

    def _respond_and_linger(self, response: Response) -> None:
        self.keep_alive = False
        self.send(self.encode_response(response))
        self._linger()

    def _turn_away(self) -> None:
        """Say why and close at once: whoever is waited for keeps a descriptor."""
        self.keep_alive = False
        self.send(self.encode_response(self._render_error(TooManyConnections())))
        self._transport.close()
        self._wait(_Waiting.FOR_END, self._site.limits.linger_timeout_s)

    def _linger(self) -> None:
        """End our side only: closing with unread input would reset the connection, and the
        client might lose the response (RFC 9112 §9.6)."""
        self._wait(_Waiting.FOR_END, self._site.limits.linger_timeout_s)
        if not self._transport.is_closing():
            end_output(self._transport, self.write_raw)
            self._resume_reading()

    # --- reading and time ---

    def _has_pipelined_too_much(self) -> bool:
        return (
            self._http.state is State.COMPLETE
            and self._http.waiting_bytes > self._site.limits.max_pipelined_bytes
        )

    def _resume_reading(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._transport.resume_reading()

    def _watch_progress(self) -> None:
        """Give the client the time that its next step may take."""
        if self._task is not None or self._waiting is _Waiting.FOR_END:
            return
        limits = self._site.limits
        match self._http.state:
            case State.IDLE:
                self._wait(_Waiting.FOR_REQUEST, limits.keep_alive_timeout_s)
            case State.HEAD:
                if self._waiting is not _Waiting.FOR_HEAD:  # the whole head in this time
                    self._wait(_Waiting.FOR_HEAD, limits.head_timeout_s)
            case _:  # a good piece of the body in this time: any byte would let it trickle for days
                is_further = self._body_step_bytes >= limits.body_step_bytes
                if self._waiting is not _Waiting.FOR_BODY or is_further:
                    self._body_step_bytes = 0
                    self._wait(_Waiting.FOR_BODY, limits.body_progress_timeout_s)

    def _wait_for_reader(self) -> None:
        self._unsent_bytes = unsent_bytes(self._transport)
        self._wait(_Waiting.FOR_READER, self._site.limits.body_progress_timeout_s)

    def _wait(self, waiting: _Waiting, timeout_s: float) -> None:
        # One timer, moved only to an earlier time: setting it anew for each request would
        # cost more than to find, now and then, that the deadline has moved on.
        self._waiting = waiting
        self._deadline = self._loop.time() + timeout_s
        if self._deadline < self._timer_at:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._deadline
        self._timer = self._loop.call_at(self._timer_at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        if self._loop.time() >= self._deadline:
            self._on_timeout()
        elif self._deadline < math.inf:
            self._set_timer()

    def _on_timeout(self) -> None:
        limits = self._site.limits
        match self._waiting:
            case _Waiting.FOR_REQUEST:
                self._hang_up()
            case _Waiting.FOR_HEAD:
                self._refuse(
                    RemoteProtocolError(
                        f"the head did not arrive within {limits.head_timeout_s:g} s", status=408
                    )
                )
            case _Waiting.FOR_BODY:
                self._refuse(
                    RemoteProtocolError(
                        f"{self._body_step_bytes} bytes of the body came within "
                        f"{limits.body_progress_timeout_s:g} s: expected its end, or "
                        f"{limits.body_step_bytes} bytes",
                        status=408,
                    )
                )
            case _Waiting.FOR_READER:
                if unsent_bytes(self._transport) == self._unsent_bytes:
                    self._transport.abort()
                else:
                    self._wait_for_reader()
            case _Waiting.FOR_END:
                self._transport.abort()
            case _Waiting.FOR_HANDLER:  # pragma: no cover: its deadline never comes
                pass

    def _leave(self) -> None:
        """The transport is no longer this protocol's."""
        self._is_gone = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None:
            self._open.discard(self)
        else:  # not within the task: cancelled before it began, it would run nothing
            self._task.add_done_callback(self._on_left)

    def _on_left(self, task: asyncio.Task[None]) -> None:
        # A cancelled task keeps the frames that it was in, which hold this connection: a cycle.
        self._task = None
        self._open.discard(self)


def _always(response: Response) -> Handler:
    async def answer(exchange: Exchange) -> Response:
        return response

    return answer
