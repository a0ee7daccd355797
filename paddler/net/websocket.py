"""One open WebSocket on a transport, of either side.

    OPEN ──close()──► CLOSING ──their close frame, or too late──► ENDED
      └──their close frame, an offence, silence, loss───────────────┘

``on_closed`` is called once, on entering ENDED. What the transport still does there is only
to let the peer read the last bytes: input is thrown away, and a timer cuts it.
"""

import asyncio
import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, Protocol

import msgspec

from paddler._fastpath import FrameReader
from paddler.errors import RemoteProtocolError
from paddler.net.flow import FlowControl
from paddler.net.half_close import end_output
from paddler.net.read_buffer import READ_BUFFER
from paddler.net.socket_writer import writer_of
from paddler.net.tls_server import forget, unsent_bytes, watch_end
from paddler.proto.events import Binary, BytesLike, Closed, Ping, Pong, Text, WebSocketEvent
from paddler.proto.heartbeat import Heartbeat, Verdict
from paddler.proto.ws import DEFAULT_MAX_BYTES, WebSocket

_log = logging.getLogger(__name__)

_GOING_AWAY: Final = 1001
_INTERNAL_ERROR: Final = 1011


class WebSocketHandler(Protocol):
    """Takes what a WebSocket brings, synchronously.

    A ``RemoteProtocolError`` raised by ``on_text`` or ``on_binary`` closes the connection
    with its ``close_code``; any other exception is logged and closes it with 1011.
    """

    def on_text(self, data: memoryview) -> None:
        """A text message. BORROWED: ``data`` is good until this returns; copy what you keep."""

    def on_binary(self, data: memoryview) -> None:
        """A binary message. BORROWED: ``data`` is good until this returns; copy what you keep."""

    def on_closed(self, code: int | None, reason: str) -> None:
        """The connection is over; called exactly once.

        ``code`` is the peer's (1005 where its close frame had none) or, after an offence, the
        one sent to it. ``None``: no close frame came; ``reason`` says what happened.
        """


OpenHandler = Callable[["WebSocketConnection"], WebSocketHandler]
"""Makes the handler of a connection that just opened; may send on it already."""


class WebSocketSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and times of one WebSocket."""

    max_message_bytes: int = DEFAULT_MAX_BYTES
    max_unsent_bytes: int = 8_388_608
    """A peer that leaves more than this unread is cut off."""
    ping_interval_s: float = 3.0
    dead_after_s: float = 10.0
    """Silence after which the peer counts as gone: three pings unanswered."""
    life_sign_bytes: int = 1_024
    """Less than this, with no message and no ping ended by it, is silence as well: a link at
    an octet a second is alive to TCP, and to nobody who waits for a token."""
    close_timeout_s: float = 2.0
    """How long the peer may take to answer or read our close frame."""


DEFAULT_SETTINGS: Final = WebSocketSettings()


class _Stage(Enum):
    OPEN = auto()
    CLOSING = auto()
    ENDED = auto()


class WebSocketConnection(FrameReader, asyncio.BufferedProtocol):
    """A WebSocket after its handshake; becomes the protocol of a transport.

    Everything here is synchronous. Sending after the end does nothing: the end may come at
    any time, and ``on_closed`` tells of it. Where thousands of small messages come to a server,
    its handler may have them passed on by a relay (``relay_to``), until the socket closes.
    """

    __slots__ = (
        "_handler",
        "_heartbeat",
        "_held",
        "_loop",
        "_lost_reason",
        "_on_lost",
        "_open_handler",
        "_settings",
        "_stage",
        "_timer",
        "_transport",
        "_unheard_bytes",
        "_ws",
        "flow",
        "write_raw",
    )

    write_raw: Callable[[bytes], object]
    """Writes bytes that are framed (and, by a client, masked)."""
    _handler: WebSocketHandler
    _transport: asyncio.Transport

    def __init__(
        self,
        open_handler: OpenHandler,
        *,
        is_client: bool,
        settings: WebSocketSettings = DEFAULT_SETTINGS,
        flow: FlowControl | None = None,
        on_lost: Callable[["WebSocketConnection"], object] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        super().__init__(READ_BUFFER, self._loop.time)
        self.flow = flow or FlowControl()
        self._held: list[bytes] = []  # frames, to be sent soon
        self._open_handler = open_handler
        self._on_lost = on_lost
        self._settings = settings
        self._ws = WebSocket(
            is_client=is_client,
            max_frame_bytes=settings.max_message_bytes,
            max_message_bytes=settings.max_message_bytes,
        )
        self._heartbeat = Heartbeat(
            ping_every_s=settings.ping_interval_s,
            dead_after_s=settings.dead_after_s,
            now=self._loop.time(),
        )
        self._stage = _Stage.OPEN
        self._timer: asyncio.TimerHandle | None = None
        self._lost_reason = "connection lost"
        self._unheard_bytes = 0  # since the last sign of life

    # --- for the owner ---

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._stage is _Stage.OPEN

    def send_text(self, data: BytesLike) -> None:
        """Send a text message of UTF-8 ``data``."""
        self._send(self._ws.send_text(data))

    def send_text_soon(self, data: BytesLike) -> None:
        """As :meth:`send_text`, but together with what else is sent in this turn of the loop.

        For many messages that are not each other's affair: each by itself is a system call. Not on
        a socket that raw bytes are written on: they would overtake it.
        """
        self._held.append(self._ws.send_text(data))
        if len(self._held) == 1:
            self._loop.call_soon(self._send, b"")  # whatever is sent, what is held goes first

    def send_binary(self, data: BytesLike) -> None:
        """Send a binary message."""
        self._send(self._ws.send_binary(data))

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Start the close handshake; the peer has ``close_timeout_s`` to answer."""
        if self._stage is _Stage.OPEN:
            self._stage = _Stage.CLOSING
            self.end_relaying()
            self._send(self._ws.close(code, reason))
            self._cut_later()

    def abort(self, reason: str = "aborted") -> None:
        """Cut the connection; ``on_closed`` is told ``reason``, soon but not from within."""
        self._lost_reason = reason
        self.end_relaying()
        self._transport.abort()

    # --- for the listener ---

    def stop(self) -> None:
        """Nothing: the owner knows what is under way and when to close."""

    def end(self) -> None:
        """Close, as the server stops."""
        self.close(_GOING_AWAY, "Server shutting down")

    # --- for the transport ---

    def open(self, transport: asyncio.Transport, leftover: bytes) -> None:
        """Take over ``transport``, and what came behind the handshake."""
        self._transport = transport
        self.write_raw = writer_of(transport)
        transport.set_protocol(self)
        watch_end(transport, self.eof_received)
        try:
            self._handler = self._open_handler(self)
        except Exception:
            self._stage = _Stage.ENDED  # there is nobody to tell
            self.end_relaying()
            transport.abort()
            raise
        if self._stage is _Stage.OPEN:
            self._tick()
        if leftover:
            self.on_rest(memoryview(bytearray(leftover)))

    def eof_received(self) -> None:
        """The peer is gone; it may not half-close. The transport closes itself, or is cut."""
        self._end(None, self._lost_reason)
        self._cut_later()

    def pause_writing(self) -> None:
        """The peer does not keep up."""
        self.flow.pause()

    def resume_writing(self) -> None:
        """The peer keeps up again."""
        self.flow.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        if exc is not None and self._lost_reason == "connection lost":
            self._lost_reason = f"connection lost: {exc}"
        self._end(None, self._lost_reason)
        if self._timer is not None:
            self._timer.cancel()
        self.flow.close()
        forget(self._transport)
        if self._on_lost is not None:
            self._on_lost(self)

    # --- for FrameReader ---

    def on_rest(self, data: memoryview) -> None:
        """Take what was read and no relay has had."""
        self._feed(data)
        self.begins_frame = self._ws.is_between_messages

    def on_failure(self, error: Exception) -> None:
        """Close: the peer did what it must not, or a handler failed."""
        if isinstance(error, RemoteProtocolError):
            _log.info("closing a WebSocket with code %d: %s", error.close_code, error)
            self._fail(error.close_code, str(error))
        else:
            _log.error("a WebSocket's handler failed", exc_info=error)
            self._fail(_INTERNAL_ERROR, "internal error")

    # --- inside ---

    def _feed(self, data: memoryview) -> None:
        if self._stage is _Stage.ENDED or self._transport.is_closing():  # aborted by its owner
            return
        try:
            events = self._ws.feed(data)
            self._unheard_bytes += len(data)
            if events or self._unheard_bytes >= self._settings.life_sign_bytes:
                self._unheard_bytes = 0
                self._heartbeat.on_heard(self._loop.time())
            for event in events:
                if self._transport.is_closing():  # aborted within an event
                    return
                self._on_event(event)
        except Exception as error:
            self.on_failure(error)

    def _on_event(self, event: WebSocketEvent) -> None:
        match event:
            case Binary() | Text() if self._stage is not _Stage.OPEN:
                pass  # it crossed our close frame, and can have no answer
            case Binary(data):
                self._handler.on_binary(data)
            case Text(data):
                self._handler.on_text(data)
            case Ping(payload):
                self._send(self._ws.pong(payload))
            case Pong():
                pass  # like anything heard, it has kept the connection alive
            case Closed(code, reason):
                self._send(self._ws.close())
                self._end(code, reason)
                self._hang_up()

    def _send(self, frame: bytes) -> None:
        if self._held:
            frame = b"".join(self._held) + frame
            self._held.clear()
        if not frame or self._transport.is_closing():
            return
        self.write_raw(frame)
        if self.flow.is_paused:
            self._check_unsent()

    def _check_unsent(self) -> None:
        unsent = unsent_bytes(self._transport)
        if unsent > self._settings.max_unsent_bytes:
            reason = (
                f"{unsent} bytes are unsent (limit {self._settings.max_unsent_bytes}): "
                "the peer does not read"
            )
            _log.warning("cutting a WebSocket: %s", reason)
            self.abort(reason)

    def _fail(self, code: int, reason: str) -> None:
        self._send(self._ws.close(code, reason))
        self._end(code, reason)
        self._hang_up()

    def _end(self, code: int | None, reason: str) -> None:
        if self._stage is not _Stage.ENDED:
            self._stage = _Stage.ENDED
            self.end_relaying()
            self._handler.on_closed(code, reason)

    def _hang_up(self) -> None:
        # Closing with unread input would reset the connection and could take our close
        # frame along; so only our side ends now, and the timer cuts what is left.
        if not self._transport.is_closing():
            end_output(self._transport, self.write_raw)
            self._cut_later()

    def _cut_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(
            self._settings.close_timeout_s, self.abort, "the peer did not answer a close frame"
        )

    def _tick(self) -> None:
        now = self._loop.time()
        self._heartbeat.on_heard(self.relayed_at)
        match self._heartbeat.check(now):
            case Verdict.DEAD:
                reason = f"no sign of life for {self._heartbeat.silence_s(now):.1f} s"
                _log.warning("cutting a WebSocket: %s", reason)
                self.abort(reason)
                return
            case Verdict.PING:
                self._send(self._ws.ping())
                self._heartbeat.on_pinged(now)
            case Verdict.WAIT:
                pass
        # Raw writes are not counted one by one; this bounds them, too.
        self._check_unsent()
        self._timer = self._loop.call_later(self._heartbeat.wait_s(now), self._tick)
