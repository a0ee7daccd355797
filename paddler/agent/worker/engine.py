"""What the worker needs of an engine, and one without a model for tests."""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

from paddler.agent.worker.batch import NO_TOKEN, BatchSequence, Chunk, PlacedImage
from paddler.agent.worker.grammar import Gbnf
from paddler.agent.worker.images import IMAGE_MARKER, RgbImage
from paddler.agent.worker.logprobs import TokenLogprobs
from paddler.messages.link import Sampling


class DecodeOutcome(IntEnum):
    """What became of a batch. The values are the return codes of ``llama_decode``."""

    DECODED = 0
    NO_KV_ROOM = 1
    """No free cells for the batch; nothing was changed."""
    ABORTED = 2
    """Stopped by a callback; a part of the batch may be in the KV cache."""
    INVALID_BATCH = -1
    """Refused before decoding; nothing was changed."""
    ALLOCATION_FAILED = -2
    """Out of memory, or the KV cache could not be prepared."""
    COMPUTE_FAILED = -3
    """The device failed while computing."""

    @classmethod
    def _missing_(cls, value: object) -> "DecodeOutcome | None":
        # llama.h: everything below -1 is fatal; future codes are treated as the worst known.
        return cls.COMPUTE_FAILED if isinstance(value, int) and value < -1 else None


class GrammarRefused(Exception):
    """The request's grammar does not compile."""


class ImagesRefused(Exception):
    """The images do not go into the prompt; the message says why."""


class TokenizedPrompt:
    """A prompt as tokens, maybe with images. ``close`` frees what they hold, once."""

    __slots__ = ("_free", "images", "tokens")

    def __init__(
        self,
        tokens: list[int],
        images: Sequence[PlacedImage] = (),
        free: Callable[[], None] | None = None,
    ) -> None:
        self.tokens = tokens
        self.images = images
        self._free = free

    @property
    def image_cells(self) -> int:
        """How many of the tokens stand for images."""
        return sum(image.cells for image in self.images)

    @property
    def text_tokens(self) -> list[int]:
        """The tokens without those that stand for images."""
        if not self.images:
            return self.tokens
        return [token for token in self.tokens if token != NO_TOKEN]

    def close(self) -> None:
        """Free the images; they cannot be decoded any more."""
        free, self._free = self._free, None
        if free is not None:
            free()


class NoToken(NamedTuple):
    """Nothing can follow in a slot."""

    reason: str


class Engine(Protocol):
    """A model with ``slots`` independent sequences, decoded in common batches."""

    @property
    def kv_unified(self) -> bool:
        """Whether all slots share all KV cells; else each has an equal part for itself."""
        ...

    @property
    def context_size(self) -> int:
        """KV cells of all slots together."""
        ...

    @property
    def slot_context_size(self) -> int:
        """Most KV cells that one slot can have: all, if they are shared, or its part."""
        ...

    @property
    def n_batch(self) -> int:
        """Most tokens in one batch, at least 2."""
        ...

    @property
    def max_prefill_beside_decode(self) -> int:
        """Most prompt tokens in a batch that running answers wait for, however fast it is."""
        ...

    @property
    def keeps_parts(self) -> bool:
        """Whether :meth:`keep` can drop a part of a slot's cells (recurrent models cannot)."""
        ...

    @property
    def runs_on_cpu(self) -> bool:
        """Whether the processor computes it all: cells of idle slots slow down who runs alone."""
        ...

    def tokenize(self, text: str, *, limit: int) -> list[int]:
        """Tokens of a prompt, special ones recognised, with the model's BOS exactly once.

        Of a text with more than ``limit`` tokens only a part longer than that may come back.
        """
        ...

    def tokenize_with_images(
        self, text: str, images: Sequence[RgbImage], *, limit: int
    ) -> TokenizedPrompt:
        """Like :meth:`tokenize`, each marker replaced by an image; :class:`ImagesRefused`."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; special tokens as their text."""
        ...

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer."""
        ...

    def keep(self, slot: int, length: int) -> bool:
        """Drop a slot's cells but the first ``length``.

        ``False``: the model cannot drop a part (recurrent ones cannot); all cells are gone.
        """
        ...

    def share(self, source: int, slot: int, length: int) -> bool:
        """Let a slot have the first ``length`` cells of another, in place of what it holds.

        ``False``: they cannot be had, and the slot holds nothing. Cells in common count once;
        where each slot has its own, all that the other holds is copied for it.
        """
        ...

    def swap_out(self, slot: int) -> bool:
        """Move a slot's cells out of the KV cache into the memory of the host.

        ``False``: they cannot be moved, and stay where they are.
        """
        ...

    def swap_in(self, source: int, slot: int) -> bool:
        """Have a slot hold, in place of what it holds, all that was swapped out of ``source``.

        That may be the slot itself; the copy stays. ``False``: there is no room for it, and
        the slot holds nothing.
        """
        ...

    def drop_swapped(self, slot: int) -> None:
        """Drop what was swapped out of a slot, if anything was."""
        ...

    def gather(self, starts: Mapping[int, int]) -> list[int]:
        """Move each slot's cells from position ``starts[slot]`` on next to one another.

        No other slot has them. It may do nothing, where it is of no use. Returns the slots that
        lost these cells: normally none.
        """
        ...

    def open(self, slot: int, prompt: list[int], sampling: Sampling, grammar: Gbnf | None) -> None:
        """Prepare sampling for a new request in this slot; :class:`GrammarRefused`."""
        ...

    def release(self, slot: int) -> None:
        """Free what ``open`` made; the cells stay."""
        ...

    def decode(self, chunks: Sequence[Chunk]) -> DecodeOutcome:
        """Decode one batch: the next pending tokens of each chunk's sequence."""
        ...

    def encode_image(self, image: PlacedImage) -> bool:
        """Prepare an image for :meth:`decode_image`, the slow part; ``False``: it failed."""
        ...

    def decode_image(self, slot: int, position: int, image: PlacedImage) -> DecodeOutcome:
        """Decode the image that was encoded last. No token can be sampled after it."""
        ...

    def sample(self, slots: Sequence[int]) -> list[int | NoToken]:
        """The next token of each slot whose last chunk was decoded just now, or why none."""
        ...

    def logprobs(self, slot: int) -> TokenLogprobs | None:
        """Those of the token sampled last, until the next decode; ``None``: not asked for."""
        ...


class ScriptedEngine:
    """Says what it was told to, byte by byte, with the KV accounting of a real engine.

    A token is a byte; ``END`` ends an answer. A prompt without a script is echoed, but for
    its images. An image takes as many cells as it is wide and as many positions as it is
    high; one without pixels cannot be encoded. Whatever it says, it was ``LOGPROB`` sure of.
    """

    END: Final = 256
    LOGPROB: Final = -0.25

    def __init__(
        self,
        *,
        slots: int = 4,
        kv_unified: bool = True,
        context_size: int = 256,
        n_batch: int = 64,
        max_prefill_beside_decode: int = 16,
        answers: dict[str, bytes] | None = None,
        can_keep_part: bool = True,
    ) -> None:
        self.kv_unified = kv_unified
        self.context_size = context_size
        self.slot_context_size = context_size if kv_unified else context_size // slots
        self.n_batch = n_batch
        self.max_prefill_beside_decode = max_prefill_beside_decode
        self.batches: list[list[tuple[int, int]]] = []
        self.open_slots: set[int] = set()
        self.outcomes: list[DecodeOutcome] = []  # what the next batches end with
        self.loses_gathered: list[int] = []  # slots whose cells do not come back
        self.open_prompts = 0  # with images
        self._encoded: RgbImage | None = None
        self._cells: list[list[int]] = [[] for _ in range(slots)]  # their numbers, by slot
        self._swapped: dict[int, int] = {}  # cells in the memory of the host, by slot
        self._made_cells = 0
        self._positions = [0] * slots
        self._answers = {
            prompt.encode(): [*answer, self.END] for prompt, answer in (answers or {}).items()
        }
        self._left: dict[int, list[int]] = {}
        self._top_logprobs: dict[int, int] = {}
        self._drawn: dict[int, int] = {}
        self.keeps_parts = can_keep_part
        self.runs_on_cpu = True

    @property
    def cells(self) -> list[int]:
        """KV cells held by each slot."""
        return [len(cells) for cells in self._cells]

    def tokenize(self, text: str, *, limit: int) -> list[int]:
        """One token per byte."""
        return list(text.encode())

    def tokenize_with_images(
        self, text: str, images: Sequence[RgbImage], *, limit: int
    ) -> TokenizedPrompt:
        """One token per byte, and the images in place of the markers."""
        first, *texts = text.split(IMAGE_MARKER)
        if len(texts) != len(images):
            raise ImagesRefused(f"{len(texts)} markers for {len(images)} images")
        tokens = list(first.encode())
        placed = []
        for image, after in zip(images, texts, strict=True):
            placed.append(PlacedImage(len(tokens), image.width, image.height, image))
            tokens += [NO_TOKEN] * image.width + list(after.encode())
        self.open_prompts += 1
        return TokenizedPrompt(tokens, placed, self._close_prompt)

    def piece(self, token: int) -> bytes:
        """The byte itself."""
        return bytes([token])

    def is_end(self, token: int) -> bool:
        """Whether this is ``END``."""
        return token == self.END

    def keep(self, slot: int, length: int) -> bool:
        """Shorten the count of cells."""
        is_part = 0 < length < len(self._cells[slot])
        kept = 0 if is_part and not self.keeps_parts else length
        del self._cells[slot][kept:]
        self._positions[slot] = min(self._positions[slot], kept)
        return kept == length

    def share(self, source: int, slot: int, length: int) -> bool:
        """Have the same cells in both, or as many."""
        shared = self._cells[source][:length] if self.keeps_parts else []
        self._cells[slot] = shared if self.kv_unified else []
        if not self.kv_unified:
            self._use_cells(slot, len(shared))
        self._positions[slot] = len(shared)
        return len(shared) == length

    def swap_out(self, slot: int) -> bool:
        """Remember how many cells there were."""
        if not self.keeps_parts:
            return False
        self._swapped[slot] = len(self._cells[slot])
        self._cells[slot] = []
        self._positions[slot] = 0
        return True

    def swap_in(self, source: int, slot: int) -> bool:
        """Use as many cells."""
        self.keep(slot, 0)
        cells = self._swapped[source]
        if not self._have_room({slot: cells}):
            return False
        self._use_cells(slot, cells)
        self._positions[slot] = cells
        return True

    def drop_swapped(self, slot: int) -> None:
        """Forget the count."""
        self._swapped.pop(slot, None)

    def gather(self, starts: Mapping[int, int]) -> list[int]:
        """Have the cells in runs, by their numbers."""
        counts = {slot: self._positions[slot] - start for slot, start in starts.items()}
        numbers = sorted(n for slot, count in counts.items() for n in self._cells[slot][-count:])
        for slot, count in counts.items():
            self._cells[slot][-count:] = numbers[:count]
            del numbers[:count]
        lost = [slot for slot in starts if slot in self.loses_gathered]
        for slot in lost:
            self.keep(slot, len(self._cells[slot]) - counts[slot])
        return lost

    def open(self, slot: int, prompt: list[int], sampling: Sampling, grammar: Gbnf | None) -> None:
        """Start the script of this prompt. Only the grammar ``broken`` is refused."""
        if grammar is not None and grammar.text == "broken":
            raise GrammarRefused("broken")
        self.open_slots.add(slot)
        self._left[slot] = list(self._answers.get(bytes(prompt), [*prompt, self.END]))
        if sampling.top_logprobs is not None:
            self._top_logprobs[slot] = sampling.top_logprobs

    def release(self, slot: int) -> None:
        """Forget the script; fine without one."""
        self.open_slots.discard(slot)
        for by_slot in (self._left, self._top_logprobs, self._drawn):
            by_slot.pop(slot, None)

    def decode(self, chunks: Sequence[Chunk]) -> DecodeOutcome:
        """Count cells, as llama.cpp does: all of the batch, or nothing."""
        self.batches.append([(chunk.sequence.slot, chunk.tokens) for chunk in chunks])
        if self.outcomes:
            outcome = self.outcomes.pop(0)
            if outcome is not DecodeOutcome.DECODED:
                return outcome
        wanted = {chunk.sequence.slot: chunk.tokens for chunk in chunks}
        is_too_large = sum(wanted.values()) > self.n_batch
        if is_too_large or not all(self._continues(chunk.sequence) for chunk in chunks):
            return DecodeOutcome.INVALID_BATCH
        if not self._have_room(wanted):
            return DecodeOutcome.NO_KV_ROOM
        for slot, tokens in wanted.items():
            self._use_cells(slot, tokens)
            self._positions[slot] += tokens
        return DecodeOutcome.DECODED

    def encode_image(self, image: PlacedImage) -> bool:
        """Remember the image, unless it has no pixels."""
        self._encoded = image.native
        return bool(image.native.pixels)

    def decode_image(self, slot: int, position: int, image: PlacedImage) -> DecodeOutcome:
        """Count cells and positions, like :meth:`decode`."""
        self.batches.append([(slot, image.cells)])
        if self.outcomes:
            outcome = self.outcomes.pop(0)
            if outcome is not DecodeOutcome.DECODED:
                return outcome
        if image.native is not self._encoded or position != self._positions[slot]:
            return DecodeOutcome.INVALID_BATCH
        if not self._have_room({slot: image.cells}):
            return DecodeOutcome.NO_KV_ROOM
        self._use_cells(slot, image.cells)
        self._positions[slot] += image.positions
        return DecodeOutcome.DECODED

    def sample(self, slots: Sequence[int]) -> list[int | NoToken]:
        """The next bytes of the scripts; at the end of one there is no token."""
        return [self._sample(slot) for slot in slots]

    def logprobs(self, slot: int) -> TokenLogprobs | None:
        """The token drawn, then those after it in the order of their ids, each less likely."""
        top = self._top_logprobs.get(slot)
        if top is None:
            return None
        token = self._drawn[slot]
        likeliest = [((token + more) % 256, self.LOGPROB - 2.0 * more) for more in range(top)]
        return TokenLogprobs(token, self.LOGPROB, [(token, self.LOGPROB), *likeliest[1:]][:top])

    def _sample(self, slot: int) -> int | NoToken:
        if not self._left[slot]:
            return NoToken("script is over")
        self._drawn[slot] = self._left[slot].pop(0)
        return self._drawn[slot]

    def _have_room(self, wanted: Mapping[int, int]) -> bool:
        """Whether each of these slots can have so many more cells."""
        if self.kv_unified:
            used = len(set().union(*self._cells))
            return used + sum(wanted.values()) <= self.context_size
        return all(
            len(self._cells[slot]) + more <= self.slot_context_size for slot, more in wanted.items()
        )

    def _use_cells(self, slot: int, count: int) -> None:
        self._cells[slot] += range(self._made_cells, self._made_cells + count)
        self._made_cells += count

    def _continues(self, sequence: BatchSequence) -> bool:
        slot = sequence.slot
        held = (len(self._cells[slot]), self._positions[slot])
        return (sequence.decoded, sequence.position) == held

    def _close_prompt(self) -> None:
        self.open_prompts -= 1
