"""Connections to one target, opened as they are needed and kept for the next request."""

import asyncio
import os
import ssl
import time
from collections.abc import Callable

from bench.load.bodies import head_of
from bench.load.call import CONNECTION_LOST, Call
from bench.load.connection import Connection
from bench.load.plan import Target

# At once: a listener's queue is finite. So many are connected in a round of the loop, at most, and
# on a busy machine a round takes a second.
MAX_DIALLING = 500
CONNECT_TIMEOUT_S = 10.0
MAX_SENT = 3
CLOSE_TIMEOUT_S = 5.0


class Connections:
    """Sends calls, each on an idle connection or on a new one; ``on_read`` is told of reads."""

    def __init__(self, target: Target, on_read: Callable[[], object]) -> None:
        self._target = target
        self._on_read = on_read
        port = "" if target.port == (443 if target.is_tls else 80) else f":{target.port}"
        host = f"[{target.host}]" if ":" in target.host else target.host
        self._head = head_of(f"{host}{port}", target.path, target.headers)
        self._tls = ssl.create_default_context() if target.is_tls else None
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._dialling = asyncio.Semaphore(MAX_DIALLING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()

    def send(self, call: Call) -> None:
        """Send a request; it is told of its end, which may be a failed connection."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                connection.send(call)
                return
        self._dial_for(call)

    def _send_again(self, call: Call) -> None:
        """On a new connection; a server that hangs up on those, too, does not want it."""
        if call.times_sent < MAX_SENT:
            self._dial_for(call)
        else:
            call.on_end(CONNECTION_LOST)

    def _dial_for(self, call: Call) -> None:
        task = asyncio.get_running_loop().create_task(self._dial(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cut(self, reason: str, *, overdue_at: float | None = None) -> int:
        """End calls under way, all or those that were sent before an instant; how many."""
        overdue = [
            connection
            for connection in self._open
            if (call := connection.call) is not None
            and (overdue_at is None or call.sent_at < overdue_at)
        ]
        for connection in overdue:
            connection.cut(reason)
        return len(overdue)

    async def close(self) -> None:
        """Close everything."""
        self._closed.clear()
        for task in self._tasks:
            task.cancel()
        for connection in self._open:
            connection.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._open:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._closed.wait()
            except TimeoutError:  # the server does not read what is still to be sent
                for connection in self._open:
                    connection.cut("closed")

    async def _dial(self, call: Call) -> None:
        target = self._target
        try:
            async with self._dialling, asyncio.timeout(CONNECT_TIMEOUT_S):
                dialled_at = time.monotonic()
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(
                        self._head, dialled_at, self._on_idle, self._send_again, self._on_read
                    ),
                    target.host,
                    target.port,
                    ssl=self._tls,
                )
        except TimeoutError:
            call.on_end("cannot connect: timed out")
        except OSError as error:
            is_of_system = error.errno and error.errno > 0 and not isinstance(error, ssl.SSLError)
            reason = os.strerror(error.errno) if is_of_system and error.errno else str(error)
            call.on_end(f"cannot connect: {reason}")
        else:
            if not connection.is_open:  # lost before this was told that it is there
                if connection.may_be_stale:
                    call.on_sent()  # nearly
                    self._send_again(call)
                else:
                    call.on_end(CONNECTION_LOST)
                return
            self._open.add(connection)
            connection.send(call)

    def _on_idle(self, connection: Connection) -> None:
        if connection.is_open:
            self._idle.append(connection)
        else:
            self._open.discard(connection)
            if not self._open:
                self._closed.set()
