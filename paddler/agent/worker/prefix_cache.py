"""What the KV cells of each slot hold, and which of them a prompt can use.

A slot keeps its cells after a request. A prompt that begins with the same tokens (the
next turn of a conversation, a shared system prompt) is decoded from where they differ: in
the slot that holds them, or in another with which that one shares its cells. Where each slot has
cells of its own, all that the one holds is copied for the other instead.

What free slots hold need not be in the KV cache all the time: a stream that runs alone is
faster without it, and it is quicker swapped out to the memory of the host and in again than
computed anew.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

# What a slot holds beyond the shared part is another conversation if it is as long as this,
# and worth an empty slot; a shorter rest is the end of the same one. So many tokens more are
# also worth a copy of what is swapped out.
KEPT_TOKENS: Final = 64

# Of a slot all cells are copied. So many take as long as decoding a token of a prompt, or less.
CELLS_FOR_A_TOKEN: Final = 100

NOTHING: Final[Mapping[int, Sequence[int]]] = {}


class Taken(NamedTuple):
    """A free slot for a prompt, which can use the first ``shared`` cells of ``source``.

    That is the slot itself, or one that may be in use. ``is_swapped``: they are swapped out.
    """

    slot: int
    shared: int
    source: int
    is_swapped: bool = False


class PrefixCache:
    """Tokens held by the free slots; a slot in use is its request's own business."""

    __slots__ = (
        "_free",
        "_keeps_parts",
        "_least_copied",
        "_most_swapped",
        "_shares_cells",
        "_swapped",
    )

    def __init__(
        self,
        slots: int,
        *,
        keeps_parts: bool = True,
        shares_cells: bool = True,
        least_copied: int = KEPT_TOKENS,
        most_swapped: int = 0,
    ) -> None:
        """``keeps_parts``: whether cells can be dropped from a slot's end, and shared.

        Recurrent models cannot: a prompt can use all that a slot holds, or nothing.
        ``shares_cells``: whether it costs nothing that slots have cells in common; else
        ``least_copied`` tokens are worth a copy, if there are not many behind them.
        ``most_swapped``: how many tokens all slots together may have swapped out.
        """
        self._keeps_parts = keeps_parts
        self._shares_cells = shares_cells
        self._least_copied = least_copied
        self._most_swapped = most_swapped
        self._swapped: set[int] = set()
        # Ordered: the slot that has been free longest comes first.
        self._free: dict[int, list[int]] = {slot: [] for slot in range(slots)}

    @property
    def has_free_slot(self) -> bool:
        """Whether :meth:`take` may be called."""
        return bool(self._free)

    def take(
        self,
        prompt: Sequence[int],
        *,
        running: Mapping[int, Sequence[int]] = NOTHING,
        afresh: bool = False,
    ) -> Taken:
        """Take a free slot, there must be one, with the longest common prefix to be had.

        ``running``: what slots in use hold, by slot. The prompt takes over the free slot that
        holds the prefix, unless an empty one lets that keep much more than the prefix. If a
        slot in use has a longer one, any free slot will do: an empty one first, then the one
        unused for longest. What would have to be copied has to be worth it. The last prompt
        token is never shared: it is decoded again, for its logits. ``afresh``: nothing is
        shared, so that what is decoded does not depend on what was before.
        """
        # The first of them: an engine may decode what lies in a row at once.
        spare = min((slot for slot, held in self._free.items() if not held), default=None)
        unused = next(iter(self._free)) if spare is None else spare
        source, shared = (unused, 0) if afresh else self.find(prompt, running=running)
        if source not in self._free:
            kept = self.find(prompt)
            if not self._is_worth_copying(shared - kept[1], running[source]):
                source, shared = kept
        if not shared:
            slot = source = unused
        elif source not in self._free:
            slot = unused
        elif spare is None or len(self._free[source]) - shared < KEPT_TOKENS:
            slot = source
        else:
            slot = spare if self._keeps_parts else source
        if (
            slot != source
            and source in self._free
            and not self._is_worth_copying(shared, self._free[source])
        ):
            source, shared = slot, 0
        is_swapped = shared > 0 and source in self._swapped
        del self._free[slot]
        self._swapped.discard(slot)
        return Taken(slot, shared, source, is_swapped)

    def find(
        self, prompt: Sequence[int], *, running: Mapping[int, Sequence[int]] = NOTHING
    ) -> tuple[int, int]:
        """The slot that holds most of the prompt's beginning, and how many tokens of it.

        Of equals a free one, and of these the one unused for longest. Those in use count
        only if cells can be shared. What is swapped out has to be longer by ``KEPT_TOKENS``.
        """
        lengths = {slot: self._usable(held, prompt) for slot, held in self._free.items()}
        if self._keeps_parts:
            lengths |= {slot: self._usable(held, prompt) for slot, held in running.items()}

        def worth(slot: int) -> int:
            return lengths[slot] - KEPT_TOKENS * (slot in self._swapped)

        slot = max(lengths, key=worth)  # the first of equals
        return slot, lengths[slot]

    def _is_worth_copying(self, gained: int, held: Sequence[int]) -> bool:
        """Whether so many tokens less to decode are worth a copy of what a slot holds."""
        if self._shares_cells:
            return True  # there will be none
        return gained >= max(self._least_copied, len(held) // CELLS_FOR_A_TOKEN)

    def _usable(self, held: Sequence[int], prompt: Sequence[int]) -> int:
        shared = common_prefix(held, prompt, limit=len(prompt) - 1)
        return shared if self._keeps_parts or shared == len(held) else 0

    def give_back(self, slot: int, held: list[int]) -> None:
        """The slot is free again and its cells hold ``held``."""
        self._free[slot] = held

    @property
    def free_slots(self) -> list[int]:
        """The slots that are not in use."""
        return list(self._free)

    def held(self, slot: int) -> list[int]:
        """What a free slot holds."""
        return self._free[slot]

    def trade(self, slot: int, free: int, *, is_moved: bool) -> None:
        """Have ``free`` in use in the place of ``slot``, which holds what that did, if it moved."""
        held = {slot if one == free else one: held for one, held in self._free.items()}
        self._free = held if is_moved else held | {slot: []}

    def forget_oldest(self) -> int | None:
        """Forget the free slot unused for longest; its cells are the caller's to drop.

        ``None``: no free slot has any in the KV cache.
        """
        for slot, held in self._free.items():
            if held and slot not in self._swapped:
                self._free[slot] = []
                return slot
        return None

    def is_swapped(self, slot: int) -> bool:
        """Whether what a free slot holds is swapped out."""
        return slot in self._swapped

    def next_to_swap(self, *, least: int) -> int | None:
        """The free slot that holds most in the KV cache, if that is ``least`` tokens."""
        sizes = {s: len(held) for s, held in self._free.items() if s not in self._swapped}
        slot = max(sizes, key=sizes.__getitem__, default=None)
        return slot if slot is not None and sizes[slot] >= least else None

    def forget_for(self, slot: int, *, spare: int | None = None) -> list[int] | None:
        """Forget what was swapped out of the slots unused for longest, so that this one fits.

        Those slots; their copies are the caller's to drop. ``None``: it fits only without the
        copy of ``spare``, and nothing was forgotten.
        """
        room = self._most_swapped - len(self._free[slot])
        copies = {old: len(held) for old, held in self._free.items() if old in self._swapped}
        total = sum(copies.values())
        forgotten = []
        for old, size in copies.items():
            if total > room and old != spare:
                forgotten.append(old)
                total -= size
        if total > room:
            return None
        for old in forgotten:
            self._swapped.remove(old)
            self._free[old] = []
        return forgotten

    def set_swapped(self, slot: int) -> None:
        """What a free slot holds was swapped out."""
        self._swapped.add(slot)


def common_prefix(left: Sequence[int], right: Sequence[int], *, limit: int) -> int:
    """How many of the first tokens are the same, at most ``limit``."""
    limit = min(limit, len(left), len(right))
    if left[:limit] == right[:limit]:
        return limit
    # Halving compares in C what a loop would in Python; prompts have thousands of tokens.
    same = 0
    while limit - same > 1:
        middle = (same + limit) // 2
        if left[same:middle] == right[same:middle]:
            same = middle
        else:
            limit = middle
    return same
