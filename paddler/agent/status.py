"""What the agent says of itself: one owner, told to the balancer at every change."""

from collections.abc import Callable
from typing import Any

import msgspec

from paddler.messages.agents import AgentStatus


class StatusBoard:
    """Holds the status. ``watch`` callbacks run at once, so that the link keeps the order."""

    def __init__(self, slots: int) -> None:
        self._status = AgentStatus(desired_slots_total=slots)
        self._watchers: list[Callable[[AgentStatus], None]] = []

    @property
    def status(self) -> AgentStatus:
        """The status as it is now."""
        return self._status

    def change(self, **fields: Any) -> None:
        """Replace some fields of the status; nothing happens if none differs."""
        status = msgspec.structs.replace(self._status, **fields)
        if status == self._status:
            return
        self._status = status
        for callback in self._watchers:
            callback(status)

    def watch(self, callback: Callable[[AgentStatus], None]) -> None:
        """Call ``callback`` with each new status, synchronously."""
        self._watchers.append(callback)
