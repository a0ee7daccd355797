"""Many clients on raw sockets, moved by one selector in the test's own thread.

Nothing here waits without a deadline that says what was waited for.
"""

import contextlib
import heapq
import itertools
import json
import os
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Self

from tests.e2e.fleet import raw_prompt

CONNECTING: Final = 200  # at once: a listener's accept queue is finite
CONNECT_TIMEOUT_S: Final = 60.0
TURN_S: Final = 0.05
PIECE_BYTES: Final = 1 << 16
SEGMENT_BYTES: Final = 1400  # as on networks


def post(path: str, body: Any) -> bytes:
    """A request of JSON as it goes over the wire."""
    content = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n".encode()
        + content
    )


def prompt(tokens: int) -> bytes:
    """A native request whose answer has so many tokens."""
    return post("/api/v1/continue_from_raw_prompt", raw_prompt("Once upon a time", tokens))


def upgrade(path: str) -> bytes:
    """The request that opens a WebSocket."""
    return (
        f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


class Member:
    """One client. ``heard`` is all that came to it, ``end`` how its connection ended, if it did.

    ``is_answered``: a whole response has come.

    Changed by its :class:`Crowd` only.
    """

    __slots__ = (
        "end",
        "events",
        "heard",
        "is_answered",
        "is_connected",
        "is_reading",
        "sock",
        "unsent",
    )

    def __init__(self, sock: socket.socket, *, is_reading: bool) -> None:
        self.sock = sock
        self.heard = bytearray()
        self.is_answered = False
        self.end = ""
        self.unsent = b""
        self.is_connected = False
        self.is_reading = is_reading
        self.events = 0  # what the selector watches

    @property
    def status(self) -> int:
        """Of the first response; 0: none has come."""
        return int(self.heard[9:12]) if len(self.heard) >= 12 else 0


def is_whole(heard: bytearray) -> bool:
    """Whether a whole response has come: all of its length, or its last chunk."""
    head_end = heard.find(b"\r\n\r\n")
    if head_end < 0:
        return False
    field_at = heard.find(b"content-length: ", 0, head_end)
    if field_at < 0:
        return heard.endswith(b"0\r\n\r\n")
    length = heard[field_at + 16 : head_end].split(b"\r\n", 1)[0]
    return len(heard) >= head_end + 4 + int(length)


class Crowd:
    """Clients that do as they are told, while ``join`` or ``play`` runs. Use as ``with``."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._selector = selectors.DefaultSelector()
        self._connecting = 0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave(self.members)
        self._selector.close()

    # --- what clients do -----------------------------------------------------------------------

    def join(
        self,
        port: int,
        count: int,
        wire: bytes = b"",
        *,
        is_reading: bool = True,
        receive_bytes: int | None = None,
    ) -> list[Member]:
        """That many more clients, connected; each sends ``wire`` at once.

        ``receive_bytes``: what the kernel keeps for them, where that shall be little.
        """
        joined: list[Member] = []

        def are_all_in() -> bool:
            while self._connecting < CONNECTING and len(joined) < count:
                joined.append(self._connect(port, wire, is_reading, receive_bytes))
            return self._connecting == 0

        self.play(are_all_in, f"{count} clients are connected", CONNECT_TIMEOUT_S)
        lost = Counter(member.end for member in joined if not member.is_connected)
        assert not lost, f"clients could not connect: {lost}"
        return joined

    def drip(self, members: Iterable[Member], wire: bytes, every_s: float) -> None:
        """Let them send ``wire`` over and over, an octet at a time, until they are cut off."""
        now = time.monotonic()
        for number, member in enumerate(members):
            octets = itertools.cycle(wire)

            def send_one(member: Member = member, octets: Iterator[int] = octets) -> bool:
                self.send(member, bytes((next(octets),)))
                return not member.end

            self._repeat(now + number % 100 * every_s / 100, every_s, send_one)

    def sip(self, members: Iterable[Member], piece_bytes: int, every_s: float) -> None:
        """Let them read no faster than that."""
        now = time.monotonic()
        for number, member in enumerate(members):

            def read_one(member: Member = member) -> bool:
                self._read(member, piece_bytes)
                return not member.end and not member.is_answered

            self._repeat(now + number % 100 * every_s / 100, every_s, read_one)

    def read_on(self, members: Iterable[Member]) -> None:
        """Let those read that did not."""
        for member in members:
            member.is_reading = True
            self._watch(member)

    def ask_again(self, member: Member, wire: bytes) -> None:
        """Let one that was answered send another request."""
        assert member.is_answered
        member.heard.clear()
        member.is_answered = False
        self.send(member, wire)

    def send(self, member: Member, wire: bytes) -> None:
        """Let one send ``wire``, as fast as the kernel takes it."""
        if not member.end:
            member.unsent += wire
            if member.is_connected:
                self._write(member)

    def leave(self, members: Iterable[Member]) -> None:
        """Let them close their connections."""
        for member in members:
            self._end(member, "left")

    # --- time ----------------------------------------------------------------------------------

    def play(self, until: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Let the clients act until something holds; an error naming ``what`` at the deadline."""
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s:.0f} s: {what}\n{self.describe()}")
            self._turn()

    def describe(self) -> str:
        """Where the clients stand, for a failure's report."""
        states = Counter(
            (
                "connected" if member.is_connected else "connecting",
                member.status,
                "answered" if member.is_answered else "not answered",
                member.end or "open",
            )
            for member in self.members
        )
        return "\n".join(f"{count} clients: {state}" for state, count in states.most_common(12))

    # --- inside --------------------------------------------------------------------------------

    def _connect(
        self, port: int, wire: bytes, is_reading: bool, receive_bytes: int | None
    ) -> Member:
        sock = socket.socket()
        member = Member(sock, is_reading=is_reading)
        self.members.append(member)
        sock.setblocking(False)
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            # Else the loopback interface's segments of 64 KiB have the kernel keep megabytes.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        member.unsent = wire
        self._connecting += 1
        with contextlib.suppress(BlockingIOError):
            sock.connect(("127.0.0.1", port))
        self._watch(member)
        return member

    def _turn(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()
        pause_s = min(TURN_S, max(0.0, self._due[0][0] - now)) if self._due else TURN_S
        for key, events in self._selector.select(pause_s):
            member: Member = key.data
            if events & selectors.EVENT_WRITE:
                self._on_writable(member)
            if events & selectors.EVENT_READ and not member.end:
                self._read(member, PIECE_BYTES)

    def _repeat(self, due_at: float, every_s: float, act: Callable[[], bool]) -> None:
        """Call ``act`` from then on, for as long as it says so."""

        def go() -> None:
            if act():
                self._repeat(max(due_at + every_s, time.monotonic()), every_s, act)

        heapq.heappush(self._due, (due_at, next(self._order), go))

    def _on_writable(self, member: Member) -> None:
        if not member.is_connected:
            self._connecting -= 1
            error = member.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._end(member, os.strerror(error))
                return
            member.is_connected = True
        self._write(member)

    def _write(self, member: Member) -> None:
        try:
            while member.unsent:
                member.unsent = member.unsent[member.sock.send(member.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            member.unsent = b""  # what it was told before it was cut off can still be read
            if not member.is_reading:
                self._end(member, "cut off")
                return
        self._watch(member)

    def _read(self, member: Member, piece_bytes: int) -> None:
        if member.end:
            return
        try:
            piece = member.sock.recv(piece_bytes)
        except BlockingIOError:
            return
        except OSError:
            self._end(member, "reset")
            return
        member.heard += piece
        member.is_answered = is_whole(member.heard)
        if not piece:
            self._end(member, "closed")

    def _watch(self, member: Member) -> None:
        if member.end:
            return
        wants_write = bool(member.unsent) or not member.is_connected
        events = selectors.EVENT_READ if member.is_reading else 0
        events |= selectors.EVENT_WRITE if wants_write else 0
        if events == member.events:
            return
        if not events:
            self._selector.unregister(member.sock)
        elif not member.events:
            self._selector.register(member.sock, events, member)
        else:
            self._selector.modify(member.sock, events, member)
        member.events = events

    def _end(self, member: Member, how: str) -> None:
        if not member.end:
            member.end = how
            if member.events:
                self._selector.unregister(member.sock)
            member.sock.close()
