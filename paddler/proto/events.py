"""What the protocols read and hand up: records without behaviour."""

from collections.abc import Iterable, Iterator
from typing import overload

import msgspec

BytesLike = bytes | bytearray | memoryview
Fields = tuple[tuple[str, str], ...]


class Headers:
    """The fields of one head in order of arrival; names are in lower case. Immutable."""

    __slots__ = ("_fields", "_first", "_repeats")

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: Fields = tuple(fields)
        self._first = dict(self._fields)
        self._repeats = len(self._first) < len(self._fields)
        if self._repeats:
            self._first = dict(reversed(self._fields))

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """Value of the first field called ``name``."""
        return self._first.get(name, default)

    def get_all(self, name: str) -> list[str]:
        """Values of all fields called ``name``."""
        if self._repeats:
            return [value for field, value in self._fields if field == name]
        return [self._first[name]] if name in self._first else []

    def tokens(self, name: str) -> list[str]:
        """Members of a comma-separated list, over all fields called ``name``, in lower case."""
        if name not in self._first:
            return []
        members = ",".join(self.get_all(name)).lower().split(",")
        return [member for member in (member.strip(" \t") for member in members) if member]

    def __contains__(self, name: str) -> bool:
        return name in self._first

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        return self._fields == other._fields if isinstance(other, Headers) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._fields)

    def __repr__(self) -> str:
        return f"Headers({list(self._fields)!r})"


# --- HTTP/1.1 ------------------------------------------------------------------------------------


class RequestHead(msgspec.Struct, frozen=True, kw_only=True):
    """A request's head, checked. ``path`` and ``query`` are raw: nothing is percent-decoded."""

    method: str
    target: str
    path: str
    query: str
    version_minor: int
    headers: Headers
    has_body: bool
    """Whether a length above zero or chunks are announced."""
    keep_alive: bool
    """Whether the client is ready to send another request after this one."""
    expects_continue: bool
    """Whether the client holds the body back until it sees ``100 Continue``."""
    upgrade: str | None
    """The protocol that the client offers to switch to, in lower case."""


class ResponseHead(msgspec.Struct, frozen=True, kw_only=True):
    """A response's head, checked."""

    status: int
    reason: str
    version_minor: int
    headers: Headers


class BodyPart(msgspec.Struct, frozen=True):
    """Some bytes of the body, framing removed. Where it is cut means nothing."""

    data: bytes


class BodyEnd(msgspec.Struct, frozen=True):
    """The message is complete."""

    trailers: Headers = Headers()


HttpEvent = RequestHead | ResponseHead | BodyPart | BodyEnd


# --- WebSocket -----------------------------------------------------------------------------------


class Text(msgspec.Struct, frozen=True):
    """A text message, its UTF-8 checked. BORROWED: ``data`` is good until the next ``feed``."""

    data: memoryview


class Binary(msgspec.Struct, frozen=True):
    """A binary message. BORROWED: ``data`` is good until the next ``feed``; copy what you keep."""

    data: memoryview


class Ping(msgspec.Struct, frozen=True):
    """The peer wants a pong with the same payload."""

    payload: bytes


class Pong(msgspec.Struct, frozen=True):
    """The peer answered a ping, or just says that it lives."""

    payload: bytes


class Closed(msgspec.Struct, frozen=True):
    """The peer's close frame. ``code`` is 1005 where it gave none (RFC 6455 §7.1.5)."""

    code: int
    reason: str


WebSocketEvent = Text | Binary | Ping | Pong | Closed
