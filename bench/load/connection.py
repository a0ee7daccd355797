"""The client's end of one HTTP/1.1 connection: requests one after the other, answers as they come.

    idle ── send ──► head ──► length │ chunk size ⇄ chunk │ until closed ──► idle or closed

Lean on purpose: thousands of them share one core, so that a token costs one search for the
end of its chunk and nothing is copied.
"""

import asyncio
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, cast

from bench.load.call import CONNECTION_LOST, Call
from bench.load.read_buffer import BUFFER, VIEW
from paddler._fastpath import head_end, parse_fields
from paddler.errors import RemoteProtocolError

CRLF: Final = b"\r\n"
MAX_SIZE_LINE: Final = 1024  # a chunk's size with its extensions
# No server closes a fresh connection sooner for want of a request (Paddler: 10 s).
PATIENCE_S: Final = 5.0


class _Stage(Enum):
    IDLE = auto()
    HEAD = auto()
    LENGTH = auto()
    CHUNK_SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    UNTIL_CLOSED = auto()
    CLOSED = auto()


class Connection(asyncio.BufferedProtocol):
    """One connection. ``head`` opens every request; ``on_idle`` is told when another may come.

    ``on_read`` is called before what was read is taken, and may cut the connection.
    ``on_stale`` is given a request that was sent while the server closed the connection, as it
    may between two requests (RFC 9112 §9.3.1), or when the first one is long in coming: it was
    not read, and has to be sent again. ``dialled_at`` is ``time.monotonic()``.
    """

    __slots__ = (
        "_call",
        "_dialled_at",
        "_head",
        "_keeps_alive",
        "_left",
        "_line",
        "_may_be_stale",
        "_on_idle",
        "_on_read",
        "_on_stale",
        "_served",
        "_stage",
        "_transport",
    )

    def __init__(
        self,
        head: bytes,
        dialled_at: float,
        on_idle: Callable[["Connection"], object],
        on_stale: Callable[[Call], object],
        on_read: Callable[[], object],
    ) -> None:
        self._on_read = on_read
        self._on_stale = on_stale
        self._dialled_at = dialled_at
        self._may_be_stale = False  # when the request under way was sent
        self._served = 0
        self._head = head
        self._on_idle = on_idle
        self._stage = _Stage.IDLE
        self._left = 0
        self._line = b""  # what came of a head or a size line
        self._keeps_alive = True
        self._call: Call | None = None

    @property
    def call(self) -> Call | None:
        """The request under way."""
        return self._call

    @property
    def may_be_stale(self) -> bool:
        """Whether a server may be tired of waiting for a request on it."""
        return self._served > 0 or time.monotonic() - self._dialled_at > PATIENCE_S

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._stage is _Stage.IDLE and not self._transport.is_closing()

    def send(self, call: Call) -> None:
        """Send a request; the connection must be idle."""
        self._may_be_stale = self.may_be_stale
        self._call = call
        self._stage = _Stage.HEAD
        call.on_sent()
        body = call.asked.body
        self._transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))

    def cut(self, reason: str) -> None:
        """Close at once; the request under way ends with ``reason``."""
        self._stage = _Stage.CLOSED
        self._transport.abort()
        self._end_call(reason)

    def close(self) -> None:
        """Close."""
        self._transport.close()

    # --- for the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer that the next read fills."""
        return VIEW

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` were read."""
        self._on_read()
        try:
            at = 0
            # What nearly every read is: one whole chunk.
            if self._stage is _Stage.CHUNK_SIZE and not self._line:
                cr = BUFFER.find(CRLF, 0, min(nbytes, 18))
                if cr > 0:
                    size = int(BUFFER[:cr], 16)
                    if size and nbytes == cr + size + 4 and self._call is not None:
                        self._call.on_body(cr + 2, nbytes - 2)
                        return
            while at < nbytes and self._stage is not _Stage.CLOSED:
                at = self._step(at, nbytes)
        except (RemoteProtocolError, ValueError) as error:
            self.cut(f"not HTTP: {error}")

    def eof_received(self) -> None:
        """The server is done; the transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        is_good_end = self._stage is _Stage.UNTIL_CLOSED and exc is None
        is_stale = self._stage is _Stage.HEAD and not self._line and self._may_be_stale
        self._stage = _Stage.CLOSED
        stale, self._call = (self._call, None) if is_stale else (None, self._call)
        self._end_call(None if is_good_end else CONNECTION_LOST)
        self._on_idle(self)
        if stale is not None:
            self._on_stale(stale)

    # --- inside ---

    def _step(self, at: int, end: int) -> int:
        """Take a part of what was read; the offset behind it."""
        match self._stage:
            case _Stage.HEAD:
                return self._on_head(at, end)
            case _Stage.LENGTH | _Stage.CHUNK:
                piece_end = min(end, at + self._left)
                self._left -= piece_end - at
                assert self._call is not None
                self._call.on_body(at, piece_end)
                if self._left == 0:
                    if self._stage is _Stage.LENGTH:
                        self._finish()
                    else:
                        self._stage, self._left = _Stage.CHUNK_END, 2
                return piece_end
            case _Stage.CHUNK_END:
                skipped = min(end - at, self._left)
                self._left -= skipped
                if self._left == 0:
                    self._stage = _Stage.CHUNK_SIZE
                return at + skipped
            case _Stage.CHUNK_SIZE | _Stage.TRAILER:
                return self._on_line(at, end)
            case _Stage.UNTIL_CLOSED:
                assert self._call is not None
                self._call.on_body(at, end)
                return end
            case _:
                raise ValueError("bytes that nobody asked for")

    def _on_head(self, at: int, end: int) -> int:
        kept = len(self._line)
        self._line += BUFFER[at:end]
        head_bytes = head_end(self._line, max(0, kept - 3))
        if head_bytes < 0:
            return end
        head, self._line = self._line[:head_bytes], b""
        status_line, _, rest = head.partition(CRLF)
        status = int(status_line[9:12])
        used = at + head_bytes - kept
        if status < 200:  # another head follows
            return used
        fields = dict(parse_fields(rest))
        assert self._call is not None
        self._call.on_head(status)
        self._keeps_alive = fields.get(
            "connection", ""
        ).lower() != "close" and not status_line.startswith(b"HTTP/1.0")
        if "chunked" in fields.get("transfer-encoding", "").lower():
            self._stage = _Stage.CHUNK_SIZE
        elif (length := fields.get("content-length")) is not None:
            self._stage, self._left = _Stage.LENGTH, int(length)
            if self._left == 0:
                self._finish()
        else:
            self._stage = _Stage.UNTIL_CLOSED
        return used

    def _on_line(self, at: int, end: int) -> int:
        """Take a chunk's size, or a line behind the last one."""
        kept = self._line
        line = kept + BUFFER[at : min(end, at + MAX_SIZE_LINE)]
        cr = line.find(CRLF)
        if cr < 0:
            if len(line) > MAX_SIZE_LINE:
                raise ValueError("a chunk without a size")
            self._line = line
            return end
        self._line = b""
        if self._stage is _Stage.TRAILER:
            if cr == 0:
                self._finish()
        else:
            self._left = int(line[:cr].partition(b";")[0], 16)
            self._stage = _Stage.CHUNK if self._left else _Stage.TRAILER
        return at + cr + 2 - len(kept)

    def _finish(self) -> None:
        self._served += 1
        self._stage = _Stage.IDLE
        if not self._keeps_alive:
            self._stage = _Stage.CLOSED
            self._transport.close()
        else:
            self._on_idle(self)  # first, so that the next request finds this connection
        self._end_call(None)

    def _end_call(self, error: str | None) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.on_end(error)
