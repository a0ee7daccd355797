"""``POST /v1/embeddings``: the documents are spread over the agents, the vectors come as one."""

import asyncio
import base64
import struct
from typing import Any, Final

import msgspec

from paddler._fastpath import FRAMING_RAW, Sink
from paddler.balancer.desired_state import DesiredStateStore
from paddler.balancer.link import Agent, Concluded, Pool, discard
from paddler.balancer.relay import EMBEDDED, Dispatcher, Outcome
from paddler.balancer.services.embeddings import parts_of, split
from paddler.balancer.services.openai.completions import texts_of
from paddler.balancer.services.openai.errors import (
    ParameterError,
    Problem,
    describe,
    read_result,
)
from paddler.errors import ClientError
from paddler.messages.inference import EmbeddingInput, Failure, GenerateEmbeddingBatch
from paddler.messages.link import EmbeddingJob, FrameKind, decode_embedding_usage
from paddler.messages.openai import embeddings as api
from paddler.net.http import Response, json

NOT_EMBEDDING: Final = (
    "Embeddings are disabled: the cluster generates text. "
    "Set enable_embeddings in the inference parameters to switch"
)

encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(api.EmbeddingsRequest).decode


async def create_embeddings(
    dispatcher: Dispatcher, pool: Pool, state: DesiredStateStore, request: api.EmbeddingsRequest
) -> Response:
    """Serve one request."""
    if request.dimensions is not None:
        raise ParameterError(
            "dimensions",
            "dimensions is not supported: vectors are as long as the model makes them, and a part "
            "of one is no embedding unless the model was trained for it",
        )
    texts = texts_of("input", request.input)
    parameters = state.applicable.inference_parameters
    if not parameters.enable_embeddings:
        raise ClientError(NOT_EMBEDDING, status=501, code="embeddings_disabled")
    batch = GenerateEmbeddingBatch(
        [EmbeddingInput(text, str(index)) for index, text in enumerate(texts)], "L2"
    )
    parts = parts_of(batch, max(1, len(pool.agents)), parameters.embedding_batch_size)
    gathered = Vectors(len(texts))
    problem = await _run_parts(
        dispatcher,
        [
            GenerateEmbeddingBatch(list(documents), "L2")
            for documents in split(batch.input_batch, parts)
        ],
        gathered,
        # The others are held back here: in the buffer a long batch would wait for itself until
        # that is too long. The native service has them wait there, and told one by one.
        asyncio.Semaphore(max(1, len(pool.agents), pool.slots_total)),
    )
    if problem is not None:
        return problem.response()
    usage = api.EmbeddingsUsage(gathered.prompt_tokens, gathered.prompt_tokens)
    is_base64 = request.encoding_format == "base64"
    answer = api.EmbeddingList(
        data=[
            api.Embedding(index=index, embedding=in_base64(vector) if is_base64 else vector)
            for index, vector in enumerate(gathered.by_index)
        ],
        model=request.model,
        usage=usage,
    )
    return json(200, encode(answer))


async def _run_parts(
    dispatcher: Dispatcher,
    parts: list[GenerateEmbeddingBatch],
    gathered: "Vectors",
    places: asyncio.Semaphore,
) -> Problem | None:
    """Serve all parts; the first problem ends the others."""
    problems: list[Problem] = []

    async def run(part: GenerateEmbeddingBatch) -> None:
        async with places:
            outcome = await dispatcher.run(EmbeddingJob(part), gathered, route="embeddings")
        problem = problem_of(outcome) or gathered.problem
        if problem is not None:
            problems.append(problem)
            for task in tasks:
                if task is not asyncio.current_task():
                    task.cancel()

    tasks: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:
        tasks += [group.create_task(run(part)) for part in parts]
    return problems[0] if problems else None


class Vectors:
    """The vectors of all documents, in their order."""

    def __init__(self, documents: int) -> None:
        self.by_index: list[list[float]] = [[] for _ in range(documents)]
        self.prompt_tokens = 0
        self.problem: Problem | None = None

    def open_sink(self, stream_id: int, agent: Agent, now: float) -> Sink:
        """No tokens come."""
        return Sink(stream_id, discard, FRAMING_RAW, (), b"", now, 0)

    def on_result(self, kind: FrameKind, payload: bytes, agent: Agent) -> None:
        """Take a vector, a document that has none, or what it all cost."""
        if kind is FrameKind.EMBEDDING_USAGE:
            self.prompt_tokens += decode_embedding_usage(payload).prompt_tokens
            return
        variant, detail = read_result(payload)
        if variant == "Embedding":
            self.by_index[int(detail["source_document_id"])] = detail["embedding"]
        else:
            self.problem = Problem(400, describe_document(variant, detail), param="input")

    def on_overrun(self) -> None:
        """Cannot be: the sink writes nothing."""


def describe_document(variant: str, detail: Any) -> str:
    """Why a document has no vector."""
    match variant, detail:
        case "DocumentExceedsBatchSize", {
            "document_tokens": tokens,
            "n_batch": n_batch,
            "source_document_id": index,
        }:
            return (
                f"input[{index}] has {tokens} tokens; the model takes at most {n_batch} (n_batch)"
            )
        case _:
            return describe(variant, detail)


def problem_of(outcome: Outcome) -> Problem | None:
    """Why a part was not served."""
    match outcome:
        case Failure(code, description):
            return Problem(code, description)
        case Concluded(payload) if payload not in EMBEDDED:
            decoded = msgspec.json.decode(payload)
            if isinstance(decoded, str):
                return Problem(503, f"the agent cannot make embeddings now: {decoded}")
            return Problem(500, describe(*read_result(payload)))
        case _:
            return None


def in_base64(vector: list[float]) -> str:
    """Little-endian 32-bit floats, as OpenAI's clients ask for by default."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
