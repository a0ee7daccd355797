"""Whose request it is, and how much of the fleet one key may take.

Requests are told apart by the names of the keys they came with; where no keys are asked for
there is one nameless tenant, without limits.
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Final

from paddler.errors import ClientError

_current: ContextVar[str] = ContextVar("tenant", default="")

STATUS: Final = 429


class TooManyRequests(ClientError):
    """A key has as many requests under way as it may."""

    status = STATUS
    code = "rate_limit_exceeded"

    def __init__(self, tenant: str, limit: int) -> None:
        super().__init__(
            f"the key {tenant!r} has {limit} requests under way, which is all it may have: "
            "wait for one to end"
        )


def current_tenant() -> str:
    """Whose request runs in this task; empty: nobody's in particular."""
    return _current.get()


class Tenants:
    """Counts the requests of each key."""

    def __init__(self, *, requests_per_key: int = 0, waiting_per_key: Callable[[], int]) -> None:
        """0: no limit. ``waiting_per_key`` may change when the keys do."""
        self._limit = requests_per_key
        self._waiting_per_key = waiting_per_key
        self._running: Counter[str] = Counter()

    def request(self, tenant: str) -> contextlib.AbstractContextManager[None]:
        """A request is under way within the block; :class:`TooManyRequests`: it may not be."""
        return _Request(self._running, tenant, self._limit) if tenant else _UNCOUNTED

    def may_wait(self, tenant: str, waiting: int) -> bool:
        """Whether one more request of a key may wait for a slot, where so many wait already."""
        limit = self._waiting_per_key()
        return not tenant or limit == 0 or waiting < limit

    def running(self, tenant: str) -> int:
        """Requests of a key that are under way."""
        return self._running[tenant]


_UNCOUNTED: Final = contextlib.nullcontext()
"""What is nobody's has no limits, and is not counted."""


class _Request:
    """A request that is under way. Entered for each, so no generator stands behind it."""

    __slots__ = ("_limit", "_running", "_tenant", "_token")

    _token: Token[str]

    def __init__(self, running: Counter[str], tenant: str, limit: int) -> None:
        self._running = running
        self._tenant = tenant
        self._limit = limit

    def __enter__(self) -> None:
        tenant, running = self._tenant, self._running
        if 0 < self._limit <= running[tenant]:
            raise TooManyRequests(tenant, self._limit)
        running[tenant] += 1
        self._token = _current.set(tenant)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
        self._running[self._tenant] -= 1
        if not self._running[self._tenant]:
            del self._running[self._tenant]
