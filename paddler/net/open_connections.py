"""The connections that a listener has open, so that it can stop."""

import asyncio
from typing import Protocol

from paddler.descriptors import Descriptors


class OpenConnection(Protocol):
    """What a listener asks of its connections."""

    def stop(self) -> None:
        """Close now if nothing is under way, otherwise when it is done."""

    def end(self) -> None:
        """Close now, whatever is under way."""


class OpenConnections:
    """All connections of one listener. ``descriptors``: takes none that has no room there."""

    def __init__(self, descriptors: Descriptors | None = None) -> None:
        self._descriptors = descriptors
        self.is_stopping = False
        """Whether connections are asked to close once they are done."""
        self._members: set[OpenConnection] = set()
        self._emptied = asyncio.Event()
        self._emptied.set()

    def __len__(self) -> int:
        return len(self._members)

    def has_room(self, transport: asyncio.BaseTransport) -> bool:
        """Whether the connection of ``transport``, which has just begun, may stay."""
        if self._descriptors is None:
            return True
        if self._descriptors.has_room(transport.get_extra_info("socket").fileno()):
            return True
        self._descriptors.on_refused()
        return False

    def add(self, connection: OpenConnection) -> None:
        """Called by a connection as it begins."""
        self._members.add(connection)
        self._emptied.clear()

    def discard(self, connection: OpenConnection) -> None:
        """Called by a connection when nothing of it runs any longer."""
        self._members.discard(connection)
        if not self._members:
            self._emptied.set()

    def stop(self) -> None:
        """Ask all of them to close once they are done."""
        self.is_stopping = True
        for connection in tuple(self._members):
            connection.stop()

    def end(self) -> None:
        """Have all of them closed."""
        for connection in tuple(self._members):
            connection.end()

    async def wait_empty(self) -> None:
        """Wait until the last one is gone."""
        await self._emptied.wait()
