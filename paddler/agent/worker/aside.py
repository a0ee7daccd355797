"""Work beside the batch loop: what waits for another process may not hold up the answers.

Templates, schemas and images are worked on in a child with a deadline of its own. The
loop asks here and goes on decoding; it is woken when a result is there, and takes it in
its own thread, so that all state has one owner.
"""

import contextlib
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

T = TypeVar("T")


class RunAside(Protocol):
    """Runs ``work`` and then ``take`` with its result, in the order of asking."""

    def __call__(self, work: Callable[[], T], take: Callable[[T], object]) -> None:
        """Return before or after the work is done, as the implementation likes."""
        ...


def run_at_once(work: Callable[[], T], take: Callable[[T], object]) -> None:
    """The :class:`RunAside` that waits."""
    take(work())


class Aside:
    """One thread that works while the loop decodes. Use as ``with``.

    The loop polls :attr:`wake_fd` and calls :meth:`collect`. What is still under way at the
    end is abandoned.
    """

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[Any], object]]] = (
            queue.SimpleQueue()
        )
        self._done: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        # A daemon: whatever it waits for must not keep the process.
        self._thread = threading.Thread(target=self._run, name="aside", daemon=True)
        self._thread.start()

    @property
    def wake_fd(self) -> int:
        """Readable while there are results to collect."""
        return self._wake.fileno()

    def __call__(self, work: Callable[[], T], take: Callable[[T], object]) -> None:
        """Have ``work`` done; :meth:`collect` calls ``take`` with its result."""
        self._todo.put((work, take))

    def collect(self) -> None:
        """Take the results that are there. What the work raised is raised here."""
        try:
            self._wake.recv(4096)  # before looking: a wake-up behind it tells of more
        except BlockingIOError:
            return
        while True:
            try:
                take = self._done.get_nowait()
            except queue.Empty:
                return
            take()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.close()

    def _run(self) -> None:
        while True:
            work, take = self._todo.get()
            self._done.put(_finished(work, take))
            # A full pipe has woken the loop already; a closed one has no loop any more.
            with contextlib.suppress(OSError):
                self._waker.send(b"!")


def _finished(work: Callable[[], T], take: Callable[[T], object]) -> Callable[[], object]:
    """Do ``work``; what is left to do is to take its result, or to raise what it raised."""
    try:
        result = work()
    except BaseException as error:
        raised = error  # the name of an except clause is gone after it

        def fail() -> object:
            raise raised

        return fail
    return lambda: take(result)
