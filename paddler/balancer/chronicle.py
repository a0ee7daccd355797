"""Writes down what happens to the fleet, as the pool and the desired state show it."""

import asyncio
from collections import Counter, OrderedDict
from typing import Any, Final

import msgspec

from paddler.balancer.journal import EventKind, Journal
from paddler.balancer.link import Agent
from paddler.balancer.records import RequestOutcome, RequestRecord
from paddler.messages.agents import AgentDetails, AgentIssue, AgentStatus, agent_label
from paddler.messages.state import DesiredState

REFUSALS_EVERY_S: Final = 60.0
MAX_REFUSALS: Final = 1000
"""Agents that were not let in are remembered up to this number."""

_REFUSAL_TEXTS: Final = {
    RequestOutcome.LINE_FULL: "found the buffer full",
    RequestOutcome.WAITED_TOO_LONG: "waited too long for a slot",
    RequestOutcome.SHARE_USED: "found its key's share of the buffer used",
}


class Chronicle:
    """Turns changes into events. Told by the pool, the dispatcher and the services."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._refused: Counter[RequestOutcome] = Counter()
        self._details: dict[str, AgentDetails] = {}  # by agent
        self._crowded_hosts: set[str] = set()
        self._refusals: OrderedDict[str, str] = OrderedDict()  # reasons, by agent

    # --- agents --------------------------------------------------------------------------------

    def on_join(self, agent: Agent) -> None:
        """An agent connected."""
        self._add("agent_joined", agent, f"{agent.label} joined", address=agent.address)
        self._on_status(agent, None, agent.status)

    def on_refused(self, agent_id: str, name: str | None, reason: str) -> bool:
        """An agent was not let in; whether that is news, as it tries again and again."""
        if self._refusals.get(agent_id) == reason:
            return False
        self._refusals[agent_id] = reason
        if len(self._refusals) > MAX_REFUSALS:
            self._refusals.popitem(last=False)
        self._journal.add(
            "agent_refused",
            f"{agent_label(name)} was refused: {reason}",
            agent_id=agent_id,
            agent_name=name,
            detail={"reason": reason},
        )
        return True

    def on_leave(self, agent: Agent, reason: str) -> None:
        """An agent's connection ended."""
        if (details := self._details.pop(agent.id, None)) is not None:
            self._look_at_host(details.host)
        self._add("agent_left", agent, f"{agent.label} left: {reason}", reason=reason)

    def on_report(self, agent: Agent, before: AgentStatus) -> None:
        """An agent reported another status."""
        self._on_status(agent, before, agent.status)

    def on_details(self, agent: Agent, before: AgentDetails | None) -> None:
        """An agent told more of itself."""
        restarts = agent.details.worker_restarts if agent.details is not None else 0
        if before is not None and restarts > before.worker_restarts:
            text = f"{agent.label}: the worker died and was started again"
            self._add("worker_restarted", agent, text, restarts=restarts)
        if agent.details is not None:
            known = self._details.get(agent.id)
            self._details[agent.id] = agent.details
            if known is None or _place_of(known) != _place_of(agent.details):
                self._look_at_host(agent.details.host)

    def on_control(self, kind: EventKind, agent: Agent, by: str) -> None:
        """An operator drained, resumed or disconnected an agent."""
        done = kind.removeprefix("agent_")
        self._add(kind, agent, f"{agent.label} was {done} by {by}", by=by)

    # --- state and requests --------------------------------------------------------------------

    def on_state(self, desired: DesiredState, by: str) -> None:
        """An operator put another desired state."""
        model = msgspec.to_builtins(desired.model)
        shown = msgspec.json.encode(model).decode()
        self._journal.add(
            "state_changed", f"{by} asked for the model {shown}", detail={"by": by, "model": model}
        )

    def on_record(self, record: RequestRecord) -> None:
        """A request ended."""
        if record.outcome.is_refusal:
            self._refused[record.outcome] += 1

    def sum_refusals(self) -> None:
        """Write down how many requests were refused since the last time."""
        if not self._refused:
            return
        refused, self._refused = self._refused, Counter()
        count = refused.total()
        why = ", ".join(f"{number} {_REFUSAL_TEXTS[what]}" for what, number in refused.items())
        self._journal.add(
            "requests_refused",
            f"{count} {'request was' if count == 1 else 'requests were'} refused: {why}",
            detail={what.value: number for what, number in refused.items()},
        )

    async def run(self) -> None:
        """Sum refusals every minute, until cancelled."""
        while True:
            await asyncio.sleep(REFUSALS_EVERY_S)
            self.sum_refusals()

    # --- inside --------------------------------------------------------------------------------

    def _look_at_host(self, host: str) -> None:
        """Tell once when the agents of a host compute with more threads than it has cores."""
        neighbours = [one for one in self._details.values() if one.host == host]
        threads = sum(one.threads for one in neighbours)
        cores = len({core for one in neighbours for core in one.cores})
        if len(neighbours) < 2 or threads <= cores:
            self._crowded_hosts.discard(host)
        elif host not in self._crowded_hosts:
            self._crowded_hosts.add(host)
            text = (
                f"{len(neighbours)} agents on host {host} compute with {threads} threads on "
                f"{cores} cores, and slow each other down: give each cores of its own"
            )
            self._journal.add("host_oversubscribed", text, detail={"host": host})

    def _on_status(self, agent: Agent, before: AgentStatus | None, now: AgentStatus) -> None:
        had = before.issues if before is not None else ()
        self._add_issues("issue_raised", agent, [one for one in now.issues if one not in had])
        self._add_issues("issue_cleared", agent, [one for one in had if one not in now.issues])
        model_before = before.model_path if before is not None else None
        if now.model_path != model_before:
            if now.model_path is not None:
                text = f"{agent.label} loaded {now.model_path}"
                self._add("model_loaded", agent, text, model_path=now.model_path)
            else:
                text = f"{agent.label} unloaded {model_before}"
                self._add("model_unloaded", agent, text, model_path=model_before)
        if before is not None and now.state_application_status != before.state_application_status:
            status = now.state_application_status
            self._add("agent_status", agent, f"{agent.label} is {status}", status=status)

    def _add_issues(self, kind: EventKind, agent: Agent, issues: list[AgentIssue]) -> None:
        """An event for each kind of issue: each slot may have one, and there may be hundreds."""
        details = [msgspec.to_builtins(issue) for issue in issues]
        counts = Counter(name for detail in details for name in detail)
        what = "has the issue" if kind == "issue_raised" else "is rid of the issue"
        for name, count in counts.items():
            first = next(detail for detail in details if name in detail)
            times = f", {count} times" if count > 1 else ""
            text = f"{agent.label} {what} {name}{times}"
            self._add(kind, agent, text, issue=first, count=count)

    def _add(self, kind: EventKind, agent: Agent, text: str, **detail: Any) -> None:
        self._journal.add(kind, text, agent_id=agent.id, agent_name=agent.name, detail=detail)


def _place_of(details: AgentDetails) -> tuple[str, int, tuple[int, ...]]:
    """What decides how crowded an agent's host is."""
    return details.host, details.threads, details.cores
