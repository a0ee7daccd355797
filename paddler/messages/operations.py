"""What the management service tells operators beyond the bodies that its clients know."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from paddler.messages.agents import AgentDetails


class AgentReport(Struct, frozen=True, kw_only=True):
    """One agent in ``GET /api/v1/agent_details``. ``details``: null until it has told them."""

    id: str
    name: str | None
    version: str
    address: str
    is_drained: bool
    slots_busy: int
    slots_total: int
    connected_s: float
    last_seen_s: float
    """Seconds since it was heard last."""
    details: AgentDetails | None


class AgentReports(Struct, frozen=True):
    """The body of ``GET /api/v1/agent_details``, with what all of them are to run.

    ``desired_state``: its fingerprint, to be compared with what agents tell of theirs.
    """

    agents: list[AgentReport]
    desired_model: Any
    desired_state: str


class TemplateTrial(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /api/v1/chat_template/render``; without messages, on a sample."""

    template: Annotated[str, Meta(max_length=1024 * 1024)]
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    enable_thinking: bool = True


class TemplateResult(Struct, frozen=True, kw_only=True):
    """Its answer: the prompt, or why there is none and on which line of the template."""

    text: str | None
    error: str | None = None
    line: int | None = None
