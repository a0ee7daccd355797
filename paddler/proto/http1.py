"""HTTP/1.1 framing for both sides of a connection, without sockets or clocks (RFC 9112).

Bytes go into ``feed`` in whatever cuts they arrive, events come out; what is incomplete
waits inside. One message at a time: after its ``BodyEnd`` nothing more is parsed until
``next_request`` (server) or ``next_response`` (client), so that pipelined requests are
answered in order and an upgrade finds its first bytes untouched.

    IDLE ──► HEAD ─┬─► LENGTH_BODY ─────────────────────────────────┬─► COMPLETE ──► IDLE
                   ├─► CHUNK_SIZE ─► CHUNK_DATA ─► CHUNK_END ─┐     │       │
                   │    ▲   └─► TRAILERS ─────────────────────│─────┤       └──► SWITCHED
                   │    └─────────────────────────────────────┘     │
                   ├─► CLOSE_BODY (responses only) ─────────────────┤
                   └─► no body ─────────────────────────────────────┘

An offence raises ``RemoteProtocolError`` with the status to answer, from any of these
states to CLOSED, where all further bytes are ignored. Whether and how a message is refused
does not depend on how its bytes arrive. Events read in the same ``feed`` before the offence
are lost with the connection.

Strict on purpose: whatever two parsers could read differently lets one request hide in
another (RFC 9112 §11.2). The one leniency is the empty line before a request (§2.2).
"""

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum, auto
from functools import lru_cache
from http import HTTPStatus
from typing import ClassVar, Final

from paddler._fastpath import (
    MAX_REQUEST_LINE_BYTES,
    head_end,
    parse_fields,
    parse_request_head,
)
from paddler.errors import RemoteProtocolError
from paddler.proto.events import (
    BodyEnd,
    BodyPart,
    BytesLike,
    Headers,
    HttpEvent,
    RequestHead,
    ResponseHead,
)

MAX_HEAD_BYTES: Final = 65_536  # as h11 and Node (64 KiB and 16 KiB): room for long cookies
MAX_CHUNK_LINE_BYTES: Final = 4_096  # nobody sends chunk extensions; as nginx's buffer for one
_USUAL_CHUNK_LINE_BYTES: Final = 18  # 16 digits and CRLF
MAX_TRAILER_BYTES: Final = 8_192
_NO_LIMIT: Final = sys.maxsize
_USUAL_HEAD_BYTES: Final = 1_024  # browsers send some 500, clients of APIs 200 to 400

_LINE_WINDOW: Final = MAX_REQUEST_LINE_BYTES + 2  # the longest start line with its CRLF
_CR: Final = 0x0D

_DECIMAL: Final = re.compile(r"[0-9]{1,18}")  # below 2**63 whatever the digits
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_STATUS_LINE: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n"
)
# RFC 3986 §3.2.2 and §3.2.3: reg-name or IP literal, optional port.
_AUTHORITY: Final = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]*)(?::[0-9]{0,5})?"
)
_ABSOLUTE_FORM: Final = re.compile(r"https?://([^/?]+)(.*)", re.IGNORECASE)
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class State(IntEnum):  # hashed for each step, which takes an Enum a call in Python
    """Where in a message the connection is."""

    IDLE = auto()
    """Between messages: nothing of the next one has come."""
    HEAD = auto()
    """Within a head."""
    LENGTH_BODY = auto()
    """Within a body of announced length."""
    CHUNK_SIZE = auto()
    """Within the line before a chunk."""
    CHUNK_DATA = auto()
    """Within a chunk."""
    CHUNK_END = auto()
    """At the CRLF after a chunk."""
    TRAILERS = auto()
    """Within the fields after the last chunk."""
    CLOSE_BODY = auto()
    """Within a response's body that ends with the connection."""
    COMPLETE = auto()
    """A message was handed out whole; what follows it waits."""
    SWITCHED = auto()
    """The bytes belong to another protocol now."""
    CLOSED = auto()
    """The peer broke the protocol or is gone; all else is ignored."""


_MOVES: Final[Mapping[State, frozenset[State]]] = {
    State.IDLE: frozenset({State.HEAD, State.CLOSED}),
    State.HEAD: frozenset(
        {
            State.IDLE,  # after an interim response
            State.LENGTH_BODY,
            State.CHUNK_SIZE,
            State.CLOSE_BODY,
            State.COMPLETE,
            State.CLOSED,
        }
    ),
    State.LENGTH_BODY: frozenset({State.COMPLETE, State.CLOSED}),
    State.CHUNK_SIZE: frozenset({State.CHUNK_DATA, State.TRAILERS, State.CLOSED}),
    State.CHUNK_DATA: frozenset({State.CHUNK_END, State.CLOSED}),
    State.CHUNK_END: frozenset({State.CHUNK_SIZE, State.CLOSED}),
    State.TRAILERS: frozenset({State.COMPLETE, State.CLOSED}),
    State.CLOSE_BODY: frozenset({State.COMPLETE, State.CLOSED}),
    State.COMPLETE: frozenset({State.IDLE, State.SWITCHED, State.CLOSED}),
    State.SWITCHED: frozenset(),
    State.CLOSED: frozenset(),
}


class _Connection(ABC):
    """What both sides share: the pump, the states and the body framings."""

    __slots__ = (
        "_body_bytes",
        "_chunks",
        "_left_bytes",
        "_max_body_bytes",
        "_pending",
        "_scanned",
        "_state",
    )

    _START_LINE: ClassVar[str]

    def __init__(self) -> None:
        self._state = State.IDLE
        self._pending = bytearray()
        self._scanned = 0  # bytes of the incomplete head that need no second look
        self._chunks = bytearray()  # chunk data of this feed, handed out as one part
        self._left_bytes = 0  # of the body or chunk under way
        self._body_bytes = 0  # announced so far
        self._max_body_bytes = _NO_LIMIT

    @property
    def state(self) -> State:
        """Where in a message the connection is."""
        return self._state

    @property
    def waiting_bytes(self) -> int:
        """How many bytes are kept: an incomplete head, or what follows a complete message."""
        return len(self._pending)

    def feed(self, data: BytesLike) -> list[HttpEvent]:
        """The events that ``data`` completes. ``data`` is borrowed for the call only."""
        if self._state is State.CLOSED:
            return []
        try:
            return self._read(data)
        except RemoteProtocolError:
            self._close()
            raise

    def switch(self) -> bytes:
        """End HTTP after a complete message; the bytes that came behind it."""
        self._move(State.SWITCHED)
        leftover, self._pending = bytes(self._pending), bytearray()
        return leftover

    def _move(self, state: State) -> None:
        if state not in _MOVES[self._state]:
            raise RuntimeError(f"no way from {self._state.name} to {state.name}")
        self._state = state

    def _close(self) -> None:
        self._move(State.CLOSED)
        self._pending = bytearray()

    def _start_next(self) -> list[HttpEvent]:
        self._move(State.IDLE)
        self._max_body_bytes = _NO_LIMIT
        return self.feed(b"") if self._pending else []

    def _read(self, data: BytesLike) -> list[HttpEvent]:
        events: list[HttpEvent] = []
        if self._pending:
            self._pending += data
            with memoryview(self._pending) as view:
                used = self._parse(view, events)
            del self._pending[:used]
        else:
            view = memoryview(data)
            used = self._parse(view, events)
            self._pending += view[used:]
        self._hand_out_chunks(events)
        return events

    def _parse(self, view: memoryview, events: list[HttpEvent]) -> int:
        """Run the readers as long as they get on; how many bytes they are done with."""
        at = 0
        while at < len(view) and (reader := _READERS.get(self._state)) is not None:
            after = reader(self, view, at, events)
            if after is None:
                break
            at = after
        return at

    def _read_idle(self, view: memoryview, at: int, events: list[HttpEvent]) -> int | None:
        if view[at] == _CR:
            if len(view) - at < 2:
                return None
            if view[at + 1] == 0x0A:  # RFC 9112 §2.2: one empty line is let through
                at += 2
        self._move(State.HEAD)
        self._scanned = 0
        self._body_bytes = 0
        return at

    def _read_head(self, view: memoryview, at: int, events: list[HttpEvent]) -> int | None:
        end = self._find_head_end(view, at)
        if end is not None:
            self._on_head(view[at:end], events)
        return end

    @abstractmethod
    def _on_head(self, head: memoryview, events: list[HttpEvent]) -> None:
        """Check a complete head, hand it out and enter what follows it."""

    def _find_head_end(self, view: memoryview, at: int) -> int | None:
        # Two windows, so that a start line without end is refused before the rest of the
        # head is looked at, whether it is there already or not.
        size = len(view) - at
        if self._scanned < _LINE_WINDOW - 3:
            window = view[at : at + _LINE_WINDOW]
            end = head_end(window, self._scanned)
            if end >= 0:
                return at + end
            if size >= _LINE_WINDOW and b"\r\n" not in bytes(window):
                raise RemoteProtocolError(
                    f"the {self._START_LINE} is longer than {MAX_REQUEST_LINE_BYTES} bytes",
                    status=414,
                )
        if size > _LINE_WINDOW:
            start = max(self._scanned, _LINE_WINDOW - 3)
            end = head_end(view[at : at + MAX_HEAD_BYTES], start)
            if end >= 0:
                return at + end
            if size >= MAX_HEAD_BYTES:
                raise RemoteProtocolError(
                    f"the head is longer than {MAX_HEAD_BYTES} bytes", status=431
                )
        self._scanned = max(0, size - 3)
        return None

    def _start_body(self, length: int | None, events: list[HttpEvent]) -> None:
        """Enter the body of ``length`` bytes; ``None``: chunked."""
        if length is None:
            self._move(State.CHUNK_SIZE)
        elif length:
            self._move(State.LENGTH_BODY)
            self._left_bytes = self._body_bytes = length
        else:
            self._end_message(events)

    def _end_message(self, events: list[HttpEvent], trailers: Headers | None = None) -> None:
        self._hand_out_chunks(events)
        self._move(State.COMPLETE)
        events.append(BodyEnd(trailers) if trailers else BodyEnd())

    def _hand_out_chunks(self, events: list[HttpEvent]) -> None:
        # One part for all chunks of a feed: a client that sends single bytes as chunks
        # shall not make an object of each.
        if self._chunks:
            events.append(BodyPart(bytes(self._chunks)))
            self._chunks = bytearray()

    def _read_length_body(self, view: memoryview, at: int, events: list[HttpEvent]) -> int | None:
        after = min(len(view), at + self._left_bytes)
        events.append(BodyPart(bytes(view[at:after])))
        self._left_bytes -= after - at
        if not self._left_bytes:
            self._end_message(events)
        return after

    def _read_chunk_size(self, view: memoryview, at: int, events: list[HttpEvent]) -> int | None:
        # A size without an extension, mostly: a client that sends single bytes as chunks
        # shall not make us copy the longest line for each.
        window = bytes(view[at : at + _USUAL_CHUNK_LINE_BYTES])
        end = window.find(b"\r\n")
        if end < 0:
            window = bytes(view[at : at + MAX_CHUNK_LINE_BYTES + 2])
            end = window.find(b"\r\n")
        if end < 0:
            if len(window) == MAX_CHUNK_LINE_BYTES + 2:
                raise RemoteProtocolError(
                    f"the line before a chunk is longer than {MAX_CHUNK_LINE_BYTES} bytes"
                )
            return None
        line = _CHUNK_LINE.fullmatch(window, 0, end)
        if line is None:
            raise RemoteProtocolError(f"bad chunk size: {window[: min(end, 40)]!r}")
        self._left_bytes = int(line[1], 16)
        if self._left_bytes:
            self._body_bytes += self._left_bytes
            if self._body_bytes > self._max_body_bytes:
                raise self._body_too_large()
            self._move(State.CHUNK_DATA)
        else:
            self._move(State.TRAILERS)
            self._scanned = 0
        return at + end + 2

    def _read_chunk_data(self, view: memoryview, at: int, events: list[HttpEvent]) -> int | None:
        after = min(len(view), at + self._left_bytes)
        self._chunks += view[at:after]
        self._left_bytes -= after - at
        if not self._left_bytes:
            self._move(State.CHUNK_END)
        return after

    def _read_chunk_end(self, view: memoryview, at: int, events: list[HttpEvent]) -> int | None:
        mark = bytes(view[at : at + 2])
        if not b"\r\n".startswith(mark):
            raise RemoteProtocolError(f"expected CRLF after a chunk, not {mark!r}")
        if len(mark) < 2:
            return None
        self._move(State.CHUNK_SIZE)
        return at + 2

    def _read_trailers(self, view: memoryview, at: int, events: list[HttpEvent]) -> int | None:
        if bytes(view[at : at + 2]) == b"\r\n":
            self._end_message(events)
            return at + 2
        window = view[at : at + MAX_TRAILER_BYTES]
        end = head_end(window, self._scanned)
        if end < 0:
            if len(window) == MAX_TRAILER_BYTES:
                raise RemoteProtocolError(
                    f"the trailers are longer than {MAX_TRAILER_BYTES} bytes", status=431
                )
            self._scanned = max(0, len(window) - 3)
            return None
        self._end_message(events, Headers(parse_fields(window[:end])))
        return at + end

    def _read_close_body(self, view: memoryview, at: int, events: list[HttpEvent]) -> int | None:
        events.append(BodyPart(bytes(view[at:])))
        return len(view)

    def _body_too_large(self) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"body of {self._body_bytes} bytes is larger than allowed "
            f"(limit: {self._max_body_bytes} bytes)",
            status=413,
        )


_READERS: Final[
    Mapping[State, Callable[[_Connection, memoryview, int, list[HttpEvent]], int | None]]
] = {
    State.IDLE: _Connection._read_idle,
    State.HEAD: _Connection._read_head,
    State.LENGTH_BODY: _Connection._read_length_body,
    State.CHUNK_SIZE: _Connection._read_chunk_size,
    State.CHUNK_DATA: _Connection._read_chunk_data,
    State.CHUNK_END: _Connection._read_chunk_end,
    State.TRAILERS: _Connection._read_trailers,
    State.CLOSE_BODY: _Connection._read_close_body,
}


class ServerConnection(_Connection):
    """Reads requests."""

    __slots__ = ()

    _START_LINE = "request line"

    def read_whole(self, data: memoryview) -> tuple[RequestHead, bytes] | None:
        """Head and body of the request that ``data`` is, where none is under way.

        Does at once what ``feed`` does in steps, for what nearly every request is: all of it in
        one read, and nothing else. ``None``: it is something else, or an offence; nothing has
        changed, and ``feed`` tells what it is. Chunked bodies and long heads are ``feed``'s, too.
        """
        if self._state is not State.IDLE or self._pending:
            return None
        try:
            end = head_end(data[:_LINE_WINDOW])
            if end < 0:
                return None
            head, length = _read_request_head(bytes(data[:end]))
        except RemoteProtocolError:
            return None
        if length is None or end + length != len(data):
            return None
        self._body_bytes = length
        self._state = State.COMPLETE  # by way of the others, of which nothing is left to see
        return head, bytes(data[end:])

    def next_request(self) -> list[HttpEvent]:
        """Go on after a complete request, with what came behind it. Raises as ``feed`` does."""
        return self._start_next()

    def set_body_limit(self, max_body_bytes: int) -> None:
        """Refuse the body of the request under way beyond ``max_body_bytes``, with status 413.

        Called once its head was seen. Raises at once when the length is announced, or when
        what has come already is too long.
        """
        self._max_body_bytes = max_body_bytes
        if self._body_bytes > max_body_bytes:
            self._close()
            raise self._body_too_large()

    def _on_head(self, head: memoryview, events: list[HttpEvent]) -> None:
        request, length = _read_request_head(bytes(head))
        events.append(request)
        self._start_body(length, events)


class ClientConnection(_Connection):
    """Reads responses. ``method`` is the request's: it decides whether a body follows."""

    __slots__ = ("_method",)

    _START_LINE = "status line"

    def __init__(self, method: str = "GET") -> None:
        super().__init__()
        self._method = method

    def next_response(self, method: str = "GET") -> list[HttpEvent]:
        """Go on after a complete response, to that of the next request."""
        self._method = method
        return self._start_next()

    def feed_eof(self) -> list[HttpEvent]:
        """The server ended the connection; an error unless a message may end here."""
        events: list[HttpEvent] = []
        if self._state is State.CLOSE_BODY:
            self._end_message(events)
        elif self._state not in (State.IDLE, State.COMPLETE, State.CLOSED):
            self._close()
            raise RemoteProtocolError("the connection ended within a response")
        return events

    def _on_head(self, head: memoryview, events: list[HttpEvent]) -> None:
        line = _STATUS_LINE.match(head)
        if line is None:
            raise RemoteProtocolError(f"not an HTTP/1.1 status line: {bytes(head[:40])!r}")
        status = int(line[2])
        version_minor = int(line[1])
        headers = Headers(parse_fields(head[line.end() :]))
        events.append(
            ResponseHead(
                status=status,
                reason=(line[3] or b"").decode("latin-1"),
                version_minor=version_minor,
                headers=headers,
            )
        )
        # RFC 9112 §6.3, in its order.
        if status < 200 and status != HTTPStatus.SWITCHING_PROTOCOLS:
            self._move(State.IDLE)  # interim: the answer itself is still to come
        elif self._method == "HEAD" or status in (101, 204, 304):
            self._end_message(events)
        elif "transfer-encoding" in headers or "content-length" in headers:
            self._start_body(_body_length(headers, version_minor), events)
        else:
            self._move(State.CLOSE_BODY)


# --- rules for heads -----------------------------------------------------------------------------


@lru_cache(maxsize=256)  # on a connection that stays open, most heads are the one before
def _read_usual_head(head: bytes) -> tuple[RequestHead, int | None]:
    return _read_new_head(head)


def _read_request_head(head: bytes) -> tuple[RequestHead, int | None]:
    """A request's head, checked, and the length of its body; ``None`` if chunked."""
    # What is remembered is bounded in bytes, too.
    return (_read_usual_head if len(head) <= _USUAL_HEAD_BYTES else _read_new_head)(head)


def _read_new_head(head: bytes) -> tuple[RequestHead, int | None]:
    method, target, version_minor, fields = parse_request_head(head)
    headers = Headers(fields)
    path, query = _split_target(method, target)
    _check_host(headers, version_minor)
    length = _body_length(headers, version_minor)
    has_body = length != 0
    expectation = headers.get("expect")
    if expectation is not None and expectation.lower() != "100-continue":
        raise RemoteProtocolError(
            f"cannot meet the expectation {expectation[:40]!r}: only 100-continue is known",
            status=417,
        )
    options = headers.tokens("connection")
    request = RequestHead(
        method=method,
        target=target,
        path=path,
        query=query,
        version_minor=version_minor,
        headers=headers,
        has_body=has_body,
        keep_alive="close" not in options and (version_minor == 1 or "keep-alive" in options),
        expects_continue=expectation is not None and has_body and version_minor == 1,
        upgrade=headers.get("upgrade", "").lower() or None
        if "upgrade" in options and version_minor == 1
        else None,
    )
    return request, length


def _split_target(method: str, target: str) -> tuple[str, str]:
    """Path and query of a request target (RFC 9112 §3.2)."""
    if "#" in target:
        raise RemoteProtocolError("the request target has a fragment (#); servers never see one")
    if target[0] != "/":
        if target == "*" and method == "OPTIONS":
            return target, ""
        absolute = _ABSOLUTE_FORM.fullmatch(target)
        if absolute is None or not _AUTHORITY.fullmatch(absolute[1]):
            raise RemoteProtocolError(
                f"bad request target {target[:40]!r}: expected a path or an http:// URL"
            )
        target = absolute[2] if absolute[2].startswith("/") else "/" + absolute[2]
    path, _, query = target.partition("?")
    return path, query


def _check_host(headers: Headers, version_minor: int) -> None:
    """Exactly one sound Host field (RFC 9112 §3.2); HTTP/1.0 may leave it out."""
    hosts = headers.get_all("host")
    if len(hosts) > 1 or (not hosts and version_minor == 1):
        raise RemoteProtocolError(f"{len(hosts)} Host fields; there must be one")
    if hosts and not _AUTHORITY.fullmatch(hosts[0]):
        raise RemoteProtocolError(f"bad Host field: {hosts[0][:80]!r}")


def _body_length(headers: Headers, version_minor: int) -> int | None:
    """Length of the body that follows a head, ``None`` if chunked (RFC 9112 §6)."""
    lengths = headers.get_all("content-length")
    if "transfer-encoding" in headers:
        if lengths:
            raise RemoteProtocolError("both Content-Length and Transfer-Encoding are given")
        if version_minor == 0:
            raise RemoteProtocolError("HTTP/1.0 knows no Transfer-Encoding")
        codings = headers.tokens("transfer-encoding")
        if codings[-1:] != ["chunked"] or codings.count("chunked") > 1:
            raise RemoteProtocolError("Transfer-Encoding must end with one chunked")
        if len(codings) > 1:
            raise RemoteProtocolError(f"transfer coding {codings[0]!r} is unknown", status=501)
        return None
    if not lengths:
        return 0
    # Repeats are refused even where they agree: a proxy may have used another one.
    if len(lengths) > 1 or not _DECIMAL.fullmatch(lengths[0]):
        raise RemoteProtocolError(f"bad Content-Length: {', '.join(lengths)[:80]!r}")
    return int(lengths[0])


# --- writing -------------------------------------------------------------------------------------

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

_STATUS_LINES: Final = {
    int(status): f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus
}


def encode_response_head(status: int, fields: Iterable[tuple[str, str]]) -> bytes:
    """A response's head; framing fields are the caller's. ``ValueError``: bad field, status."""
    line = _STATUS_LINES.get(status)
    if line is None:
        raise ValueError(f"unknown status {status}")
    return _encode_head(line, fields)


def encode_request_head(method: str, target: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """A request's head; Host and framing fields are the caller's."""
    return _encode_head(f"{method} {target} HTTP/1.1\r\n", fields)


def encode_chunk(data: BytesLike) -> bytes:
    """``data`` as one chunk; nothing for no data, since an empty chunk would end the body."""
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n")) if data else b""


def _encode_head(line: str, fields: Iterable[tuple[str, str]]) -> bytes:
    return "".join((line, *map(_field_line, fields), "\r\n")).encode("latin-1")


@lru_cache(maxsize=1024)  # responses say much the same
def _field_line(field: tuple[str, str]) -> str:
    name, value = field
    # A CR or LF in a value would let it write further fields, or a response of its own.
    if not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
        raise ValueError(f"header field {name!r} cannot carry {value!r}")
    return f"{name}: {value}\r\n"
