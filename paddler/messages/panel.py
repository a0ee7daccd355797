"""What the balancer tells the web admin panel on its event stream.

Each event has a name and one of these as its data. Those that come at a connect are whole
(``is_whole``): they replace what the page knew. Those that follow hold what is new, only.
"""

from typing import Any

from msgspec import Struct

from paddler.messages.agents import AgentDetails, AgentSnapshot


class Hello(Struct, frozen=True, kw_only=True):
    """``hello``, first at each connect."""

    version: str
    now: float
    """Seconds since 1970, by the balancer's clock: every other time is by it."""
    interval_s: float
    """Between two samples."""
    max_samples: int
    max_events: int


class AgentsChange(Struct, frozen=True, kw_only=True):
    """``agents``: the snapshots that changed, and the ids of agents that are gone."""

    is_whole: bool
    changed: list[AgentSnapshot]
    gone: list[str]


class AgentFacts(Struct, frozen=True, kw_only=True):
    """What is known of an agent beyond its snapshot, as far as it does not change by itself."""

    id: str
    version: str
    address: str
    is_drained: bool
    connected_at: float
    is_silent: bool
    """It was not heard for longer than agents are ever silent: it may be lost."""
    details: AgentDetails | None


class FactsChange(Struct, frozen=True, kw_only=True):
    """``facts``: of the agents where they changed."""

    is_whole: bool
    changed: list[AgentFacts]


class Rates(Struct, frozen=True, kw_only=True):
    """``rates``: tokens per second by agent, over the last sample, where they changed."""

    is_whole: bool
    tokens_per_s: dict[str, float]


class BufferLevel(Struct, frozen=True, kw_only=True):
    """``buffer``: requests that wait for a slot."""

    waiting: int


class Samples(Struct, frozen=True, kw_only=True):
    """``samples`` of the history, oldest first."""

    is_whole: bool
    samples: list[Any]


class Events(Struct, frozen=True, kw_only=True):
    """``events`` of the journal, oldest first."""

    is_whole: bool
    events: list[Any]


class StateSummary(Struct, frozen=True, kw_only=True):
    """``state``: what agents are told to run, without what may be long."""

    fingerprint: str
    model: Any
    multimodal_projection: Any
    enable_embeddings: bool
    uses_chat_template_override: bool
