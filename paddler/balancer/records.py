"""What became of one request: made by the dispatcher at its end, read by whoever counts."""

from collections.abc import Callable
from enum import Enum

import msgspec


class RequestOutcome(Enum):
    """How a request ended. The values are labels of metrics."""

    COMPLETED = "completed"
    REJECTED = "rejected"
    """The agent found a mistake of the caller's."""
    FAILED = "failed"
    """The agent could not go on."""
    CANCELLED = "cancelled"
    """The client left or stopped it."""
    LINE_FULL = "line_full"
    WAITED_TOO_LONG = "waited_too_long"
    SHARE_USED = "share_used"
    """Its key had its share of waiting requests."""
    STALLED = "stalled"
    """The agent said nothing for too long."""
    AGENT_LOST = "agent_lost"
    STOPPING = "stopping"
    """The balancer shuts down."""

    @property
    def is_refusal(self) -> bool:
        """Whether the request never got a slot."""
        return self in (
            RequestOutcome.LINE_FULL,
            RequestOutcome.WAITED_TOO_LONG,
            RequestOutcome.SHARE_USED,
        )

    @property
    def is_error(self) -> bool:
        """Whether the fleet, and not the caller, is why there is no whole answer."""
        return self not in (
            RequestOutcome.COMPLETED,
            RequestOutcome.REJECTED,
            RequestOutcome.CANCELLED,
            RequestOutcome.SHARE_USED,
        )


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds; ``None`` where there was none. Tokens are 0 unless it completed."""

    route: str
    outcome: RequestOutcome
    waited_s: float
    """For a slot."""
    first_token_s: float | None
    """From its arrival to the first piece of its answer."""
    token_gap_s: float | None
    """Between two tokens, on average."""
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    failovers: int


RecordListener = Callable[[RequestRecord], object]
