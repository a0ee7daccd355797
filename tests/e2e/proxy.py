"""A TCP proxy that stops forwarding, or cuts what it forwards, when a test says so."""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

_PIECE_BYTES = 1 << 16


class Proxy:
    """Stands in for a port of the loopback interface. Use as ``with``."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
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

    def freeze(self) -> None:
        """Forward nothing, as a network that loses every packet; connections stay open."""
        self._flows.clear()

    def thaw(self) -> None:
        """Forward again, first of all what came meanwhile."""
        self._flows.set()

    def cut(self) -> None:
        """End every connection, towards both sides."""
        self._flows.set()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _start(self, run: Callable[..., None], *arguments: socket.socket) -> None:
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
            for source, sink in ((near, far), (far, near)):
                self._start(self._pump, source, sink)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                self._flows.wait()
                sink.sendall(piece)
        self._flows.wait()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
