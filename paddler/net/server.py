"""Listening, and stopping again."""

import asyncio
import logging
import os
import resource
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import uvloop

from paddler.descriptors import Descriptors
from paddler.net.connection import HttpConnection
from paddler.net.http import Site
from paddler.net.open_connections import OpenConnections
from paddler.net.tls_server import TLS_HANDSHAKE_TIMEOUT_S, TlsProtocol

_log = logging.getLogger(__name__)

_BACKLOG: Final = 2_048
# libuv accepts one connection for a descriptor each time round the loop, and a loop that relays to
# thousands of streams goes round less than a hundred times a second: several descriptors of one
# socket, as far as the process may have many.
_MOST_ACCEPTS_AT_ONCE: Final = 16
_DESCRIPTORS_FOR_EACH: Final = 256


class Listener:
    """An open port and the connections that came through it. Made by ``listen``."""

    def __init__(
        self,
        server: asyncio.Server,
        others: Sequence[asyncio.AbstractServer],
        connections: OpenConnections,
    ) -> None:
        """``others``: accept what comes to the same port."""
        host, port = server.sockets[0].getsockname()[:2]
        self.host: str = host
        self.port: int = port
        """The actual port, where 0 was asked for."""
        self.connections = connections
        self._servers = (server, *others)

    def close(self) -> None:
        """Accept no more connections; those that are open go on."""
        for server in self._servers:
            server.close()

    async def stop(self, grace_s: float) -> None:
        """Close everything, and return when nothing is left.

        Idle connections end at once, busy ones after the response under way, all within
        ``grace_s``; then they are cut, WebSockets after a close frame.
        """
        self.close()
        self.connections.stop()
        try:
            async with asyncio.timeout(grace_s):
                await self.connections.wait_empty()
        except TimeoutError:
            _log.info("cutting %d connections of port %d", len(self.connections), self.port)
            self.connections.end()
            await self.connections.wait_empty()


async def listen(
    site: Site,
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    descriptors: Descriptors | None = None,
) -> Listener:
    """Serve ``site`` on an address; port 0 takes any. ``OSError``: it cannot be listened on.

    ``descriptors``: connections that have no room there are refused.
    """
    connections = OpenConnections(descriptors)

    def make() -> HttpConnection:
        return HttpConnection(site, connections)

    factory: Callable[[], asyncio.BaseProtocol] = make
    if tls is not None and isinstance(asyncio.get_running_loop(), uvloop.Loop):
        factory, tls = partial(TlsProtocol, make, tls), None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        factory,
        host,
        port,
        backlog=_BACKLOG,
        reuse_address=True,
        ssl=tls,
        ssl_handshake_timeout=None if tls is None else TLS_HANDSHAKE_TIMEOUT_S,
    )
    servers: list[asyncio.AbstractServer] = []
    if isinstance(loop, uvloop.Loop):
        servers = [
            await loop.create_server(factory, sock=_same_port(listening), backlog=_BACKLOG)
            for listening in server.sockets
            for _ in range(_accepts_at_once() - 1)
        ]
    return Listener(server, servers, connections)


def _accepts_at_once() -> int:
    """How many descriptors each listening socket has."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _MOST_ACCEPTS_AT_ONCE
    return max(1, min(_MOST_ACCEPTS_AT_ONCE, limit // _DESCRIPTORS_FOR_EACH))


def _same_port(listening: socket.socket) -> socket.socket:
    """Another descriptor of the same listening socket: what waits there goes to either."""
    return socket.socket(fileno=os.dup(listening.fileno()))
