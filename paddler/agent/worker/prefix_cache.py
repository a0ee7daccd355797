"""What the KV cells of each slot hold, and which of them a prompt can use.

A slot keeps its cells after a request. A prompt that begins with the same tokens (the
next turn of a conversation, a shared system prompt) is decoded from where they differ: in
the slot that holds them, or in another with which that one shares its cells. Where each slot has
cells of its own, all that the one holds is copied for the other instead.

What free slots hold need not be in the KV cache all the time: a stream that runs alone is
faster without it, and it is quicker swapped out to the memory of the host and in again than
computed anew.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

# What a slot holds beyond the shared part is another conversation if it is as long as this,
# and worth an empty slot; a shorter rest is the end of the same one. So many tokens more are
# also worth bringing in what is swapped out.
KEPT_TOKENS: Final = 64


class Held(NamedTuple):
    """What a slot in use can give: its first ``tokens``. A copy of them takes all its ``cells``."""

    tokens: Sequence[int]
    cells: int


class CopyPrice(NamedTuple):
    """Which copies are worth it, of one slot's cells for another.

    Those that save so many tokens of a prompt, or more, and more than one of them for each
    ``cells_for_a_token`` that are copied: all of a slot's are.
    """

    least_tokens: int
    cells_for_a_token: int


NOTHING: Final[Mapping[int, Held]] = {}


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
        "_copies",
        "_free",
        "_keeps_parts",
        "_most_swapped",
        "_swapped",
    )

    def __init__(
        self,
        slots: int,
        *,
        keeps_parts: bool = True,
        copies: CopyPrice | None = None,
        most_swapped: int = 0,
    ) -> None:
        """``keeps_parts``: whether cells can be dropped from a slot's end, and shared.

        Recurrent models cannot: a prompt can use all that a slot holds, or nothing.
        ``copies``: slots cannot have cells in common, only copies of another's; ``None``: they
        can, at no cost. ``most_swapped``: how many tokens all slots together may have swapped
        out.
        """
        self._keeps_parts = keeps_parts
        self._copies = copies
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
        running: Mapping[int, Held] = NOTHING,
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
        spare = min((slot for slot, held in self._free.items() if not held), default=None)
        unused = next(iter(self._free)) if spare is None else spare

        def takes_over(source: int, shared: int) -> bool:
            if (held := self._free.get(source)) is None:
                return False
            is_worth_keeping = self._keeps_parts and len(held) - shared >= KEPT_TOKENS
            return spare is None or not is_worth_keeping

        source, shared = (unused, 0) if afresh else self._best(prompt, running, takes_over)
        if not shared:
            slot = source = unused
        else:
            slot = source if takes_over(source, shared) else unused
        is_swapped = shared > 0 and source in self._swapped
        del self._free[slot]
        self._swapped.discard(slot)
        return Taken(slot, shared, source, is_swapped)

    def find(
        self, prompt: Sequence[int], *, running: Mapping[int, Held], known: int
    ) -> tuple[int, int]:
        """Which slot has most for one in use, and how many tokens of its prompt's beginning.

        That one has ``known`` of them already.
        """
        return self._best(prompt, running, lambda source, shared: False, known=known)

    def _best(
        self,
        prompt: Sequence[int],
        running: Mapping[int, Held],
        takes_over: Callable[[int, int], bool],
        *,
        known: int = 0,
    ) -> tuple[int, int]:
        """The slot that saves a prompt most, and how many tokens of its beginning it has.

        Of equals a free one, and of these the one unused for longest. Those in use count
        only if cells can be shared. What is swapped out has to be longer by ``KEPT_TOKENS``.
        ``takes_over``: whether the prompt is decoded in that slot itself, and copies nothing.
        """
        sources = {slot: Held(held, len(held)) for slot, held in self._free.items()}
        if self._keeps_parts:
            sources |= running

        def worth(source: int) -> tuple[float, int]:
            held = sources[source]
            shared = self._usable(held.tokens, prompt)
            saved: float = shared - KEPT_TOKENS * (source in self._swapped)
            if self._copies is not None and not takes_over(source, shared):
                saved -= held.cells / self._copies.cells_for_a_token
                if saved <= known or shared - known < self._copies.least_tokens:
                    return 0, 0
            return saved, shared

        worths = {source: worth(source) for source in sources}
        best = max(worths, key=lambda source: worths[source][0])  # the first of equals
        return best, worths[best][1]

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
        """``free`` is in use instead of ``slot``.

        That holds what ``free`` held, if it was moved, and has been free as long; else nothing.
        """
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
