"""The agents, their slots and the leases on them. One writer, synchronous, no sockets.

The counts live in ``_fastpath.SlotTable``: one row per agent. An agent that leaves takes
its row along, which voids the leases on it, so nothing has to be given back then.
"""

from typing import Any, Generic, Protocol, TypeVar

from paddler._fastpath import SlotTable
from paddler.balancer.watched import Watched
from paddler.messages.agents import (
    AgentDetails,
    AgentSnapshot,
    AgentsSnapshot,
    AgentStatus,
    agent_label,
)


class Replaceable(Protocol):
    """What the pool asks of an agent's link."""

    def replace(self) -> None:
        """Close: the same agent has dialled again."""


LinkT = TypeVar("LinkT", bound=Replaceable)


class PoolListener(Protocol):
    """Who wants to know what changes about agents, and how."""

    def on_join(self, agent: "Agent[Any]") -> None:
        """An agent connected."""

    def on_leave(self, agent: "Agent[Any]", reason: str) -> None:
        """An agent's connection ended."""

    def on_report(self, agent: "Agent[Any]", before: AgentStatus) -> None:
        """An agent reported another status."""

    def on_details(self, agent: "Agent[Any]", before: AgentDetails | None) -> None:
        """An agent told more of itself."""


class Agent(Generic[LinkT]):
    """One connected agent. Read by anybody, changed by its :class:`Pool` only."""

    __slots__ = ("address", "details", "id", "link", "name", "row", "status", "version")

    def __init__(
        self,
        agent_id: str,
        name: str | None,
        row: int,
        status: AgentStatus,
        link: LinkT,
        *,
        version: str,
        address: str,
    ) -> None:
        self.id = agent_id
        self.name = name
        self.row = row
        self.status = status
        self.link = link
        self.version = version
        self.address = address
        self.details: AgentDetails | None = None

    @property
    def label(self) -> str:
        """How messages for people name this agent."""
        return agent_label(self.name)


class Lease(Generic[LinkT]):
    """One busy slot, given back exactly once however its request ends."""

    __slots__ = ("_lease_id", "_pool", "agent")

    def __init__(self, pool: "Pool[LinkT]", agent: Agent[LinkT], lease_id: int) -> None:
        self._pool = pool
        self._lease_id = lease_id
        self.agent = agent

    def release(self) -> None:
        """Give the slot back; a second call, or one after the agent left, does nothing."""
        self._pool.release(self._lease_id)


class Pool(Watched, Generic[LinkT]):
    """All connected agents; tells of every change of agents or slots.

    ``listener`` is told how agents change. Drained agents get no new requests; that is kept
    by id, so that an agent that dials again stays drained.
    """

    def __init__(
        self, slots: SlotTable | None = None, listener: PoolListener | None = None
    ) -> None:
        super().__init__()
        self._slots = slots if slots is not None else SlotTable()
        self._listener = listener
        self._drained: set[str] = set()
        self._by_id: dict[str, Agent[LinkT]] = {}
        self._by_row: dict[int, Agent[LinkT]] = {}

    # --- agents --------------------------------------------------------------------------------

    def join(
        self,
        agent_id: str,
        name: str | None,
        status: AgentStatus,
        link: LinkT,
        *,
        version: str = "",
        address: str = "",
    ) -> Agent[LinkT]:
        """Take in an agent. One that is still here under this id is replaced: it dialled again."""
        if (older := self._by_id.get(agent_id)) is not None:
            self._forget(older)
            older.link.replace()
        row = self._slots.add(self._limit_of(agent_id, status))
        agent = Agent(agent_id, name, row, status, link, version=version, address=address)
        self._by_id[agent_id] = agent
        self._by_row[agent.row] = agent
        if self._listener is not None:
            self._listener.on_join(agent)
        self._changed()
        return agent

    def leave(self, agent: Agent[LinkT], reason: str = "", *, for_good: bool = False) -> bool:
        """Forget an agent; ``False`` if it had been replaced or forgotten before.

        ``for_good``: it will never come back under this id.
        """
        if self._by_id.get(agent.id) is not agent:
            return False
        self._forget(agent)
        if for_good:
            self._drained.discard(agent.id)
        if self._listener is not None:
            self._listener.on_leave(agent, reason)
        self._changed()
        return True

    def update(self, agent: Agent[LinkT], status: AgentStatus) -> None:
        """Take an agent's report. Slots claimed here are not the agent's to tell."""
        if self._by_id.get(agent.id) is not agent or status == agent.status:
            return
        before, agent.status = agent.status, status
        self._slots.set_limit(agent.row, self._limit_of(agent.id, status))
        if self._listener is not None:
            self._listener.on_report(agent, before)
        self._changed()

    def describe(self, agent: Agent[LinkT], details: AgentDetails) -> None:
        """Take what an agent tells of itself beyond its status. No snapshot shows it."""
        before, agent.details = agent.details, details
        if self._listener is not None:
            self._listener.on_details(agent, before)

    def set_drained(self, agent: Agent[LinkT], is_drained: bool) -> None:
        """Send an agent no more requests, or send it requests again; those that run go on."""
        if is_drained:
            self._drained.add(agent.id)
        else:
            self._drained.discard(agent.id)
        self._slots.set_limit(agent.row, self._limit_of(agent.id, agent.status))
        self._changed()

    def is_drained(self, agent: Agent[LinkT]) -> bool:
        """Whether an operator took this agent out."""
        return agent.id in self._drained

    def find(self, agent_id: str) -> Agent[LinkT] | None:
        """The agent with this id, if it is connected."""
        return self._by_id.get(agent_id)

    def busy(self, agent: Agent[LinkT]) -> int:
        """Claimed slots of one agent."""
        return self._slots.busy(agent.row)

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def agents(self) -> list[Agent[LinkT]]:
        """All agents, by name, then id; unnamed ones last."""
        return sorted(self._by_id.values(), key=lambda a: (a.name is None, a.name or "", a.id))

    # --- slots ---------------------------------------------------------------------------------

    def claim(self, preferred: Agent[LinkT] | None = None) -> Lease[LinkT] | None:
        """A slot on the least busy agent; ``None`` when all are taken. O(agents), compiled.

        Of equally busy ones the ``preferred``, else by turns.
        """
        lease_id = self._slots.claim(-1 if preferred is None else preferred.row)
        if lease_id == 0:
            return None
        lease = Lease(self, self._by_row[self._slots.row_of(lease_id)], lease_id)
        self._changed()
        return lease

    def release(self, lease_id: int) -> None:
        """Give a slot back; for :class:`Lease`."""
        if self._slots.release(lease_id):
            self._changed()

    @property
    def slots_busy(self) -> int:
        """Claimed slots of all agents."""
        return self._slots.busy_total

    @property
    def slots_total(self) -> int:
        """Slots of all agents that are ready to serve."""
        return self._slots.limit_total

    # --- for people ----------------------------------------------------------------------------

    def snapshot(self) -> AgentsSnapshot:
        """What the management service shows."""
        return AgentsSnapshot(tuple(self._show(agent) for agent in self.agents))

    def _show(self, agent: Agent[LinkT]) -> AgentSnapshot:
        status = agent.status
        return AgentSnapshot(
            desired_slots_total=status.desired_slots_total,
            download_current=status.download_current,
            download_filename=status.download_filename,
            download_indeterminate=status.download_indeterminate,
            download_total=status.download_total,
            id=agent.id,
            issues=status.issues,
            model_path=status.model_path,
            name=agent.name,
            slots_processing=self._slots.busy(agent.row),
            slots_total=self._limit_of(agent.id, status),
            state_application_status=status.state_application_status,
            uses_chat_template_override=status.uses_chat_template_override,
        )

    def _forget(self, agent: Agent[LinkT]) -> None:
        del self._by_id[agent.id]
        del self._by_row[agent.row]
        self._slots.remove(agent.row)

    def _limit_of(self, agent_id: str, status: AgentStatus) -> int:
        return 0 if agent_id in self._drained else status.slots_total
