"""The running streams of a worker: commands in, frames out, one decoded batch per step.

A stream lives from its :class:`StartStream` to its last frame:

    start ─► preparing ─► (following ─►) prefill ─► decode ─► checking ─► DONE
                 └─────────────┴────────────┴─────────┴──► FAILED

DONE: stopped by itself, at its limit, or cancelled. FAILED: refused, evicted, or an error of
the engine. Preparing (its prompt is rendered) and checking (its tool calls, against their
schemas) are done aside; it has a slot in between. While a prompt that begins alike is being
decoded, a stream *follows* it: what they have in common is decoded once.

Sans-IO: whoever owns the pipe hands commands in, calls :meth:`Streams.step` while
:attr:`Streams.is_running`, and sends what :meth:`Streams.take_frames` gives. Every
stream ends with exactly one final frame, except by :meth:`Streams.reset`.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from paddler.agent.slot_table import SharedSlotTable, SlotRow, SlotState
from paddler.agent.worker.answer import Telling
from paddler.agent.worker.aside import RunAside, run_at_once
from paddler.agent.worker.batch import (
    NO_TOKEN,
    BatchSequence,
    Chunk,
    Phase,
    PrefillPace,
    plan_step,
)
from paddler.agent.worker.engine import (
    DecodeOutcome,
    Engine,
    GrammarRefused,
    ImagesRefused,
    NoToken,
    TokenizedPrompt,
)
from paddler.agent.worker.gathering import to_gather
from paddler.agent.worker.outbox import Outbox
from paddler.agent.worker.prefix_cache import (
    KEPT_TOKENS,
    CopyPrice,
    Held,
    PrefixCache,
    Taken,
)
from paddler.agent.worker.prompts import Prompt, PromptMaker
from paddler.agent.worker.slot_places import MOST_MOVED_TOKENS, best_place
from paddler.agent.worker.stream import Stream, lead_for
from paddler.errors import PaddlerError, RemoteProtocolError
from paddler.messages.inference import GeneratedTokenResult, OversizedImage, TokenUsage
from paddler.messages.link import (
    FRAME_REFUSED,
    EmbeddingJob,
    Finished,
    FrameKind,
    ScoredToken,
    StartStream,
    StopStream,
    TokenScore,
)

T = TypeVar("T")

_log = logging.getLogger(__name__)

EMBEDDINGS_DISABLED: Final = b'"EmbeddingsDisabled"'
EVICTED: Final = "Request evicted due to KV cache pressure"

# One failed batch may be its requests' fault; this many in a row are the engine's.
MAX_FAILED_STEPS: Final = 3

# On a CPU a token of a prompt takes as long as a copy of hundreds of cells, or more (of
# SmolLM2-135M 11 ms, 1,500 cells 8 to 60; of models without grouped queries they are larger).
COPIES_ON_CPU: Final = CopyPrice(least_tokens=16, cells_for_a_token=400)
# A GPU decodes some more tokens with the same ease, and its cells come and go by way of the host.
COPIES_ON_GPU: Final = CopyPrice(least_tokens=64, cells_for_a_token=10)

# A stream that runs alone is not slowed by fewer cells of others than these.
LEAST_SWAPPED: Final = 256

_ROW_STATES: Final = {Phase.PREFILL: SlotState.PREFILL, Phase.DECODE: SlotState.DECODE}


class EngineBroken(PaddlerError):
    """The engine decodes nothing any more; only a new process can help."""

    code = "engine_broken"


class _Waiting(NamedTuple):
    """A stream that waits for work aside. ``cancelled``: its last payload, if it is stopped."""

    cancelled: bytes


class Streams:
    """All streams of one engine.

    ``run_aside`` does what must not hold up decoding. ``clock`` is ``time.monotonic`` but in
    tests.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: PromptMaker,
        table: SharedSlotTable,
        *,
        agent_label: str,
        run_aside: RunAside = run_at_once,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._prompts = prompts
        self._run_aside = run_aside
        self._table = table
        self._agent_label = agent_label
        self._clock = clock
        self._copies = COPIES_ON_CPU if engine.runs_on_cpu else COPIES_ON_GPU
        self._cache = PrefixCache(
            table.slots,
            keeps_parts=engine.keeps_parts,
            copies=None if engine.kv_unified else self._copies,
            most_swapped=engine.context_size,
        )
        self._pace = PrefillPace(
            most_beside_decode=engine.max_prefill_beside_decode, most_alone=engine.n_batch
        )
        self._waiting: dict[int, _Waiting] = {}  # for work aside, by stream
        self._running: dict[int, Stream] = {}  # by slot
        self._outbox = Outbox()
        self._steps = 0
        self._failed_steps = 0
        for slot in range(table.slots):
            self._write_idle(slot)

    @property
    def is_running(self) -> bool:
        """Whether a step has something to decode."""
        return bool(self._running)

    def start(self, command: StartStream) -> None:
        """Prepare the request's prompt and give it a slot, or refuse it with a frame."""
        job = command.job
        if self._find(command.stream_id) is not None or command.stream_id in self._waiting:
            raise RemoteProtocolError(
                f"stream {command.stream_id} was started twice; ids of running streams are taken"
            )
        if isinstance(job, EmbeddingJob):
            self._outbox.finish(command.stream_id, FrameKind.EMBEDDING_END, EMBEDDINGS_DISABLED)
            return
        self._wait_for(
            command.stream_id,
            TokenUsage(),
            lambda: self._prompts.make(job),
            lambda prompt: self._on_prepared(command, prompt),
        )

    def stop(self, command: StopStream) -> None:
        """End a stream as cancelled; unknown ids belong to streams that just ended."""
        stream = self._find(command.stream_id)
        if stream is not None:
            self._finish(stream, "cancelled")
        elif (waiting := self._waiting.pop(command.stream_id, None)) is not None:
            self._outbox.finish(command.stream_id, FrameKind.DONE, waiting.cancelled)

    def reset(self) -> None:
        """Drop all streams and unsent frames without a word; the slots are free again."""
        self._waiting.clear()
        for stream in list(self._running.values()):
            self._leave(stream)
        self._outbox.clear()

    def step(self) -> None:
        """Decode one batch and say what came of it.

        Raises :class:`EngineBroken` when batches keep failing.
        """
        self._steps += 1
        self._end_following()
        if self._is_slowed_by_idle and len(self._running) == 1:
            self._swap_out(least=LEAST_SWAPPED)
        self._gather()
        self._decode_image()
        chunks = self._decode()
        sampling = [self._running[chunk.sequence.slot] for chunk in chunks if chunk.is_last]
        for chunk in chunks:
            chunk.sequence.advance(chunk.tokens, self._steps)
        tokens = self._engine.sample([stream.slot for stream in sampling])
        for stream, token in zip(sampling, tokens, strict=True):
            if isinstance(token, NoToken):
                self._fail(stream, token.reason)
            else:
                self._on_token(stream, token)
        for stream in self._running.values():
            self._write_row(stream)

    def take_frames(self) -> tuple[bytes, tuple[int, ...]] | None:
        """The next packet: frames and the streams they finish; ``None``: nothing."""
        return self._outbox.take()

    @property
    def _is_slowed_by_idle(self) -> bool:
        """Whether a stream that runs alone is slower for the cells of idle slots."""
        return self._engine.runs_on_cpu and self._engine.kv_unified

    @property
    def _room_name(self) -> str:
        """What a stream can have of the engine at most, for people."""
        return "the context" if self._engine.kv_unified else "the context of a slot"

    # --- one stream --------------------------------------------------------------------------

    def _find(self, stream_id: int) -> Stream | None:
        running = self._running.values()
        return next((stream for stream in running if stream.stream_id == stream_id), None)

    def _wait_for(
        self,
        stream_id: int,
        usage: TokenUsage,
        work: Callable[[], T],
        take: Callable[[T], object],
    ) -> None:
        """Have the stream wait for ``work`` done aside; its result is for ``take``.

        A stream that ends meanwhile takes nothing. Its work is not even begun if others
        are served first: whoever starts and stops requests would hold up the rest.
        """
        cancelled = msgspec.json.encode(Finished(usage=usage, reason="cancelled"))
        self._waiting[stream_id] = waiting = _Waiting(cancelled)

        def is_waiting() -> bool:
            return self._waiting.get(stream_id) is waiting

        def work_if_waiting() -> T | None:
            return work() if is_waiting() else None

        def take_if_waiting(result: T | None) -> None:
            if is_waiting():
                assert result is not None  # who waits now has waited all the time
                del self._waiting[stream_id]
                take(result)

        self._run_aside(work_if_waiting, take_if_waiting)

    def _on_prepared(self, command: StartStream, prompt: Prompt | GeneratedTokenResult) -> None:
        if isinstance(prompt, GeneratedTokenResult):
            self._refuse(command.stream_id, prompt, FRAME_REFUSED)
            return
        if not self._cache.has_free_slot:
            self._refuse_sampler(
                command.stream_id,
                f"{self._agent_label}: no available sequence slots, all slots are busy",
            )
            return
        tokenized = self._tokenize(command.stream_id, prompt)
        if tokenized is not None:
            self._admit(command, tokenized, prompt)

    def _tokenize(self, stream_id: int, prompt: Prompt) -> TokenizedPrompt | None:
        """The prompt's tokens, if there are any and they fit; else the stream is refused."""
        room = self._engine.slot_context_size
        try:
            if prompt.images:
                tokenized = self._engine.tokenize_with_images(
                    prompt.text, prompt.images, limit=room
                )
            else:
                tokenized = TokenizedPrompt(self._engine.tokenize(prompt.text, limit=room))
        except ImagesRefused as error:
            text = f"{self._agent_label}: failed to tokenize prompt: {error}"
            self._refuse(stream_id, GeneratedTokenResult(sampler_error=text), FRAME_REFUSED)
            return None
        refusal = self._check(tokenized, room)
        if refusal is None:
            return tokenized
        tokenized.close()
        self._refuse(stream_id, refusal, FRAME_REFUSED)
        return None

    def _check(self, prompt: TokenizedPrompt, room: int) -> GeneratedTokenResult | None:
        """Why a prompt cannot be decoded; ``None``: it can."""
        largest = max((image.cells for image in prompt.images), default=0)
        if largest > self._engine.n_batch:
            oversized = OversizedImage(image_tokens=largest, n_batch=self._engine.n_batch)
            return GeneratedTokenResult(image_exceeds_batch_size=oversized)
        count = len(prompt.tokens)
        if not count:
            text = f"{self._agent_label}: failed to tokenize prompt: it is empty"
        elif count > room:
            text = f"{EVICTED}: the prompt has {count} tokens or more, {self._room_name} {room}"
        elif prompt.tokens[-1] == NO_TOKEN:
            text = f"{self._agent_label}: the prompt ends with an image; some text must follow it"
        else:
            return None
        return GeneratedTokenResult(sampler_error=text)

    def _admit(self, command: StartStream, tokenized: TokenizedPrompt, prompt: Prompt) -> None:
        # Sums over cells that lie in another order, or were decoded in batches of other sizes,
        # differ in their last bits, enough to turn a near tie. Who gives a seed wants the same
        # text again, the first time, too.
        is_seeded = command.sampling.seed is not None
        if is_seeded and self._engine.kv_unified and not self._running:
            self._empty_cache()
        taken = self._cache.take(tokenized.tokens, running=self._held(), afresh=is_seeded)
        if not self._engine.kv_unified:
            taken = self._bring_beside_others(taken)
        slot = taken.slot
        shared = taken.shared if self._hold(taken) else 0
        try:
            self._engine.open(slot, tokenized.text_tokens, command.sampling, prompt.grammar)
        except GrammarRefused as error:
            tokenized.close()
            self._cache.give_back(slot, tokenized.tokens[:shared])
            text = f"{self._agent_label}: failed to initialize grammar sampler: {error}"
            refusal = GeneratedTokenResult(grammar_initialization_failed=text)
            self._refuse(command.stream_id, refusal, FRAME_REFUSED)
            return
        is_scored = command.sampling.top_logprobs is not None
        stream = Stream(
            command.stream_id,
            tokenized,
            BatchSequence(
                slot,
                list(tokenized.tokens),
                cached=shared,
                images=tokenized.images,
                is_repeatable=is_seeded,
            ),
            self._prompts.begin_answer(prompt, delivery=command.delivery, is_scored=is_scored),
            prompt.max_tokens,
            context_is_limit=command.delivery.context_is_limit,
        )
        if self._engine.keeps_parts and not is_seeded:
            stream.lead = lead_for(stream, self._running.values())
        stream.sequence.wait_from(self._steps)
        self._running[slot] = stream
        self._write_row(stream)

    def _held(self) -> dict[int, Held]:
        """What slots in use hold for others."""
        sequences = {slot: stream.sequence for slot, stream in self._running.items()}
        return {slot: Held(one.reusable, one.decoded) for slot, one in sequences.items()}

    def _bring_beside_others(self, taken: Taken) -> Taken:
        """Have a prompt in the slot where it is decoded at once with others, if that is near.

        What that slot held goes to the one that the prompt does not need then; a few tokens that
        the prompt shares with its own slot stay behind. Nothing is lost: where slots hold what
        cannot be moved, only an empty one will do. Of a move that fails, only what was to be
        moved is lost.
        """
        slot, shared, source, _ = taken
        is_own = source == slot
        if is_own and shared and not self._engine.keeps_parts:
            return taken
        taken_along = shared if is_own and shared >= self._copies.least_tokens else 0
        sizes = {place: len(self._cache.held(place)) for place in self._cache.free_slots}
        places = {n: size for n, size in sizes.items() if self._engine.keeps_parts or not size}
        place = best_place(slot, places, self._running)
        if place == slot or taken_along > MOST_MOVED_TOKENS:
            return taken
        if taken_along:
            if not self._engine.keep(slot, taken_along):
                return Taken(slot, 0, slot)
            if not self._engine.swap_out(slot):
                return taken
        is_moved = self._engine.share(place, slot, sizes[place])
        self._cache.trade(slot, place, is_moved=is_moved)
        if taken_along:
            taken_along = taken_along if self._engine.swap_in(slot, place) else 0
            self._engine.drop_swapped(slot)
        return Taken(place, taken_along, place) if is_own else Taken(place, shared, source)

    def _hold(self, taken: Taken) -> bool:
        """Have a slot hold what it can use of another, or of itself."""
        slot, length, source, is_swapped = taken
        if is_swapped:
            is_held = self._swap_in(source, slot) and self._engine.keep(slot, length)
        elif source == slot:
            is_held = self._engine.keep(slot, length)
        else:
            is_held = self._engine.share(source, slot, length)
        self._engine.drop_swapped(slot)  # of what it held before
        if source in self._running:
            self._running[source].sequence.settle(length)
        return is_held

    # --- common beginnings -------------------------------------------------------------------

    def _end_following(self) -> None:
        """Let streams go on whose common beginning is decoded, or will not be."""
        for stream in self._running.values():
            lead = stream.lead
            if lead is None:
                continue
            leader = lead.stream.sequence
            is_running = self._running.get(leader.slot) is lead.stream
            if is_running and leader.decoded < lead.tokens:
                continue
            stream.lead = None
            sequence = stream.sequence
            # Whoever has it by now: the leader may have ended, and another may have its slot.
            source, shared = self._cache.find(
                sequence.shareable, running=self._held(), known=sequence.decoded
            )
            if shared > sequence.decoded:
                is_swapped = self._cache.is_swapped(source)
                taken = Taken(sequence.slot, shared, source, is_swapped)
                sequence.adopt(shared if self._hold(taken) else 0)
                stream.cached_prompt_tokens = sequence.decoded

    def _on_token(self, stream: Stream, token: int) -> None:
        answer = stream.answer
        stream.sequence.append(token)
        is_end = self._engine.is_end(token)
        # The token that ends an answer counts, and says nothing.
        if is_end:
            tellings = answer.feed(b"")
        else:
            tellings = answer.feed(self._engine.piece(token), self._score(stream.slot))
        self._tell(stream, tellings)
        if is_end or answer.has_stopped:
            self._finish(stream, "stop")
        elif answer.limited_tokens >= stream.max_tokens:
            self._finish(stream, "length")
        elif self._is_full(stream.sequence):
            self._evict(stream)

    def _is_full(self, sequence: BatchSequence) -> bool:
        """Whether its slot can hold no more, whatever others leave.

        Positions count, too: a sequence that is remembered by a state fills no cells, and would
        go on for ever.
        """
        return max(sequence.decoded, sequence.position) >= self._engine.slot_context_size

    def _score(self, slot: int) -> TokenScore | None:
        """How likely the token drawn last was, and which others might have been, if asked for."""
        scored = self._engine.logprobs(slot)
        if scored is None:
            return None
        return TokenScore(
            self._scored_token(scored.token, scored.logprob),
            [self._scored_token(token, logprob) for token, logprob in scored.top],
        )

    def _scored_token(self, token: int, logprob: float) -> ScoredToken:
        piece = self._engine.piece(token)
        return ScoredToken(piece.decode("utf-8", "replace"), list(piece), logprob)

    def _tell(self, stream: Stream, tellings: list[Telling]) -> None:
        for kind, payload in tellings:
            self._outbox.add(stream.stream_id, kind, payload)

    def _finish(self, stream: Stream, reason: str) -> None:
        answer = stream.answer
        self._tell(stream, answer.stop() if reason == "cancelled" else answer.finish())
        finished = msgspec.json.encode(Finished(usage=stream.usage(), reason=reason))
        self._leave(stream)
        calls = answer.calls
        if not calls:
            self._outbox.finish(stream.stream_id, FrameKind.DONE, finished)
            return
        self._wait_for(
            stream.stream_id,
            stream.usage(),
            lambda: self._prompts.check_calls(calls, answer.tools),
            lambda wrong: self._on_checked(stream, finished, wrong),
        )

    def _on_checked(self, stream: Stream, finished: bytes, wrong: Sequence[str]) -> None:
        self._tell(stream, [stream.answer.conclude(wrong)])
        self._outbox.finish(stream.stream_id, FrameKind.DONE, finished)

    def _evict(self, stream: Stream) -> None:
        """End a stream for which the context has no room."""
        is_limit = stream.context_is_limit and stream.answer.tokens > 0
        is_by_itself = not self._engine.kv_unified or self._is_full(stream.sequence)
        _log.log(
            logging.INFO if is_limit and is_by_itself else logging.WARNING,
            "stream %d is evicted with %d tokens: %s of %d is full",
            stream.stream_id,
            stream.sequence.decoded,
            self._room_name,
            self._engine.slot_context_size,
        )
        if not is_limit:
            self._fail(stream, EVICTED)
            return
        self._drop_cells(stream)
        self._finish(stream, "length")

    def _fail(self, stream: Stream, text: str) -> None:
        """End a stream with an error; what its cells hold is not relied on any more."""
        self._refuse_sampler(stream.stream_id, text)
        self._drop_cells(stream)
        self._leave(stream)

    def _drop_cells(self, stream: Stream) -> None:
        self._engine.keep(stream.slot, 0)
        stream.sequence.decoded = 0

    def _leave(self, stream: Stream) -> None:
        """Free the slot; its cells stay for a prompt that begins alike."""
        del self._running[stream.slot]
        sequence = stream.sequence
        self._engine.release(sequence.slot)
        stream.prompt.close()
        held = sequence.reusable
        if len(held) < sequence.decoded and not self._engine.keep(sequence.slot, len(held)):
            held = []
        self._cache.give_back(sequence.slot, held)
        self._write_idle(sequence.slot)

    def _refuse_sampler(self, stream_id: int, text: str) -> None:
        self._refuse(stream_id, GeneratedTokenResult(sampler_error=text))

    def _refuse(self, stream_id: int, result: GeneratedTokenResult, flags: int = 0) -> None:
        self._outbox.finish(stream_id, FrameKind.FAILED, msgspec.json.encode(result), flags)

    # --- one batch ---------------------------------------------------------------------------

    def _decode_image(self) -> None:
        """Decode one image, if a prompt waits for one: answers go on between two."""
        waiting = [s for s in self._running.values() if s.sequence.next_image is not None]
        if not waiting:
            return
        stream = min(waiting, key=lambda stream: (stream.sequence.served_step, stream.slot))
        sequence = stream.sequence
        image = sequence.next_image
        assert image is not None
        if not self._engine.encode_image(image):
            self._fail(stream, f"{self._agent_label}: encoding an image failed")
            return
        while self._running.get(stream.slot) is stream:  # It may have to go to make room.
            outcome = self._engine.decode_image(stream.slot, sequence.position, image)
            if outcome is DecodeOutcome.DECODED:
                self._failed_steps = 0
                sequence.advance_image(self._steps)
                return
            if outcome is DecodeOutcome.NO_KV_ROOM:
                self._make_room({stream.slot: image.cells})
            else:
                self._fail_batch([stream], outcome)

    def _decode(self) -> list[Chunk]:
        """Decode the next batch; make room and try again as often as it takes.

        Returns what was decoded: nothing when every stream had to end.
        """
        while chunks := self._plan():
            began_at = self._clock()
            outcome = self._engine.decode(chunks)
            if outcome is DecodeOutcome.DECODED:
                self._failed_steps = 0
                tokens = sum(chunk.tokens for chunk in chunks)
                self._pace.observe(tokens, self._clock() - began_at)
                return chunks
            if outcome is DecodeOutcome.NO_KV_ROOM:
                self._make_room({chunk.sequence.slot: chunk.tokens for chunk in chunks})
                continue
            self._fail_batch([self._running[chunk.sequence.slot] for chunk in chunks], outcome)
            break
        return []

    def _plan(self) -> list[Chunk]:
        return plan_step(
            (stream.sequence for stream in self._running.values() if stream.lead is None),
            n_batch=self._engine.n_batch,
            max_prefill_beside_decode=self._pace.beside_decode,
            max_prefill_alone=self._pace.alone,
        )

    def _gather(self) -> None:
        """Bring the last cells of each answer together, from time to time."""
        sequences = to_gather(stream.sequence for stream in self._running.values())
        if not sequences:
            return
        for slot in self._engine.gather({s.slot: s.settled for s in sequences}):
            self._fail(self._running[slot], f"{self._agent_label}: its KV cells were lost")
        for sequence in sequences:  # also if nothing was done: that is not tried again
            sequence.settle(sequence.position)

    def _forget_oldest(self) -> bool:
        """Drop the cells of the free slot unused for longest; ``False``: none holds any."""
        slot = self._cache.forget_oldest()
        if slot is None:
            return False
        self._engine.keep(slot, 0)
        return True

    def _swap_out(self, *, least: int = KEPT_TOKENS, spare: int | None = None) -> bool:
        """Swap out what a free slot holds; ``False``: none holds so much, or it cannot be.

        What was swapped out of ``spare`` stays.
        """
        slot = self._cache.next_to_swap(least=least)
        if slot is None or (forgotten := self._cache.forget_for(slot, spare=spare)) is None:
            return False
        for old in forgotten:
            self._engine.drop_swapped(old)
        if not self._engine.swap_out(slot):
            return False
        self._cache.set_swapped(slot)
        return True

    def _swap_in(self, source: int, slot: int) -> bool:
        """Have a slot hold all that was swapped out of ``source``; room is made for it."""
        while not self._engine.swap_in(source, slot):
            if not (self._swap_out(spare=source) or self._forget_oldest()):
                return False
        return True

    def _empty_cache(self) -> None:
        while self._swap_out() or self._forget_oldest():
            pass

    def _make_room(self, wanted: Mapping[int, int]) -> None:
        """Swap out what a free slot holds or drop it, else end the longest sequence.

        Where each slot has its own cells, another's are no help: of the batch, which wanted so
        many more cells in each slot, whoever would have most of them finds none.
        """
        sizes = {slot: stream.sequence.decoded for slot, stream in self._running.items()}
        if not self._engine.kv_unified:
            sizes = {slot: sizes[slot] + more for slot, more in wanted.items()}
        elif self._swap_out() or self._forget_oldest():
            return
        self._evict(self._running[max(sizes, key=lambda slot: (sizes[slot], slot))])

    def _fail_batch(self, streams: list[Stream], outcome: DecodeOutcome) -> None:
        self._failed_steps += 1
        _log.error("llama_decode returned %d (%s)", outcome, outcome.name)
        if self._failed_steps >= MAX_FAILED_STEPS:
            raise EngineBroken(
                f"{self._failed_steps} batches in a row failed, the last with {outcome.name}"
            )
        for stream in streams:
            self._fail(
                stream,
                f"{self._agent_label}: decoding failed: {outcome.name} "
                f"(llama_decode returned {outcome.value})",
            )

    # --- slot table --------------------------------------------------------------------------

    def _write_row(self, stream: Stream) -> None:
        state = _ROW_STATES[stream.sequence.phase]
        row = SlotRow(state, stream.stream_id, stream.answer.tokens, self._clock())
        self._table.write(stream.slot, row)

    def _write_idle(self, slot: int) -> None:
        self._table.write(slot, SlotRow(SlotState.IDLE, 0, 0, self._clock()))
