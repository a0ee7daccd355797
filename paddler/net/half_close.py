"""The end of our side of a connection, while the peer's is still to come."""

import asyncio
from collections.abc import Callable

from paddler._fastpath import SocketWriter


def end_output(transport: asyncio.Transport, write: Callable[[bytes], object]) -> None:
    """Send nothing more, after what was written. ``write`` is what writes to ``transport``.

    Over TLS, which cannot be half closed, this starts to close: what was written still goes out,
    and then the peer's end is waited for. How long, is the caller's affair either way.
    """
    if isinstance(write, SocketWriter):
        write.end()  # a stream's sink may still bring a token in this turn
    if transport.can_write_eof():
        transport.write_eof()
    else:
        transport.close()
