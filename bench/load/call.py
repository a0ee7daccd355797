"""One request under way, and its answer as it comes."""

import time
from collections.abc import Callable
from typing import Final

from bench.load.answer_formats import AnswerFormat, error_kind, usage_tokens, variant_of
from bench.load.bodies import Asked
from bench.load.read_buffer import BUFFER

CONNECTION_LOST: Final = "connection lost"
"""The kind of error."""
STAMP: Final = b"<t"
MAX_STAMP_BYTES: Final = 32

OnTime = Callable[[float], None]
OnGap = Callable[[float, int], None]
OnEnd = Callable[["Call"], None]


class Call:
    """What is known of one request.

    ``intended_at`` is when it should have begun: all of its times count from there.
    ``on_first(seconds)`` is told of the first token, ``on_gap(seconds, tokens)`` of those after
    it, ``on_age(seconds)`` how old stamped ones are. All instants are ``time.monotonic()``.
    """

    __slots__ = (
        "_events",
        "_format",
        "_is_done",
        "_kept",
        "_on_age",
        "_on_end",
        "_on_first",
        "_on_gap",
        "_rest",
        "asked",
        "ended_at",
        "error",
        "first_at",
        "intended_at",
        "last_at",
        "sent_at",
        "status",
        "times_sent",
        "tokens",
    )

    def __init__(
        self,
        asked: Asked,
        intended_at: float,
        answer_format: AnswerFormat | None,
        *,
        on_first: OnTime,
        on_gap: OnGap,
        on_end: OnEnd,
        on_age: OnTime | None = None,
        keeps_text: bool = False,
    ) -> None:
        self.asked = asked
        self.intended_at = intended_at
        self.sent_at = 0.0
        self.times_sent = 0
        self.first_at = 0.0
        self.last_at = 0.0
        self.ended_at = 0.0
        self.status = 0
        self.tokens = 0
        self.error: str | None = None
        self._events = answer_format
        self._format = answer_format
        self._on_first = on_first
        self._on_gap = on_gap
        self._on_age = on_age
        self._on_end = on_end
        self._kept: bytearray | None = bytearray() if keeps_text else None
        self._rest = b""
        self._is_done = False

    @property
    def body(self) -> bytes:
        """The answer, where it was to be kept."""
        return bytes(self._kept or b"")

    def on_sent(self) -> None:
        """It is sent. If that is not for the first time, it goes by the first."""
        self.times_sent += 1
        self.sent_at = self.sent_at or time.monotonic()

    def on_head(self, status: int) -> None:
        """The answer begins."""
        self.status = status
        if status != 200 or self._events is None:
            self._format = None
            if self._kept is None:
                self._kept = bytearray()

    def on_body(self, start: int, end: int) -> None:
        """A piece of the answer stands in ``BUFFER``."""
        if self._kept is not None:
            self._kept += BUFFER[start:end]
        if (form := self._format) is None:
            return
        if not self.tokens:
            sample = self._rest + bytes(BUFFER[start:end])
            form = self._format = variant_of(form, sample)
        if self._rest or not BUFFER.endswith(form.separator, start, end):
            self._on_broken(BUFFER[start:end], form)
            return
        events = BUFFER.count(form.separator, start, end)
        tokens = BUFFER.count(form.token, start, end) - BUFFER.count(form.no_text, start, end)
        if events != tokens:
            self._look(bytes(BUFFER[start:end]), form)
        if tokens:
            self._on_tokens(tokens)
        if self._on_age is not None:
            self._read_stamps(start, end)

    def on_end(self, error: str | None = None) -> None:
        """Nothing more comes. ``error``: why, where that is no good end."""
        self.ended_at = time.monotonic()
        if error is not None:
            self.error = self.error or error
        elif self.status != 200:
            self.error = f"HTTP {self.status}"
        elif self._format is not None:
            if not self._is_done and self.error is None:
                self.error = "the answer ended early"
        elif self._events is None:
            self.first_at = self.last_at = self.ended_at
            self._on_first(self.ended_at - self.intended_at)
            self.tokens = usage_tokens(bytes(self._kept or b""))
        self._on_end(self)

    def _on_broken(self, piece: bytearray, form: AnswerFormat) -> None:
        """Take what does not end with an event's end, or continues one that was broken off."""
        data = self._rest + bytes(piece)
        whole = data.rfind(form.separator) + len(form.separator)
        if whole < len(form.separator):
            self._rest = data
            return
        self._rest = data[whole:]
        events = data[:whole]
        self._look(events, form)
        tokens = events.count(form.token) - events.count(form.no_text)
        if tokens:
            self._on_tokens(tokens)
        if self._on_age is not None:
            now_ns = time.monotonic_ns()
            for part in events.split(STAMP)[1:]:
                self._on_age((now_ns - int(part[: part.index(b">")])) / 1e9)

    def _look(self, events: bytes, form: AnswerFormat) -> None:
        if form.end in events:
            self._is_done = True
        if form.error in events:
            for event in events.split(form.separator):
                if form.error in event and form.token not in event:
                    self.error = error_kind(event)

    def _on_tokens(self, count: int) -> None:
        now = time.monotonic()
        self.tokens += count
        if self.first_at == 0.0:
            self.first_at = now
            self._on_first(now - self.intended_at)
        else:
            self._on_gap(now - self.last_at, 1)
        self.last_at = now
        if count > 1:  # they came in one piece: no time was between them
            self._on_gap(0.0, count - 1)

    def _read_stamps(self, start: int, end: int) -> None:
        now_ns = time.monotonic_ns()
        at = BUFFER.find(STAMP, start, end)
        while at >= 0:
            close = BUFFER.find(b">", at, at + MAX_STAMP_BYTES)
            digits = BUFFER[at + 2 : close]
            if self._on_age is not None and digits.isdigit():
                self._on_age((now_ns - int(digits)) / 1e9)
            at = BUFFER.find(STAMP, at + 2, end)
