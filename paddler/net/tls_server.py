"""TLS of an accepted connection: uvloop's, and what its applications cannot see of it.

uvloop keeps the transport under TLS to itself. Three things are amiss without it: what it has yet
to send is counted nowhere; the peer's TCP end without a close_notify is told to nobody, so that a
handler may write to the void for ever; and a close waits for the peer's close_notify.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from uvloop.loop import SSLProtocol  # type: ignore[attr-defined]

TLS_HANDSHAKE_TIMEOUT_S: Final = 10.0  # as a head's
# The connections bound their own ends, by progress; uvloop's 30 s would cut slow readers.
_SHUTDOWN_TIMEOUT_S: Final = 86_400.0
_NAME: Final = "uvloop.sslproto"  # what TLS transports know it by
_NOBODY: Final = asyncio.BufferedProtocol()


class TlsProtocol(SSLProtocol):  # type: ignore[misc]
    """Under the transport that applications are given."""

    def __init__(
        self, make: Callable[[], asyncio.BufferedProtocol], context: ssl.SSLContext
    ) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            make(),
            context,
            None,
            server_side=True,
            ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT_S,
            ssl_shutdown_timeout=_SHUTDOWN_TIMEOUT_S,
        )
        self.raw: asyncio.Transport | None = None
        self.on_end: Callable[[], object] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client connected; its handshake is to come."""
        self.raw = transport
        super().connection_made(transport)

    def eof_received(self) -> None:
        """The peer ended its side of the TCP connection."""
        if self.on_end is not None:
            self.on_end()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection under TLS is gone."""
        super().connection_lost(exc)
        self.raw = self.on_end = None


def _below(transport: asyncio.Transport) -> TlsProtocol | None:
    below = transport.get_extra_info(_NAME)
    return below if isinstance(below, TlsProtocol) else None


def watch_end(transport: asyncio.Transport, on_end: Callable[[], object]) -> None:
    """Have ``on_end`` called where the peer's end would not be told otherwise."""
    if (below := _below(transport)) is not None:
        below.on_end = on_end


def forget(transport: asyncio.Transport) -> None:
    """At the end of a connection: uvloop's TLS keeps its application's methods, a cycle that holds
    a buffer of 256 KiB until Python looks for garbage."""
    if transport.get_extra_info(_NAME) is not None:
        transport.set_protocol(_NOBODY)


def unsent_bytes(transport: asyncio.Transport) -> int:
    """All that was written and that the system did not take yet."""
    size = transport.get_write_buffer_size()
    if (below := _below(transport)) is not None and below.raw is not None:
        size += below.raw.get_write_buffer_size()
    return size


def close(transport: asyncio.Transport) -> None:
    """Close once all is sent; without waiting for the peer's word, where TLS has none to send."""
    transport.close()
    below = _below(transport)
    if below is not None and below.raw is not None and not transport.get_write_buffer_size():
        below.raw.close()  # close_notify is written by now
