"""What the agent says of itself: one owner, told to the balancer at every change."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from paddler.messages.agents import AgentIssue, AgentStatus

Stage = Literal["files", "worker"]


class StatusBoard:
    """Holds the status. ``watch`` callbacks run at once, so that the link keeps the order."""

    def __init__(self, slots: int) -> None:
        self._status = AgentStatus(desired_slots_total=slots)
        self._issues: dict[Stage, tuple[AgentIssue, ...]] = {}
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

    def change_issues(self, stage: Stage, issues: tuple[AgentIssue, ...], **fields: Any) -> None:
        """Replace what is wrong with the model's files, or with the worker; beside ``fields``."""
        self._issues[stage] = issues
        every = {issue for issues in self._issues.values() for issue in issues}
        self.change(issues=tuple(sorted(every, key=_place)), **fields)

    def watch(self, callback: Callable[[AgentStatus], None]) -> None:
        """Call ``callback`` with each new status, synchronously."""
        self._watchers.append(callback)


def _place(issue: AgentIssue) -> tuple[int, Any]:
    """Where clients expect an issue: in the order of the variants, then of the payloads."""
    payloads = enumerate(getattr(issue, name) for name in issue.__struct_fields__)
    return next((place, payload) for place, payload in payloads if payload is not msgspec.UNSET)
