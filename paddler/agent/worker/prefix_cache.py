"""What the KV cells of each slot hold, and which free slot suits a prompt best.

A slot keeps its cells after a request. A prompt that begins with the same tokens (the
next turn of a conversation, a shared system prompt) is decoded from where they differ.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Taken(NamedTuple):
    """A free slot, and how many of its first cells the prompt can use."""

    slot: int
    shared: int


class PrefixCache:
    """Tokens held by the free slots; a slot in use is its request's own business."""

    __slots__ = ("_free", "_keeps_parts")

    def __init__(self, slots: int, *, keeps_parts: bool = True) -> None:
        """``keeps_parts``: whether cells can be dropped from a slot's end.

        Recurrent models cannot: a prompt can use all that a slot holds, or nothing.
        """
        self._keeps_parts = keeps_parts
        # Ordered: the slot that has been free longest comes first.
        self._free: dict[int, list[int]] = {slot: [] for slot in range(slots)}

    @property
    def has_free_slot(self) -> bool:
        """Whether :meth:`take` may be called."""
        return bool(self._free)

    def take(self, prompt: Sequence[int], *, afresh: bool = False) -> Taken:
        """Take the free slot with the longest common prefix; there must be a free one.

        A tie goes to a slot that holds nothing, then to the one unused for longest. The last
        prompt token is never shared: it is decoded again, for its logits. ``afresh``: nothing
        is shared, so that what is decoded does not depend on what was before.
        """
        if afresh:
            slot = next((slot for slot, held in self._free.items() if not held), None)
            slot = next(iter(self._free)) if slot is None else slot
            del self._free[slot]
            return Taken(slot, 0)
        ranked = {slot: (self._usable(held, prompt), not held) for slot, held in self._free.items()}
        slot = max(ranked, key=ranked.__getitem__)  # the first of equals
        del self._free[slot]
        return Taken(slot, ranked[slot][0])

    def _usable(self, held: Sequence[int], prompt: Sequence[int]) -> int:
        shared = common_prefix(held, prompt, limit=len(prompt) - 1)
        return shared if self._keeps_parts or shared == len(held) else 0

    def give_back(self, slot: int, held: list[int]) -> None:
        """The slot is free again and its cells hold ``held``."""
        self._free[slot] = held

    def forget_oldest(self) -> int | None:
        """Forget the free slot unused for longest; its cells are the caller's to drop.

        ``None``: no free slot holds anything.
        """
        for slot, held in self._free.items():
            if held:
                self._free[slot] = []
                return slot
        return None


def common_prefix(left: Sequence[int], right: Sequence[int], *, limit: int) -> int:
    """How many of the first tokens are the same, at most ``limit``."""
    limit = min(limit, len(left), len(right))
    for index in range(limit):
        if left[index] != right[index]:
            return index
    return limit
