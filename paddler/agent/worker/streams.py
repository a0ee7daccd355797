"""The running streams of a worker: commands in, frames out, one decoded batch per step.

A stream lives in a slot from its :class:`StartStream` to its last frame:

    start ─► prefill ─► decode ─► DONE (stop · length · cancelled)
      └─────────┴──────────┴────► FAILED (refused · evicted · decode error)

Sans-IO: whoever owns the pipe hands commands in, calls :meth:`Streams.step` while
:attr:`Streams.is_running`, and sends what :meth:`Streams.take_frames` gives. Every
stream ends with exactly one final frame, except by :meth:`Streams.reset`.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec

from paddler.agent.slot_table import SharedSlotTable, SlotRow, SlotState
from paddler.agent.worker.batch import BatchSequence, Chunk, Phase, PrefillPace, plan_step
from paddler.agent.worker.detokenize import Detokenizer
from paddler.agent.worker.engine import DecodeOutcome, Engine, GrammarRefused, NoToken
from paddler.agent.worker.grammar import Gbnf
from paddler.agent.worker.outbox import Outbox
from paddler.agent.worker.prefix_cache import PrefixCache
from paddler.agent.worker.prompts import PromptMaker
from paddler.errors import PaddlerError, RemoteProtocolError
from paddler.messages.inference import GeneratedTokenResult, TokenUsage
from paddler.messages.link import (
    FRAME_REFUSED,
    EmbeddingJob,
    Finished,
    FrameKind,
    StartStream,
    StopStream,
)

_log = logging.getLogger(__name__)

EMBEDDINGS_DISABLED: Final = b'"EmbeddingsDisabled"'
EVICTED: Final = "Request evicted due to KV cache pressure"

# One failed batch may be its requests' fault; this many in a row are the engine's.
MAX_FAILED_STEPS: Final = 3

_ROW_STATES: Final = {Phase.PREFILL: SlotState.PREFILL, Phase.DECODE: SlotState.DECODE}


class EngineBroken(PaddlerError):
    """The engine decodes nothing any more; only a new process can help."""

    code = "engine_broken"


class _Stream:
    """One request in its slot."""

    __slots__ = (
        "cached_prompt_tokens",
        "completion_tokens",
        "max_tokens",
        "prompt_tokens",
        "sequence",
        "stream_id",
        "text",
    )

    def __init__(self, stream_id: int, sequence: BatchSequence, max_tokens: int) -> None:
        self.stream_id = stream_id
        self.sequence = sequence
        self.max_tokens = max_tokens
        self.prompt_tokens = len(sequence.tokens)
        self.cached_prompt_tokens = sequence.decoded
        self.completion_tokens = 0
        self.text = Detokenizer()

    @property
    def slot(self) -> int:
        return self.sequence.slot

    def usage(self) -> TokenUsage:
        return TokenUsage(
            prompt_tokens=self.prompt_tokens,
            cached_prompt_tokens=self.cached_prompt_tokens,
            undeterminable_tokens=self.completion_tokens,
        )


class Streams:
    """All streams of one engine. ``clock`` is ``time.monotonic`` but in tests."""

    def __init__(
        self,
        engine: Engine,
        prompts: PromptMaker,
        table: SharedSlotTable,
        *,
        agent_label: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._prompts = prompts
        self._table = table
        self._agent_label = agent_label
        self._clock = clock
        self._cache = PrefixCache(table.slots)
        self._pace = PrefillPace(
            most_beside_decode=engine.max_prefill_beside_decode, most_alone=engine.n_batch
        )
        self._running: dict[int, _Stream] = {}  # by slot
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
        """Give the request a slot, or refuse it with a frame."""
        if self._find(command.stream_id) is not None:
            raise RemoteProtocolError(
                f"stream {command.stream_id} was started twice; ids of running streams are taken"
            )
        if isinstance(command.job, EmbeddingJob):
            self._outbox.finish(command.stream_id, FrameKind.EMBEDDING_END, EMBEDDINGS_DISABLED)
            return
        prompt = self._prompts.make(command.job)
        if isinstance(prompt, GeneratedTokenResult):
            self._refuse(command.stream_id, prompt, FRAME_REFUSED)
            return
        if not self._cache.has_free_slot:
            self._refuse_sampler(
                command.stream_id,
                f"{self._agent_label}: no available sequence slots, all slots are busy",
            )
            return
        tokens = self._tokenize(command.stream_id, prompt.text)
        if tokens is not None:
            self._admit(command, command.job.request.max_tokens, tokens, prompt.grammar)

    def stop(self, command: StopStream) -> None:
        """End a stream as cancelled; unknown ids belong to streams that just ended."""
        stream = self._find(command.stream_id)
        if stream is not None:
            self._finish(stream, "cancelled")

    def reset(self) -> None:
        """Drop all streams and unsent frames without a word; the slots are free again."""
        for stream in list(self._running.values()):
            self._leave(stream)
        self._outbox.clear()

    def step(self) -> None:
        """Decode one batch and say what came of it.

        Raises :class:`EngineBroken` when batches keep failing.
        """
        self._steps += 1
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

    # --- one stream --------------------------------------------------------------------------

    def _find(self, stream_id: int) -> _Stream | None:
        running = self._running.values()
        return next((stream for stream in running if stream.stream_id == stream_id), None)

    def _tokenize(self, stream_id: int, prompt: str) -> list[int] | None:
        """The prompt's tokens, if there are any and they fit; else the stream is refused."""
        room = self._engine.context_size
        tokens = self._engine.tokenize(prompt, limit=room)
        if not tokens:
            text = f"{self._agent_label}: failed to tokenize prompt: it is empty"
        elif len(tokens) > room:
            text = f"{EVICTED}: the prompt has {len(tokens)} tokens or more, the context {room}"
        else:
            return tokens
        self._refuse(stream_id, GeneratedTokenResult(sampler_error=text), FRAME_REFUSED)
        return None

    def _admit(
        self, command: StartStream, max_tokens: int, prompt: list[int], grammar: Gbnf | None
    ) -> None:
        slot, shared = self._cache.take(prompt)
        if not self._engine.keep(slot, shared):
            shared = 0
        try:
            self._engine.open(slot, prompt, command.sampling, grammar)
        except GrammarRefused as error:
            self._cache.give_back(slot, prompt[:shared])
            text = f"{self._agent_label}: failed to initialize grammar sampler: {error}"
            refusal = GeneratedTokenResult(grammar_initialization_failed=text)
            self._refuse(command.stream_id, refusal, FRAME_REFUSED)
            return
        stream = _Stream(
            command.stream_id,
            BatchSequence(slot, prompt, cached=shared),
            max_tokens,
        )
        self._running[slot] = stream
        self._write_row(stream)

    def _on_token(self, stream: _Stream, token: int) -> None:
        stream.sequence.append(token)
        stream.completion_tokens += 1
        if self._engine.is_end(token):
            self._finish(stream, "stop")
            return
        self._say(stream, stream.text.feed(self._engine.piece(token)))
        if stream.completion_tokens >= stream.max_tokens:
            self._finish(stream, "length")

    def _say(self, stream: _Stream, text: bytes) -> None:
        """Text of an answer. Nothing tells its sections apart yet: all are undeterminable."""
        if text:
            self._outbox.add(stream.stream_id, FrameKind.UNDETERMINABLE, text)

    def _finish(self, stream: _Stream, reason: str) -> None:
        self._say(stream, stream.text.flush())
        finished = Finished(usage=stream.usage(), reason=reason)
        self._outbox.finish(stream.stream_id, FrameKind.DONE, msgspec.json.encode(finished))
        self._leave(stream)

    def _fail(self, stream: _Stream, text: str) -> None:
        """End a stream with an error; what its cells hold is not relied on any more."""
        self._refuse_sampler(stream.stream_id, text)
        self._engine.keep(stream.slot, 0)
        stream.sequence.decoded = 0
        self._leave(stream)

    def _leave(self, stream: _Stream) -> None:
        """Free the slot; its cells stay for a prompt that begins alike."""
        del self._running[stream.slot]
        sequence = stream.sequence
        self._engine.release(sequence.slot)
        self._cache.give_back(sequence.slot, sequence.tokens[: sequence.decoded])
        self._write_idle(sequence.slot)

    def _refuse_sampler(self, stream_id: int, text: str) -> None:
        self._refuse(stream_id, GeneratedTokenResult(sampler_error=text))

    def _refuse(self, stream_id: int, result: GeneratedTokenResult, flags: int = 0) -> None:
        self._outbox.finish(stream_id, FrameKind.FAILED, msgspec.json.encode(result), flags)

    # --- one batch ---------------------------------------------------------------------------

    def _decode(self) -> list[Chunk]:
        """Decode the next batch; make room and try again as often as it takes.

        Returns what was decoded: nothing when every stream had to end.
        """
        while self._running:
            chunks = plan_step(
                (stream.sequence for stream in self._running.values()),
                n_batch=self._engine.n_batch,
                max_prefill_beside_decode=self._pace.beside_decode,
                max_prefill_alone=self._pace.alone,
            )
            began_at = self._clock()
            outcome = self._engine.decode(chunks)
            if outcome is DecodeOutcome.DECODED:
                self._failed_steps = 0
                tokens = sum(chunk.tokens for chunk in chunks)
                self._pace.observe(tokens, self._clock() - began_at)
                return chunks
            if outcome is DecodeOutcome.NO_KV_ROOM:
                self._make_room()
                continue
            self._fail_batch(chunks, outcome)
            break
        return []

    def _make_room(self) -> None:
        """Drop the cells of the slot unused for longest, else end the longest sequence."""
        slot = self._cache.forget_oldest()
        if slot is not None:
            self._engine.keep(slot, 0)
            return
        longest = max(
            self._running.values(),
            key=lambda stream: (stream.sequence.decoded, stream.slot),
        )
        _log.warning(
            "stream %d is evicted: the context of %d tokens is full and its %d are the most",
            longest.stream_id,
            self._engine.context_size,
            longest.sequence.decoded,
        )
        self._fail(longest, EVICTED)

    def _fail_batch(self, chunks: list[Chunk], outcome: DecodeOutcome) -> None:
        self._failed_steps += 1
        _log.error("llama_decode returned %d (%s)", outcome, outcome.name)
        if self._failed_steps >= MAX_FAILED_STEPS:
            raise EngineBroken(
                f"{self._failed_steps} batches in a row failed, the last with {outcome.name}"
            )
        for chunk in chunks:
            self._fail(
                self._running[chunk.sequence.slot],
                f"{self._agent_label}: decoding failed: {outcome.name} "
                f"(llama_decode returned {outcome.value})",
            )

    # --- slot table --------------------------------------------------------------------------

    def _write_row(self, stream: _Stream) -> None:
        state = _ROW_STATES[stream.sequence.phase]
        row = SlotRow(state, stream.stream_id, stream.completion_tokens, self._clock())
        self._table.write(stream.slot, row)

    def _write_idle(self, slot: int) -> None:
        self._table.write(slot, SlotRow(SlotState.IDLE, 0, 0, self._clock()))
