"""What happened to the fleet, newest last: a bounded list that operators read."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from paddler.balancer.watched import Watched

MAX_EVENTS: Final = 1000
MAX_TEXT_CHARACTERS: Final = 1000
"""Of each text in an event: a path or a template may have a megabyte, a journal may not."""

EventKind = Literal[
    "agent_joined",
    "agent_left",
    "agent_refused",
    "agent_status",
    "issue_raised",
    "issue_cleared",
    "model_loaded",
    "model_unloaded",
    "worker_restarted",
    "state_changed",
    "agent_drained",
    "agent_resumed",
    "agent_disconnected",
    "host_oversubscribed",
    "requests_refused",
]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. ``text`` is for people, ``detail`` for programs."""

    id: int
    at: float
    kind: EventKind
    text: str
    agent_id: str | None = None
    agent_name: str | None = None
    detail: dict[str, Any] = msgspec.field(default_factory=dict)


class Journal(Watched):
    """Keeps the last events. Ids go up by one, from the milliseconds of the journal's start.

    So they go up over restarts, too: whoever reads on from an id misses nothing, and is told
    nothing twice, whichever balancer it came from.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._last_id = int(clock() * 1000)

    @property
    def last_id(self) -> int:
        """Of the newest event, or what comes before the first."""
        return self._last_id

    def after(self, event_id: int) -> list[Event]:
        """The events that came after this one, oldest first; 0: all that are kept.

        So does an id from the future: it is of a balancer whose clock was ahead of this one's.
        """
        if event_id > self._last_id:
            event_id = 0
        return [event for event in self._events if event.id > event_id]

    def add(
        self,
        kind: EventKind,
        text: str,
        *,
        agent_id: str | None = None,
        agent_name: str | None = None,
        detail: dict[str, Any] | None = None,
    ) -> Event:
        """Write an event down and tell whoever watches."""
        self._last_id += 1
        event = Event(
            id=self._last_id,
            at=round(self._clock(), 3),
            kind=kind,
            text=clipped(text),
            agent_id=agent_id,
            agent_name=agent_name,
            detail=clipped(detail or {}),
        )
        self._events.append(event)
        self._changed()
        return event


def clipped(value: Any) -> Any:
    """A document whose long texts end with an ellipsis."""
    match value:
        case str() if len(value) > MAX_TEXT_CHARACTERS:
            return value[: MAX_TEXT_CHARACTERS - 1] + "…"
        case dict():
            return {key: clipped(item) for key, item in value.items()}
        case list() | tuple():
            return [clipped(item) for item in value]
        case _:
            return value
