"""A TCP proxy that is as bad a network as a test says: slow, silent, or cut."""

import contextlib
import math
import socket
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any, Self

_PIECE_BYTES = 1 << 16


class Towards(Enum):
    """A direction."""

    TARGET = "target"
    CALLER = "caller"


class Proxy:
    """Stands in for a port of the loopback interface. Use as ``with``."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.accepted = 0
        """Connections so far."""
        self._changed = threading.Condition()
        self._paces = dict.fromkeys(Towards, math.inf)  # bytes per second; 0: frozen
        self._left_bytes: int | None = None  # towards the target, before the cut
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.cut()
        for thread in self._threads[1:]:
            thread.join()
        for one in (self._server, *self._sockets):
            one.close()

    def freeze(self, *directions: Towards) -> None:
        """Forward nothing, as a network that loses every packet; connections stay open.

        Without ``directions``: neither way.
        """
        self._set_pace(0.0, directions)

    def trickle(self, bytes_per_s: float, *directions: Towards) -> None:
        """Forward that little; what is more waits here. Without ``directions``: both ways."""
        self._set_pace(bytes_per_s, directions)

    def thaw(self) -> None:
        """Forward as fast as can be again, first of all what came meanwhile."""
        self._set_pace(math.inf, ())

    def cut(self) -> None:
        """End every connection, towards both sides."""
        self.thaw()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def cut_after(self, count: int) -> None:
        """``cut`` when ``count`` more bytes have been forwarded to the target."""
        with self._changed:
            self._left_bytes = count

    def _set_pace(self, bytes_per_s: float, directions: tuple[Towards, ...]) -> None:
        with self._changed:
            for towards in directions or Towards:
                self._paces[towards] = bytes_per_s
            self._changed.notify_all()

    def _start(self, run: Callable[..., None], *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=run, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self._sockets += (near, far)
            self._start(self._pump, near, far, Towards.TARGET)
            self._start(self._pump, far, near, Towards.CALLER)
            self.accepted += 1

    def _pump(self, source: socket.socket, sink: socket.socket, towards: Towards) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                while piece:
                    count, is_last = self._wait_turn(towards, len(piece))
                    sink.sendall(piece[:count])
                    if is_last:
                        self.cut()
                    piece = piece[count:]
        self._wait_turn(towards, 0)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _wait_turn(self, towards: Towards, wanted: int) -> tuple[int, bool]:
        """How many bytes may go on now, and whether all is cut after them."""
        with self._changed:
            while (pace := self._paces[towards]) < math.inf:
                if not pace:
                    self._changed.wait()
                elif not self._changed.wait(1 / pace):  # in vain: the pace is what it was
                    wanted = min(wanted, 1)
                    break
            if towards is Towards.CALLER or self._left_bytes is None:
                return wanted, False
            wanted = min(wanted, self._left_bytes)
            self._left_bytes -= wanted
            if self._left_bytes:
                return wanted, False
            self._left_bytes = None
            return wanted, True
