"""One process on this machine fetches a file; the others wait for it, and take over if it dies.

The system's lock on an open file: it ends with the process that holds it, however that ends.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

from filelock import FileLock, Timeout

LONG_WAIT_S: Final = 5.0
"""A wait up to this long is nothing to tell operators about: agents that start together."""

_LOOK_EVERY_S: Final = 0.1
_MODE: Final = 0o664  # as the Hub's library has it, so that a group may share a cache


@contextlib.contextmanager
def held(
    path: str | os.PathLike[str],
    on_wait: Callable[[bool], None],
    *,
    long_wait_s: float = LONG_WAIT_S,
) -> Iterator[None]:
    """Hold the lock within the block; waits for it as long as it takes.

    ``on_wait`` is called with ``False`` when there is something to wait for, and with
    ``True`` once that has taken long. The file stays behind.
    """
    lock = FileLock(path, mode=_MODE, poll_interval=_LOOK_EVERY_S)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        on_wait(False)
        try:
            lock.acquire(timeout=long_wait_s)
        except Timeout:
            on_wait(True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
