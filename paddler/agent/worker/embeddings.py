"""Embedding requests of a worker: documents in, one embedding of each out.

A request's documents are tokenized when it starts. Then every step decodes one batch: as
many documents of the request whose turn it is as fit in ``n_batch`` tokens and in the
slots. Requests take turns, so that a large one does not hold up a small one.

Documents of one request that are the same are embedded once: the numbers of a document
depend in their last bits on what else is in its batch, and the same text shall give the
same embedding.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from paddler.agent.slot_table import SharedSlotTable, SlotRow, SlotState
from paddler.agent.worker.outbox import Outbox
from paddler.errors import RemoteProtocolError
from paddler.messages.inference import (
    EmbeddingInput,
    GeneratedTokenResult,
    GenerateEmbeddingBatch,
    NormalizationMethod,
    OversizedDocument,
    RmsNormMethod,
)
from paddler.messages.link import (
    EmbeddingJob,
    EmbeddingUsage,
    FrameKind,
    StartStream,
    StopStream,
)
from paddler.messages.state import PoolingType

_log = logging.getLogger(__name__)

Vector = npt.NDArray[np.float32]

DONE: Final = b'"Done"'
NONE_PRODUCED: Final = b'"NoEmbeddingsProduced"'
TEXT_DISABLED: Final = (
    "token generation is disabled because this agent is running in embeddings-only mode"
)

# Documents are too long from ``n_batch`` tokens on; their length is told exactly up to here.
COUNTED_TOKENS: Final = 65_536

encode = msgspec.json.Encoder().encode


class EmbeddingFailed(Exception):
    """The engine could not embed a batch; the message says why."""


class EmbeddingEngine(Protocol):
    """What embedding needs of an engine."""

    @property
    def n_batch(self) -> int:
        """Most tokens in one batch."""
        ...

    @property
    def pooling_type(self) -> PoolingType:
        """How the tokens of a document become one vector."""
        ...

    def tokenize(self, text: str, *, limit: int) -> list[int]:
        """Tokens of a document, with the model's BOS; of a longer one maybe only a part."""
        ...

    def embed(self, documents: Sequence[list[int]]) -> list[Vector]:
        """The vectors of documents that fit in one batch; :class:`EmbeddingFailed`."""
        ...


class Document(NamedTuple):
    """A document as tokens."""

    id: str
    tokens: tuple[int, ...]


class _Request:
    """One request at work: the documents that are left, and the vectors made so far."""

    __slots__ = ("done", "left", "method", "produced", "prompt_tokens", "slot", "stream_id")

    def __init__(
        self, stream_id: int, slot: int, method: NormalizationMethod, documents: list[Document]
    ) -> None:
        self.stream_id = stream_id
        self.slot = slot
        self.method: NormalizationMethod = method
        self.left = deque(documents)
        self.prompt_tokens = sum(len(document.tokens) for document in documents)
        self.done: dict[tuple[int, ...], bytes] = {}
        self.produced = 0


class EmbeddingStreams:
    """All embedding requests of one engine. Sans-IO, like the text streams beside it."""

    def __init__(
        self,
        engine: EmbeddingEngine,
        table: SharedSlotTable,
        *,
        agent_label: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._table = table
        self._agent_label = agent_label
        self._clock = clock
        self._outbox = Outbox()
        self._running: deque[_Request] = deque()
        self._free_slots = set(range(table.slots))
        for slot in range(table.slots):
            self._write_row(slot, SlotState.IDLE, 0, 0)

    @property
    def is_running(self) -> bool:
        """Whether a step has something to do."""
        return bool(self._running)

    def start(self, command: StartStream) -> None:
        """Tokenize the documents, and say at once which of them are too long."""
        if not isinstance(command.job, EmbeddingJob):
            text = f"{self._agent_label}: {TEXT_DISABLED}"
            refusal = GeneratedTokenResult(token_generation_disabled=text)
            self._outbox.finish(command.stream_id, FrameKind.FAILED, encode(refusal))
            return
        if any(request.stream_id == command.stream_id for request in self._running):
            raise RemoteProtocolError(f"stream {command.stream_id} was started twice")
        if not self._free_slots:
            self._fail(command.stream_id, "no available sequence slots, all slots are busy")
            return
        documents = self._tokenize(command.stream_id, command.job.request)
        slot = min(self._free_slots)
        self._free_slots.remove(slot)
        method = command.job.request.normalization_method
        self._running.append(_Request(command.stream_id, slot, method, documents))
        self._write_row(slot, SlotState.PREFILL, command.stream_id, 0)

    def stop(self, command: StopStream) -> None:
        """End a request; unknown ids belong to requests that just ended."""
        for request in self._running:
            if request.stream_id == command.stream_id:
                self._finish(request, DONE)
                return

    def reset(self) -> None:
        """Drop all requests and unsent frames without a word."""
        for request in list(self._running):
            self._leave(request)
        self._outbox.clear()

    def step(self) -> None:
        """Embed one batch of the request whose turn it is."""
        request = self._running[0]
        self._running.rotate(-1)
        batch = take_batch(
            request.left, request.done, n_batch=self._engine.n_batch, slots=self._table.slots
        )
        try:
            new = [list(tokens) for tokens in dict.fromkeys(d.tokens for d in batch)]
            new = [tokens for tokens in new if tuple(tokens) not in request.done]
            vectors = self._engine.embed(new) if new else []
            for tokens, vector in zip(new, vectors, strict=True):
                request.done[tuple(tokens)] = print_vector(normalize(vector, request.method))
        except EmbeddingFailed as error:
            _log.error("stream %d: %s", request.stream_id, error)
            self._fail(request.stream_id, str(error))
            self._leave(request)
            return
        for document in batch:
            self._say(request, document)
        self._write_row(request.slot, SlotState.DECODE, request.stream_id, request.produced)
        if not request.left:
            self._finish(request, DONE if request.produced else NONE_PRODUCED)

    def take_frames(self) -> tuple[bytes, tuple[int, ...]] | None:
        """The next packet: frames and the streams they finish; ``None``: nothing."""
        return self._outbox.take()

    def _tokenize(self, stream_id: int, request: GenerateEmbeddingBatch) -> list[Document]:
        fitting = []
        for document in request.input_batch:
            tokens = self._engine.tokenize(document.content, limit=COUNTED_TOKENS)
            if len(tokens) > self._engine.n_batch:
                self._say_oversized(stream_id, document, len(tokens))
            else:
                fitting.append(Document(document.id, tuple(tokens)))
        return fitting

    def _say_oversized(self, stream_id: int, document: EmbeddingInput, tokens: int) -> None:
        oversized = OversizedDocument(tokens, self._engine.n_batch, document.id)
        payload = encode({"DocumentExceedsBatchSize": oversized})
        self._outbox.add(stream_id, FrameKind.EMBEDDING, payload)

    def _say(self, request: _Request, document: Document) -> None:
        payload = (
            b'{"Embedding":{"embedding":%b,"normalization_method":%b,"pooling_type":%b,'
            b'"source_document_id":%b}}'
        ) % (
            request.done[document.tokens],
            encode(request.method),
            encode(self._engine.pooling_type),
            encode(document.id),
        )
        self._outbox.add(request.stream_id, FrameKind.EMBEDDING, payload)
        request.produced += 1

    def _fail(self, stream_id: int, reason: str) -> None:
        payload = encode({"Error": f"{self._agent_label}: {reason}"})
        self._outbox.finish(stream_id, FrameKind.EMBEDDING_END, payload)

    def _finish(self, request: _Request, payload: bytes) -> None:
        usage = encode(EmbeddingUsage(request.prompt_tokens))
        self._outbox.add(request.stream_id, FrameKind.EMBEDDING_USAGE, usage)
        self._outbox.finish(request.stream_id, FrameKind.EMBEDDING_END, payload)
        self._leave(request)

    def _leave(self, request: _Request) -> None:
        self._running.remove(request)
        self._free_slots.add(request.slot)
        self._write_row(request.slot, SlotState.IDLE, 0, 0)

    def _write_row(self, slot: int, state: SlotState, stream_id: int, tokens: int) -> None:
        self._table.write(slot, SlotRow(state, stream_id, tokens, self._clock()))


def take_batch(
    left: deque[Document], done: dict[tuple[int, ...], bytes], *, n_batch: int, slots: int
) -> list[Document]:
    """The next documents, in order, that fit in one batch; those embedded already cost nothing.

    Every document fits by itself. Shape of a batch: at most ``n_batch`` tokens and ``slots``
    different documents.
    """
    batch: list[Document] = []
    new: set[tuple[int, ...]] = set()
    tokens = 0
    while left:
        document = left[0]
        if document.tokens not in done and document.tokens not in new:
            if new and (tokens + len(document.tokens) > n_batch or len(new) == slots):
                break
            new.add(document.tokens)
            tokens += len(document.tokens)
        batch.append(left.popleft())
    return batch


def normalize(vector: Vector, method: NormalizationMethod) -> Vector:
    """``vector`` scaled as asked, in 32-bit floats; a zero vector stays zero."""
    if method == "None":
        return vector
    if isinstance(method, RmsNormMethod):
        mean_square = np.mean(vector * vector, dtype=np.float32)
        scale = np.sqrt(mean_square + np.float32(method.rms_norm.epsilon))
    else:
        scale = np.sqrt(np.sum(vector * vector, dtype=np.float32))
    return vector if scale == 0 else (vector / scale).astype(np.float32)


def print_vector(vector: Vector) -> bytes:
    """A JSON array of the shortest decimals that are these 32-bit floats."""
    if not np.isfinite(vector).all():
        raise EmbeddingFailed("the model made an embedding that is not a number")
    return b"[" + ",".join(vector.astype(np.str_).tolist()).encode() + b"]"
