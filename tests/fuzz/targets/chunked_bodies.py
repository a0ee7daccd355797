"""Chunked bodies, and what stands behind them.

Invariants: a body is read or refused alike however its bytes arrive; what is accepted, h11 reads
as the same body and trailers; what we write as chunks is read back.
"""

from paddler.proto.events import BodyPart
from paddler.proto.http1 import LAST_CHUNK, encode_chunk
from tests.fuzz.pieces import all_at_once, byte_by_byte, cut
from tests.fuzz.reading_requests import assert_h11_reads, read_requests

HEAD = b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
SEEDS = (
    b"0\r\n\r\n",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"0003;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
    b"1 ; x\r\na\r\n0;last\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"3\nabc\r\n0\r\n\r\n",
    b"3\r\nabcd\r\n0\r\n\r\n",
    b"1\r\na\r\n0\r\nA: b\r\n c\r\n\r\n",
)
DICTIONARY = (
    b"\r\n",
    b"\n",
    b"\r",
    b"0\r\n\r\n",
    b"0\r\n",
    b";",
    b" ;",
    b"0x",
    b"-1",
    b"\t",
    b"\0",
    b"1\r\na\r\n",
    b": ",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    HEAD,
)


def check(data: bytes) -> None:
    """The invariants for ``data`` behind a head that announces chunks."""
    wire = HEAD + data
    events, refusal = read_requests(all_at_once(wire))
    for pieces in ([HEAD, *byte_by_byte(data)], [HEAD, *cut(data)]):
        again, refusal_again = read_requests(pieces)
        assert refusal_again == refusal
        assert refusal is not None or again == events
    if refusal is None:
        assert_h11_reads(wire, events)
    written = b"".join(encode_chunk(piece) for piece in cut(data)) + LAST_CHUNK
    read, _ = read_requests([HEAD + written])
    assert b"".join(event.data for event in read if isinstance(event, BodyPart)) == data
    assert len(read) == (3 if data else 2)
