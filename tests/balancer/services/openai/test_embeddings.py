"""Embeddings in OpenAI's shape, on a real balancer."""

import asyncio
import base64
import json
import struct
from typing import Any

import pytest

from paddler.messages import link as wire
from paddler.messages.inference import EmbeddingInput
from paddler.messages.link import FRAME_FINAL, EmbeddingJob, FrameKind
from tests.balancer.services.running import Agent, Running, on_balancer
from tests.balancer.services.test_inference import EMBEDDING

PATH = "/v1/embeddings"


async def embed(agent: Agent) -> list[EmbeddingInput]:
    """Answer one request: a document's vector is its length."""
    start = await agent.hear_start()
    assert isinstance(start.job, EmbeddingJob)
    documents = start.job.request.input_batch
    for document in documents:
        embedding = {
            "embedding": [float(len(document.content)), 0.5],
            "normalization_method": "L2",
            "pooling_type": "Last",
            "source_document_id": document.id,
        }
        payload = json.dumps({"Embedding": embedding}).encode()
        agent.say(start.stream_id, FrameKind.EMBEDDING, payload)
    usage = wire.encode(wire.EmbeddingUsage(3 * len(documents)))
    agent.say(start.stream_id, FrameKind.EMBEDDING_USAGE, usage)
    agent.say(start.stream_id, FrameKind.EMBEDDING_END, b'"Done"', FRAME_FINAL)
    return documents


async def joined(running: Running, *ids: str) -> list[Agent]:
    """Agents of a fleet that makes embeddings."""
    await running.put_state(EMBEDDING)
    return [await Agent.join(running, agent_id) for agent_id in ids]


def test_documents_are_spread_and_come_back_in_order() -> None:
    async def test(running: Running) -> None:
        agents = await joined(running, "id-1", "id-2")
        body = {"model": "m", "input": ["a", "bb", "ccc"]}
        asked = asyncio.create_task(running.post(running.openai, PATH, body))
        parts = await asyncio.gather(*map(embed, agents))
        assert sorted(len(part) for part in parts) == [1, 2]
        answer = json.loads((await asked).body)
        assert answer == {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": [index + 1.0, 0.5]}
                for index in range(3)
            ],
            "model": "m",
            "usage": {"prompt_tokens": 9, "total_tokens": 9},
        }

    on_balancer(test)


def test_a_vector_may_come_as_base64() -> None:
    async def test(running: Running) -> None:
        (agent,) = await joined(running, "id-1")
        body = {"model": "m", "input": "abc", "encoding_format": "base64"}
        asked = asyncio.create_task(running.post(running.openai, PATH, body))
        await embed(agent)
        (data,) = json.loads((await asked).body)["data"]
        assert struct.unpack("<2f", base64.b64decode(data["embedding"])) == (3.0, 0.5)

    on_balancer(test)


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"dimensions": 8}, 400, "dimensions is not supported"),
        ({"input": [1, 2]}, 400, "input has token ids"),
        ({"input": []}, 400, "input is an empty list"),
        ({"encoding_format": "hex"}, 400, "encoding_format: Invalid enum value 'hex'"),
    ],
)
def test_what_is_not_served_is_refused_by_name(
    changes: dict[str, Any], status: int, text: str
) -> None:
    async def test(running: Running) -> None:
        await joined(running)
        answer = await running.post(running.openai, PATH, {"model": "m", "input": "a"} | changes)
        assert answer.status == status
        assert text in json.loads(answer.body)["error"]["message"]

    on_balancer(test)


def test_a_fleet_that_makes_text_says_how_to_switch() -> None:
    async def test(running: Running) -> None:
        answer = await running.post(running.openai, PATH, {"model": "m", "input": "a"})
        assert answer.status == 501
        assert "enable_embeddings" in json.loads(answer.body)["error"]["message"]

    on_balancer(test)


def test_a_document_that_is_too_long_is_the_callers_mistake() -> None:
    async def test(running: Running) -> None:
        (agent,) = await joined(running, "id-1")
        body = {"model": "m", "input": ["a", "b"]}
        asked = asyncio.create_task(running.post(running.openai, PATH, body))
        start = await agent.hear_start()
        oversized = {"document_tokens": 9, "n_batch": 8, "source_document_id": "1"}
        payload = json.dumps({"DocumentExceedsBatchSize": oversized}).encode()
        agent.say(start.stream_id, FrameKind.EMBEDDING, payload)
        agent.say(start.stream_id, FrameKind.EMBEDDING_END, b'"NoEmbeddingsProduced"', FRAME_FINAL)
        answer = await asked
        assert answer.status == 400
        error = json.loads(answer.body)["error"]
        assert error["message"] == "input[1] has 9 tokens; the model takes at most 8 (n_batch)"
        assert error["param"] == "input"

    on_balancer(test)


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (b'"EmbeddingRejectedDueToActiveTokenGeneration"', 503),
        (b'{"Error":"agent: broken"}', 500),
    ],
)
def test_a_part_that_fails_fails_the_request(ending: bytes, status: int) -> None:
    async def test(running: Running) -> None:
        (agent,) = await joined(running, "id-1")
        asked = asyncio.create_task(
            running.post(running.openai, PATH, {"model": "m", "input": "a"})
        )
        start = await agent.hear_start()
        agent.say(start.stream_id, FrameKind.EMBEDDING_END, ending, FRAME_FINAL)
        assert (await asked).status == status

    on_balancer(test)
