"""Responses, as the agent reads its balancer's.

Invariant: a response is read or refused alike however its bytes arrive, and only with
``RemoteProtocolError``.
"""

import contextlib
from collections.abc import Iterable

from paddler.errors import RemoteProtocolError
from paddler.proto.events import HttpEvent, ResponseHead
from paddler.proto.http1 import ClientConnection, State
from paddler.proto.ws_handshake import ClientHandshake
from tests.fuzz.pieces import all_at_once, byte_by_byte, cut
from tests.fuzz.reading_requests import joined

SEEDS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204\r\n\r\nHTTP/1.1 304 x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n",
    b"HTTP/1.0 500 \r\n\r\nuntil the end",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x00",
)
DICTIONARY = (b"\r\n", b"HTTP/1.1 ", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"\n")


def check(data: bytes) -> None:
    """The invariant for ``data`` as all that a server sends, for either kind of request."""
    for method in ("GET", "HEAD"):
        whole = read(all_at_once(data), method)
        for pieces in (cut(data), byte_by_byte(data)):
            again = read(pieces, method)
            assert again[1] == whole[1]
            assert whole[1] is not None or again == whole
        for event in whole[0]:
            if isinstance(event, ResponseHead) and event.status == 101:
                with contextlib.suppress(RemoteProtocolError):
                    ClientHandshake("a", "/").check(event)


def read(pieces: Iterable[bytes], method: str) -> tuple[list[HttpEvent], str | None]:
    """All responses, and how the last one was refused."""
    connection = ClientConnection(method)
    events: list[HttpEvent] = []
    try:
        for piece in pieces:
            events += connection.feed(piece)
            while connection.state is State.COMPLETE:
                events += connection.next_response(method)
        events += connection.feed_eof()
    except RemoteProtocolError as error:
        return joined(events), error.code
    return joined(events), None
