"""WebSocket frames, as a client reads them: those of servers.

Invariants: see :mod:`tests.fuzz.reading_frames`.
"""

from tests.fuzz.reading_frames import check_frames

SEEDS = (
    b"\x81\x05hello",
    b"\x82\x7e\x00\x7e" + bytes(126),
    b"\x01\x02ab\x89\x00\x80\x01c",
    b"\x88\x05\x03\xe8bye\x81\x00",
    b"\x01\x02\xf0\x9f\x80\x02\x92\xa9",
    b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
    b"\x8a\x7d" + bytes(125),
)
DICTIONARY = (
    b"\x81",
    b"\x82",
    b"\x01",
    b"\x80",
    b"\x00",
    b"\x89",
    b"\x8a",
    b"\x88",
    b"\x7e",
    b"\x7f",
    b"\x03\xe8",
    b"\x81\x00",
)


def check(data: bytes) -> None:
    """The invariants for ``data`` from a server."""
    check_frames(data, is_client=True)
