"""File descriptors: as many as there may be, and a word to operators before they run out.

The system gives the lowest number that is free. So the number of a new descriptor tells how
many there are at least, whoever has them, and nothing has to be counted.
"""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
TELL_EVERY_S: Final = 60.0
OVER_AFTER_S: Final = 10.0
"""With room at every look for this long, a shortage is over."""

_LEAST_RESERVED: Final = 16
_MOST_RESERVED: Final = 64
_RESERVED_SHARE: Final = 8
_NONE: Final = 1 << 30
_RAN_OUT: Final = frozenset({errno.EMFILE, errno.ENFILE})


PROCESS_NEEDS: Final = _LEAST_RESERVED
"""At least what starting a process opens, pipes and all."""


def check_room(count: int) -> None:
    """``OSError`` if ``count`` more cannot be opened now.

    To be called before what would stop halfway: uvloop, starting a process, forgets to close
    what it had opened by then, and in part also what the error was.
    """
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


def raise_limit() -> None:
    """Have as many as this process may give itself; the usual soft limit is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Descriptors:
    """Tells whether there is room for more, and warns when there is not: once a minute.

    The last eighth, but 16 to 64, is for what must go on: links of agents, operators, files,
    processes.
    ``clock`` in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limit = 0
        self._most = 0
        self._told_at: float | None = None  # in a shortage
        self._scarce_at = 0.0
        self._refused = 0
        self._read_limit()

    def has_room(self, descriptor: int) -> bool:
        """Whether one more connection may stay, given its ``descriptor``."""
        return descriptor < self._most

    def on_refused(self) -> None:
        """A connection was refused for want of room."""
        self._refused += 1
        self._on_scarce()

    def look(self) -> None:
        """See what there is now. The limit may have been changed from outside."""
        self._read_limit()
        if not self.has_room(_lowest_free()):
            self._on_scarce()
        elif self._told_at is not None and self._clock() - self._scarce_at >= OVER_AFTER_S:
            self._told_at = None
            log.info("there are file descriptors again%s", self._take_refused())

    async def run(self) -> None:
        """Look every second, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    def _read_limit(self) -> None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._limit = limit if limit != resource.RLIM_INFINITY else _NONE
        share = self._limit // _RESERVED_SHARE
        self._most = self._limit - min(max(share, _LEAST_RESERVED), _MOST_RESERVED)

    def _on_scarce(self) -> None:
        now = self._scarce_at = self._clock()
        if self._told_at is not None and now - self._told_at < TELL_EVERY_S:
            return
        self._told_at = now
        log.warning(
            "file descriptors run out: %d or more of the %d that this process may have are in use"
            "%s; raise the limit, by `ulimit -n` or LimitNOFILE= of a systemd unit",
            self._most,
            self._limit,
            self._take_refused(),
        )

    def _take_refused(self) -> str:
        count, self._refused = self._refused, 0
        return f"; connections refused: {count}" if count else ""


def _lowest_free() -> int:
    """The number that the next descriptor will have; beyond all if there is none."""
    try:
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return _NONE if error.errno in _RAN_OUT else 0  # 0: it cannot be told here
    os.close(descriptor)
    return descriptor
