"""The end of our side of a connection, while the peer's is still to come."""

import asyncio


def end_output(transport: asyncio.Transport) -> None:
    """Send nothing more, after what was written.

    Over TLS, which cannot be half closed, this starts to close: what was written still goes out,
    and then the peer's end is waited for. How long, is the caller's affair either way.
    """
    if transport.can_write_eof():
        transport.write_eof()
    else:
        transport.close()
