"""One side of a WebSocket after its handshake, without sockets or clocks (RFC 6455).

    OPEN ──our close()──► CLOSING ──their close frame──► CLOSED
      └──their close frame──► CLOSED, and close() still answers with ours, once

Frame bytes are read and written by ``paddler._fastpath``; what is here is everything that
spans frames: reassembly, control frames in between, UTF-8, the close handshake, limits.
"""

import os
import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from paddler._fastpath import apply_mask, encode_frame, parse_frame_header, unmask_messages
from paddler.errors import RemoteProtocolError
from paddler.proto.events import (
    Binary,
    BytesLike,
    Closed,
    Ping,
    Pong,
    Text,
    WebSocketEvent,
)

DEFAULT_MAX_BYTES: Final = 52_428_800  # 50 MiB
NO_CODE: Final = 1005  # RFC 6455 §7.1.5: a close frame without a code
_MAX_REASON_BYTES: Final = 123  # a control frame's 125 less the code
_KEY_BLOCK_BYTES: Final = 1_024  # masks are drawn 256 at a time: one system call, not 256
_UNMASKED: Final = -1


class Opcode(IntEnum):
    """What a frame is (RFC 6455 §5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class _Frame(NamedTuple):
    """The frame under way."""

    opcode: int
    fin: bool
    payload_bytes: int
    mask_key: int


class WebSocket:
    """Bytes to messages and back, for the side that ``is_client`` says.

    ``max_frame_bytes`` bounds one frame's payload, ``max_message_bytes`` what fragments add
    up to. ``draw`` gives unpredictable bytes: a client's masks come from it (§10.3).
    """

    __slots__ = (
        "_control",
        "_frame",
        "_got_bytes",
        "_header",
        "_is_client",
        "_is_close_received",
        "_is_close_sent",
        "_max_frame_bytes",
        "_max_message_bytes",
        "_max_whole_bytes",
        "_message",
        "_message_opcode",
        "_next_key",
    )

    def __init__(
        self,
        *,
        is_client: bool,
        max_frame_bytes: int = DEFAULT_MAX_BYTES,
        max_message_bytes: int = DEFAULT_MAX_BYTES,
        draw: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._is_client = is_client
        self._max_frame_bytes = max_frame_bytes
        self._max_message_bytes = max_message_bytes
        self._max_whole_bytes = min(max_frame_bytes, max_message_bytes)
        self._next_key = _mask_keys(draw).__next__ if is_client else None
        self._is_close_sent = False
        self._is_close_received = False
        self._header = bytearray()  # an incomplete frame header
        self._frame: _Frame | None = None
        self._got_bytes = 0  # of the frame under way
        self._message = bytearray()  # an incomplete message
        self._message_opcode = 0  # 0: no message is under way
        self._control = bytearray()  # an incomplete control frame's payload

    @property
    def is_close_sent(self) -> bool:
        """Whether ``close`` was called: nothing more can be sent."""
        return self._is_close_sent

    @property
    def is_close_received(self) -> bool:
        """Whether the peer's close frame came: nothing more will be read."""
        return self._is_close_received

    @property
    def is_between_messages(self) -> bool:
        """Whether the next byte begins a frame of its own, and may be read."""
        return (
            self._frame is None
            and not self._header
            and not self._message_opcode
            and not self._is_close_received
        )

    # --- reading ---

    def feed(self, data: bytearray | memoryview) -> list[WebSocketEvent]:
        """The messages and control frames that ``data`` completes.

        DANGER, borrowed memory: ``data`` must be writable, is unmasked in place, and the
        events' views may point into it. They are good only until ``data`` is written to
        again, usually by the next read; whoever keeps a payload copies it.

        A message in one frame wholly within ``data`` is not copied at all, any other once.
        What came before an offence in the same ``data`` is lost with the connection. Bytes
        behind a close frame are ignored.
        """
        events: list[WebSocketEvent] = []
        view = memoryview(data)
        at = 0
        if self.is_between_messages:
            # What nearly everything is that comes on a link.
            messages, at = unmask_messages(
                view, expect_masked=not self._is_client, max_payload_bytes=self._max_whole_bytes
            )
            for opcode, start, end in messages:
                events.append(_message(opcode, view[start:end]))
        while at < len(view) and not self._is_close_received:
            if self._frame is None:
                at = self._read_header(view, at)
            if self._frame is not None:
                at = self._read_payload(self._frame, view, at, events)
        return events

    def _read_header(self, view: memoryview, at: int) -> int:
        """Enter the next frame if its header is complete; the offset behind what was used."""
        kept = len(self._header)
        if kept:
            self._header += view[at : at + 14 - kept]  # 14: the longest header there is
            source: BytesLike = bytes(self._header)
            start = 0
        else:
            source = view
            start = at
        header = parse_frame_header(
            source,
            start,
            expect_masked=not self._is_client,
            max_payload_bytes=self._max_frame_bytes,
        )
        if header is None:
            if not kept:
                self._header += view[at:]
            return len(view)
        opcode, fin, payload_start, payload_bytes, mask_key = header
        self._check_order(opcode, payload_bytes)
        self._header.clear()
        self._frame = _Frame(opcode, fin, payload_bytes, mask_key)
        self._got_bytes = 0
        return at + payload_start - start - kept

    def _check_order(self, opcode: int, payload_bytes: int) -> None:
        if opcode >= Opcode.CLOSE:
            return
        if opcode == Opcode.CONTINUATION and not self._message_opcode:
            raise RemoteProtocolError("a continuation frame continues no message")
        if opcode != Opcode.CONTINUATION and self._message_opcode:
            raise RemoteProtocolError("a new message begins before the last fragment of another")
        if len(self._message) + payload_bytes > self._max_message_bytes:
            raise RemoteProtocolError(
                "Message exceeded the maximum allowed continuation size of "
                f"{self._max_message_bytes} bytes",
                close_code=1009,
            )

    def _read_payload(
        self, frame: _Frame, view: memoryview, at: int, events: list[WebSocketEvent]
    ) -> int:
        """Take what there is of the frame's payload; the offset behind it."""
        after = min(len(view), at + frame.payload_bytes - self._got_bytes)
        part = view[at:after]
        if frame.mask_key:
            apply_mask(part, frame.mask_key, self._got_bytes & 3)
        self._got_bytes += len(part)
        is_whole_frame = self._got_bytes == frame.payload_bytes
        if frame.opcode >= Opcode.CLOSE:
            self._control += part
            if is_whole_frame:
                self._frame = None
                payload, self._control = bytes(self._control), bytearray()
                events.append(self._on_control(frame.opcode, payload))
            return after
        if frame.opcode != Opcode.CONTINUATION and self._got_bytes == len(part):
            if is_whole_frame and frame.fin:
                self._frame = None
                self._message_opcode = 0
                events.append(_message(frame.opcode, part))
                return after
            self._message_opcode = frame.opcode
        self._message += part
        if is_whole_frame:
            self._frame = None
            if frame.fin:
                message, self._message = self._message, bytearray()
                opcode, self._message_opcode = self._message_opcode, 0
                events.append(_message(opcode, memoryview(message)))
        return after

    def _on_control(self, opcode: int, payload: bytes) -> WebSocketEvent:
        if opcode == Opcode.PING:
            return Ping(payload)
        if opcode == Opcode.PONG:
            return Pong(payload)
        self._is_close_received = True
        return _parse_close(payload)

    # --- writing: after close() these give nothing, as nothing may follow it (§5.5.1) ---

    def send_text(self, payload: BytesLike) -> bytes:
        """A text message of UTF-8 ``payload``, which is not checked."""
        return self._encode(Opcode.TEXT, payload)

    def send_binary(self, payload: BytesLike) -> bytes:
        """A binary message."""
        return self._encode(Opcode.BINARY, payload)

    def ping(self, payload: bytes = b"") -> bytes:
        """A ping with at most 125 bytes of payload."""
        return self._encode(Opcode.PING, payload)

    def pong(self, payload: bytes) -> bytes:
        """The answer to a ping."""
        return self._encode(Opcode.PONG, payload)

    def close(self, code: int | None = None, reason: str = "") -> bytes:
        """The close frame, the first time; a reason too long for it is cut between characters."""
        payload = b""
        if code is not None:
            text = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore").encode()
            payload = struct.pack("!H", code) + text
        frame = self._encode(Opcode.CLOSE, payload)
        self._is_close_sent = True
        return frame

    def _encode(self, opcode: Opcode, payload: BytesLike) -> bytes:
        if self._is_close_sent:
            return b""
        return encode_frame(opcode, payload, self._next_key() if self._next_key else _UNMASKED)


def _mask_keys(draw: Callable[[int], bytes]) -> Iterator[int]:
    while True:
        for (key,) in struct.iter_unpack("<I", draw(_KEY_BLOCK_BYTES)):
            yield key


def _message(opcode: int, payload: memoryview) -> Text | Binary:
    if opcode == Opcode.BINARY:
        return Binary(payload)
    _check_utf8(payload, "a text message")
    return Text(payload)


def _check_utf8(data: BytesLike, what: str) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"{what} is not UTF-8: {error.reason}", close_code=1007) from None


def _parse_close(payload: bytes) -> Closed:
    """Code and reason of a close frame (RFC 6455 §5.5.1, §7.4)."""
    if not payload:
        return Closed(NO_CODE, "")
    if len(payload) == 1:
        raise RemoteProtocolError("a close frame of one byte holds half a code")
    code = int.from_bytes(payload[:2], "big")
    # 1004 to 1006 and 1015 never travel; 1012 to 1014 are IANA's later additions.
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise RemoteProtocolError(f"close code {code} may not be sent")
    return Closed(code, _check_utf8(payload[2:], "a close reason"))
