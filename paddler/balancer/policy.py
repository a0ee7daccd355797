"""Who waits, who is refused, who gets another try. Pure functions; the owners of state ask them.

Who *serves* is decided where it is fast: ``SlotTable.claim`` picks the agent with the
fewest busy slots among those with a free one, and rotates ties.
"""

from enum import Enum
from typing import Final

MAX_FAILOVERS: Final = 2


class Admission(Enum):
    """What becomes of a request that finds no free slot."""

    WAIT = "wait"
    REFUSE = "refuse"


def admit(*, waiting: int, limit: int) -> Admission:
    """Whether one more request may wait; ``limit`` 0 means that nobody waits."""
    return Admission.WAIT if waiting < limit else Admission.REFUSE


def may_fail_over(*, was_heard: bool, failovers: int) -> bool:
    """Whether a request whose agent was lost may start again on another one.

    Only while its client has seen nothing: a second start would repeat or contradict it.
    """
    return not was_heard and failovers < MAX_FAILOVERS
