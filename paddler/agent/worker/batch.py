"""Continuous batching without llama.cpp: which request decodes how many tokens next.

A sequence is in one of two phases. ``PREFILL``: part of its prompt is not decoded yet.
``DECODE``: all is decoded but the token sampled last. Every step decodes one batch:

1. one token of each sequence in ``DECODE``, so that a running answer keeps its pace;
2. then chunks of the prompts. Those nearest to their end come first, since prompts that all
   advance alike all begin to be answered last; but each has its share of a part that is kept
   for all, so that none starves.

Answers that run wait for the prompts of a batch, which are few therefore. The more prompts
wait for each of them, the more the batch holds: more people wait for it than because of it,
and in a larger batch a token costs less. For the same reason it holds at least a tile of rows
where a prompt is long: most of a tile would take longer than all of it. Each row of a tile is
compared to the cells of all in it; so a batch of a tile or more, beside answers or not, is
filled by one prompt after the other: in one of ``FAIR_PART`` batches by who waits longest, in
the others by who is nearest to the end. Where the batch is too small for all, who was served
longest ago goes first.

A repeatable prompt that runs alone is cut where it was cut the last time, however
fast the machine was meanwhile: with a cache of floats, flash attention on a CPU sums 64 rows
or more in another order than fewer, which is enough to turn a near tie between two tokens.
"""

import sys
from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple

# A pause in a running answer that a reader hardly minds.
PREFILL_PAUSE_S: Final = 0.2
# With no answer running, what newcomers and cancellations wait for.
PREFILL_STEP_S: Final = 0.5
# Longer where a batch would hold so few tokens that each of them costs more.
LONG_PREFILL_STEP_S: Final = 2.0
ENOUGH_PREFILL_TOKENS: Final = 256
# Fewer tokens tell nothing of the speed of a prompt, and gain little in one batch.
MIN_PREFILL_TOKENS: Final = 16
# Before anything was measured.
FIRST_PREFILL_TOKENS: Final = 64
# The part of the prompts' place in a batch, or of the batches, 1 / this, that all share alike.
FAIR_PART: Final = 4
# Rows of a batch from which on ggml's flash attention works in tiles of as many (GGML_FA_TILE_Q).
TILE_TOKENS: Final = 64
# A row by itself is compared to the cells before it one by one, and in a tile with others: from
# so many cells on that matters (SmolLM2-135M on two slow cores, 16, 63 and 64 rows: behind 256
# cells 150, 588 and 479 ms, behind 1,500 cells 351, 1,376 and 728 ms).
TILES_FROM_CELLS: Final = 256


class Phase(Enum):
    """What a sequence needs from the next steps."""

    PREFILL = "prefill"
    DECODE = "decode"


# Stands for each cell of an image among the tokens of a prompt.
NO_TOKEN: Final = -1


class PlacedImage(NamedTuple):
    """An image, or a tile of one, in a prompt.

    It takes ``cells`` of the KV cache in the place of the tokens from ``start`` on, and
    ``positions`` of the sequence: fewer, where the model counts along two axes.
    """

    start: int
    cells: int
    positions: int
    native: Any = None
    """What the engine made of it."""


class BatchSequence:
    """One running request. The first ``decoded`` of its ``tokens`` are in the KV cache.

    ``tokens`` is the prompt, then what was sampled. ``position`` is that of the first
    token that is not decoded. ``phase`` changes once, when the last prompt token is decoded.
    Cells before position ``settled`` are not moved; see ``gathering``. In step ``served_step``
    any of it was decoded last, in ``turn_step`` a tile or more: the rest of another's batch is
    no turn.
    """

    __slots__ = (
        "_first_image",
        "_images",
        "decoded",
        "is_repeatable",
        "phase",
        "position",
        "served_step",
        "settled",
        "slot",
        "tokens",
        "turn_step",
    )

    def __init__(
        self,
        slot: int,
        prompt: list[int],
        *,
        cached: int = 0,
        images: Sequence[PlacedImage] = (),
        is_repeatable: bool = False,
    ) -> None:
        """``images`` are in order, and the ``cached`` tokens end before the first.

        ``is_repeatable``: the same prompt shall be decoded in the same way each time.
        """
        self.slot = slot
        self.is_repeatable = is_repeatable
        self.tokens = prompt
        self.decoded = cached
        self.position = cached
        self.phase = Phase.PREFILL
        self.settled = 0
        self.wait_from(0)
        self._images = deque(images)
        self._first_image = images[0].start if images else sys.maxsize

    def wait_from(self, step: int) -> None:
        """It has waited since step number ``step``, and not before."""
        self.served_step = self.turn_step = step

    @property
    def pending(self) -> int:
        """Tokens that are not decoded yet, cells of images included."""
        return len(self.tokens) - self.decoded

    @property
    def ready(self) -> int:
        """Pending tokens that a batch may hold: those before the next image."""
        return self._images[0].start - self.decoded if self._images else self.pending

    @property
    def reusable(self) -> list[int]:
        """The first tokens that are decoded, up to an image: another may look the same here."""
        end = min(self.decoded, self._first_image)
        return self.tokens[:end]

    @property
    def next_image(self) -> PlacedImage | None:
        """The image that has to be decoded before any other token."""
        return self._images[0] if self._images and self.ready == 0 else None

    @property
    def shareable(self) -> list[int]:
        """The first tokens that are decoded or will be, up to an image."""
        return self.tokens[: self._first_image]

    @property
    def loose(self) -> int:
        """Cells of the answer that may lie scattered among others'; see ``gathering``."""
        # Of a repeatable sequence, sums shall not depend on who ran beside it.
        is_movable = self.phase is Phase.DECODE and not self.is_repeatable
        return self.position - self.settled if is_movable else 0

    def settle(self, position: int) -> None:
        """Cells before ``position`` stay where they are: they lie well, or are others', too."""
        self.settled = max(self.settled, position)

    def adopt(self, count: int) -> None:
        """The first ``count`` tokens are decoded: their cells are another sequence's, too."""
        self.decoded = self.position = count

    def append(self, token: int) -> None:
        """Add a sampled token; it is decoded in the next step."""
        self.tokens.append(token)

    def advance(self, count: int, step: int) -> None:
        """The next ``count`` tokens were decoded in step number ``step``."""
        self.decoded += count
        self.position += count
        self.served_step = step
        if count >= TILE_TOKENS:
            self.turn_step = step
        if self.pending == 0 and self.phase is Phase.PREFILL:
            self.phase = Phase.DECODE
            self.settle(self.position)

    def advance_image(self, step: int) -> None:
        """The next image was decoded in step number ``step``. Text follows it."""
        image = self._images.popleft()
        self.decoded += image.cells
        self.position += image.positions
        self.wait_from(step)


class Chunk(NamedTuple):
    """The next ``tokens`` ready tokens of a sequence, for one batch."""

    sequence: BatchSequence
    tokens: int

    @property
    def is_last(self) -> bool:
        """Whether nothing is pending after it: its last token's logits give the next token."""
        return self.tokens == self.sequence.pending


class PrefillPace:
    """How many prompt tokens a batch may hold, so that nobody waits for it for long.

    ``beside_decode``: while answers run; as many as the engine decodes in
    ``PREFILL_PAUSE_S``, by its last large batch. ``alone``: while none does; as many as in
    ``PREFILL_STEP_S``, or on a slow machine up to ``ENOUGH_PREFILL_TOKENS``, as far as
    ``LONG_PREFILL_STEP_S`` allow: in small batches each token costs up to twice as much (1,400
    tokens of SmolLM2-135M on two slow cores: 26 s in batches of 32, 20 s of 64, 14 s of 256,
    12 s of 512).
    """

    __slots__ = ("_most_alone", "_most_beside", "alone", "beside_decode")

    def __init__(self, *, most_beside_decode: int, most_alone: int) -> None:
        self._most_beside = most_beside_decode
        self._most_alone = most_alone
        self.beside_decode = min(most_beside_decode, FIRST_PREFILL_TOKENS)
        self.alone = min(most_alone, FIRST_PREFILL_TOKENS)

    def observe(self, tokens: int, took_s: float) -> None:
        """A batch of so many tokens took so long."""
        if tokens >= MIN_PREFILL_TOKENS and took_s > 0.0:
            per_s = tokens / took_s
            self.beside_decode = self._in_time(per_s * PREFILL_PAUSE_S, self._most_beside)
            enough = min(ENOUGH_PREFILL_TOKENS, per_s * LONG_PREFILL_STEP_S)
            self.alone = self._in_time(max(per_s * PREFILL_STEP_S, enough), self._most_alone)

    def _in_time(self, tokens: float, most: int) -> int:
        return min(max(int(tokens), MIN_PREFILL_TOKENS), most)


def plan_step(
    sequences: Iterable[BatchSequence],
    *,
    n_batch: int,
    max_prefill_beside_decode: int,
    max_prefill_alone: int,
) -> list[Chunk]:
    """What the next batch holds: at most ``n_batch`` tokens, decode tokens first.

    Empty if all sequences wait for an image: one is decoded by itself, in no batch of these.

    ``max_prefill_beside_decode``: prompt tokens in a batch that also decodes; every running
    answer waits for them. ``max_prefill_alone``: in one that does not, and the most for prompts
    that outnumber the answers. ``n_batch`` is at least 2, so that a batch full of decode tokens
    still has a place for one prompt token.
    """
    waiting_longest = sorted(sequences, key=lambda sequence: (sequence.served_step, sequence.slot))
    decoding = [sequence for sequence in waiting_longest if sequence.phase is Phase.DECODE]
    prefilling = [
        sequence
        for sequence in waiting_longest
        if sequence.phase is Phase.PREFILL and sequence.ready
    ]

    kept_for_prefill = 1 if prefilling else 0
    decoding = decoding[: n_batch - kept_for_prefill]
    budget = min(n_batch - len(decoding), max_prefill_alone)
    in_tiles = budget >= TILE_TOKENS and _fill_a_tile(prefilling)
    if decoding:
        prompts_per_answer = max(1.0, len(prefilling) / len(decoding))
        pause = int(max_prefill_beside_decode * prompts_per_answer)
        budget = min(budget, max(pause, TILE_TOKENS) if in_tiles else pause)

    chunks = [Chunk(sequence, 1) for sequence in decoding]
    prefilling = prefilling[:budget]
    if not decoding and len(prefilling) == 1 and prefilling[0].is_repeatable:
        shares = [repeatable_share(prefilling[0].ready, budget, n_batch=n_batch)]
    elif in_tiles:
        prefilling = in_turn(prefilling)
        shares = shares_in_order([sequence.ready for sequence in prefilling], budget)
    else:
        shares = shares_of([sequence.ready for sequence in prefilling], budget)
    served = zip(prefilling, shares, strict=True)
    return chunks + [Chunk(sequence, share) for sequence, share in served if share]


def _fill_a_tile(prefilling: Iterable[BatchSequence]) -> bool:
    """Whether one of them is long, and together they fill a tile."""
    ready = [(sequence.ready, sequence.decoded >= TILES_FROM_CELLS) for sequence in prefilling]
    return any(is_long for _, is_long in ready) and sum(n for n, _ in ready) >= TILE_TOKENS


def in_turn(prefilling: Sequence[BatchSequence]) -> list[BatchSequence]:
    """Those nearest to their end first, but before them one that has waited for too long.

    All that wait have an equal share of a ``FAIR_PART`` of the batches.
    """
    last = max(sequence.served_step for sequence in prefilling)
    waits_longest = min(prefilling, key=lambda sequence: sequence.turn_step)
    is_overdue = last - waits_longest.turn_step >= FAIR_PART * len(prefilling)
    nearest_first = sorted(prefilling, key=lambda sequence: sequence.ready)
    if is_overdue:
        nearest_first.remove(waits_longest)
        nearest_first.insert(0, waits_longest)
    return nearest_first


def shares_in_order(wants: Iterable[int], budget: int) -> list[int]:
    """Split ``budget``: to the first what it wants, what is left to the next, and so on."""
    shares = []
    for want in wants:
        shares.append(min(want, budget))
        budget -= shares[-1]
    return shares


def repeatable_share(wanted: int, budget: int, *, n_batch: int) -> int:
    """How many of ``wanted`` tokens a batch holds: whole tiles, then what is less than one.

    A slow machine may take up to a tile, beyond its ``budget``.
    """
    tiles = min(wanted, n_batch) // TILE_TOKENS
    if not tiles:
        return min(wanted, budget)
    return min(tiles, max(budget // TILE_TOKENS, 1)) * TILE_TOKENS


def shares_of(wants: Sequence[int], budget: int) -> list[int]:
    """Split ``budget``: a part of it fairly, the rest to who wants least, then to the next.

    ``budget`` is at least ``len(wants)``: everybody gets one.
    """
    shares = fair_shares(wants, max(budget // FAIR_PART, len(wants)))
    left = budget - sum(shares)
    for index in sorted(range(len(wants)), key=wants.__getitem__):
        more = min(wants[index] - shares[index], left)
        shares[index] += more
        left -= more
    return shares


def fair_shares(wants: Sequence[int], budget: int) -> list[int]:
    """Split ``budget`` so that nobody gets less than another who wants more (max-min fair).

    ``budget`` is at least ``len(wants)``: everybody gets one.
    """
    shares = [0] * len(wants)
    smallest_first = sorted(range(len(wants)), key=wants.__getitem__)
    for served, index in enumerate(smallest_first):
        shares[index] = min(wants[index], budget // (len(wants) - served))
        budget -= shares[index]
    return shares
