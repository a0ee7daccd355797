"""Request heads and what follows them on a connection.

Invariants: requests are read or refused alike however their bytes arrive; the compiled head
parser agrees with its twin; what is accepted, h11 reads as the same requests; an upgrade is
answered or refused with a status.
"""

from paddler import _fastpath
from paddler.errors import RemoteProtocolError
from paddler.proto.events import RequestHead
from paddler.proto.ws_handshake import accept_upgrade
from tests import fastpath_twin
from tests.fastpath_impls import outcome
from tests.fuzz.pieces import all_at_once, byte_by_byte, cut
from tests.fuzz.reading_requests import assert_h11_reads, read_requests

SEEDS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nHEAD /a?b=c HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET * HTTP/1.1\r\n"
    b"Host: [::1]:80\r\n\r\n",
    b"POST http://a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
    b"abcOPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip , chunked\r\nTE: trailers\r\n"
    b"\r\n0\r\n\r\n",
    b"PUT /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n"
    b"Content-Length: 0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost : b\r\nX:\r\n folded\r\n\r\n",
    b"GET /s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x80abcd",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)
DICTIONARY = (
    b"\r\n",
    b"\r\n\r\n",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"Host: a\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: ",
    b"chunked",
    b"Connection: ",
    b"keep-alive",
    b"close",
    b"Upgrade: ",
    b"websocket",
    b"Expect: 100-continue\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\t",
    b"\x7f",
    b"\xff",
    b"GET ",
    b"POST ",
    b"http://",
    b"\x0b",
    b"+1",
    b"0x1",
    b"1, 1",
)


def check(data: bytes) -> None:
    """The invariants for ``data`` as all that a client sends."""
    for impl_call in ("head_end", "parse_request_head", "parse_fields"):
        ours, twin = getattr(_fastpath, impl_call), getattr(fastpath_twin, impl_call)
        assert outcome(ours, data) == outcome(twin, data), impl_call
    events, refusal = read_requests(all_at_once(data))
    for pieces in (cut(data), byte_by_byte(data)):
        again, refusal_again = read_requests(pieces)
        assert refusal_again == refusal
        assert refusal is not None or again == events
    if refusal is None:
        assert_h11_reads(data, events)
    for event in events:
        if isinstance(event, RequestHead) and event.upgrade is not None:
            try:
                answer = accept_upgrade(event)
            except RemoteProtocolError as error:
                assert error.status in (400, 426)
            else:
                assert answer.startswith(b"HTTP/1.1 101 ")
