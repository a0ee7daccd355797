"""Embeddings: one batch of documents, split over the agents, their answers in one stream."""

import asyncio
import math
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from paddler._fastpath import FRAMING_RAW, Sink
from paddler.balancer.desired_state import DesiredStateStore
from paddler.balancer.link import Agent, Completed, Concluded, Pool, discard
from paddler.balancer.relay import EMBEDDING_DONE, Dispatcher
from paddler.balancer.services.body import read_json
from paddler.balancer.services.native_encoding import encode, error_message
from paddler.balancer.tenants import Tenants
from paddler.errors import ClientError
from paddler.ids import new_id
from paddler.messages.inference import (
    Failure,
    GenerateEmbeddingBatch,
    ResponseEnvelope,
    ResponseMessage,
    decode_embedding_batch,
)
from paddler.messages.link import EmbeddingJob, FrameKind
from paddler.net.connection import Exchange
from paddler.net.http import Router

T = TypeVar("T")


class EmbeddingService:
    """The embedding route of the inference listener."""

    def __init__(
        self, dispatcher: Dispatcher, pool: Pool, state: DesiredStateStore, tenants: Tenants
    ) -> None:
        self._tenants = tenants
        self._dispatcher = dispatcher
        self._pool = pool
        self._state = state

    def add_routes(self, router: Router) -> None:
        """Register the route."""
        router.add("POST", "/api/v1/generate_embedding_batch", self.generate_embedding_batch)

    async def generate_embedding_batch(self, exchange: Exchange) -> None:
        """``POST /api/v1/generate_embedding_batch``: one line per document, then ``Done``."""
        request = read_json(exchange.request, decode_embedding_batch)
        parameters = self._state.applicable.inference_parameters
        if not parameters.enable_embeddings:
            raise ClientError(
                "Embedding generation is not enabled in the inference parameters",
                status=501,
                code="embeddings_disabled",
            )
        agents = len(self._pool.agents)
        if agents == 0:
            raise ClientError("No agents are currently connected", status=503, code="no_agents")
        parts = parts_of(request, agents, parameters.embedding_batch_size)
        with self._tenants.request(exchange.request.principal):
            exchange.start(200, "application/json", (("cache-control", "no-cache"),))
            async with asyncio.TaskGroup() as tasks:
                for part in split(request.input_batch, parts):
                    part_of = GenerateEmbeddingBatch(list(part), request.normalization_method)
                    tasks.create_task(self._serve_part(exchange, part_of))
        exchange.write(embedding_message(EMBEDDING_DONE, None, new_id()) + b"\n", more=True)
        exchange.finish()

    async def _serve_part(self, exchange: Exchange, part: GenerateEmbeddingBatch) -> None:
        outlet = EmbeddingOutlet(exchange)
        outcome = await self._dispatcher.run(EmbeddingJob(part), outlet, route="embedding_batch")
        match outcome:
            case Failure():
                exchange.write(error_message(outcome, outlet.request_id) + b"\n")
            case Concluded(payload, agent) if payload != EMBEDDING_DONE:
                exchange.write(embedding_message(payload, agent.name, outlet.request_id) + b"\n")
            case Concluded() | Completed():
                pass  # the batch as a whole has one end


class EmbeddingOutlet:
    """One part's answer as lines; each part has an id of its own."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.request_id = new_id()

    def open_sink(self, stream_id: int, agent: Agent, now: float) -> Sink:
        """No tokens come."""
        return Sink(stream_id, discard, FRAMING_RAW, (), b"", now, 0)

    def on_result(self, kind: FrameKind, payload: bytes, agent: Agent) -> None:
        """Write one line. What it cost is not told here."""
        if kind is FrameKind.EMBEDDING_USAGE:
            return
        self._exchange.write(embedding_message(payload, agent.name, self.request_id) + b"\n")

    def on_overrun(self) -> None:
        """Cannot be: the sink writes nothing."""


def embedding_message(result: bytes, generated_by: str | None, request_id: str) -> bytes:
    """``{"Response": …}`` around an ``EmbeddingResult`` in JSON."""
    envelope = ResponseEnvelope(generated_by, request_id, {"Embedding": msgspec.Raw(result)})
    return encode(ResponseMessage(envelope))


def parts_of(request: GenerateEmbeddingBatch, agents: int, most: int) -> int:
    """How many parts: one for each agent, more if a part would exceed ``most`` documents."""
    documents = len(request.input_batch)
    return min(documents, max(agents, math.ceil(documents / most)))


def split(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """``parts`` runs of neighbours in order, the first ones longer by one where it does not fit."""
    if parts == 0:
        return []
    size, longer = divmod(len(items), parts)
    runs = []
    start = 0
    for index in range(parts):
        end = start + size + (index < longer)
        runs.append(items[start:end])
        start = end
    return runs
