"""Embedding batches over real agents in embeddings mode."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import PATIENT, Fleet, raw_prompt, request, wait_until

PATH = "/api/v1/generate_embedding_batch"


@pytest.fixture(scope="module")
def embedding_fleet(
    tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path
) -> Iterator[Fleet]:
    """Two agents of 2 slots in embeddings mode, with a small batch."""
    with Fleet(tmp_path_factory.mktemp("embeddings"), *PATIENT) as fleet:
        fleet.start_agent("a", 2)
        fleet.start_agent("b", 2)
        fleet.put_model(
            smollm2_path, enable_embeddings=True, n_batch=64, context_size=512, pooling_type="Mean"
        )
        fleet.wait_slots(4)
        yield fleet
        wait_until(lambda: (fleet.slots_busy(), fleet.buffered()) == (0, 0), "all is idle")


def documents(count: int) -> list[dict[str, str]]:
    return [{"content": f"This is document {n}.", "id": str(n)} for n in range(count)]


def embed(fleet: Fleet, batch: list[dict[str, str]], method: Any = "None") -> list[dict[str, Any]]:
    body = json.dumps({"input_batch": batch, "normalization_method": method}).encode()
    status, answer = request(fleet.inference, "POST", PATH, body)
    assert status == 200, answer
    return [json.loads(line) for line in answer.splitlines()]


def results(messages: list[dict[str, Any]]) -> list[Any]:
    return [message["Response"]["response"]["Embedding"] for message in messages]


def vectors(messages: list[dict[str, Any]]) -> dict[str, list[float]]:
    return {
        result["Embedding"]["source_document_id"]: result["Embedding"]["embedding"]
        for result in results(messages)
        if isinstance(result, dict) and "Embedding" in result
    }


def test_a_batch_reaches_all_agents_and_every_document_comes_once(embedding_fleet: Fleet) -> None:
    messages = embed(embedding_fleet, documents(12))
    ids = Counter(
        result["Embedding"]["source_document_id"]
        for result in results(messages)
        if "Embedding" in result
    )
    assert ids == {str(n): 1 for n in range(12)}
    producers = {message["Response"]["generated_by"] for message in messages[:-1]}
    assert producers == {"a", "b"}
    assert messages[-1]["Response"]["generated_by"] is None
    assert messages[-1]["Response"]["response"] == {"Embedding": "Done"}
    assert len({message["Response"]["request_id"] for message in messages}) == 3
    assert {len(vector) for vector in vectors(messages).values()} == {576}


def test_a_result_says_how_it_was_made(embedding_fleet: Fleet) -> None:
    method = {"RmsNorm": {"epsilon": 0.001}}
    result = results(embed(embedding_fleet, documents(1), method))[0]["Embedding"]
    assert list(result) == [
        "embedding",
        "normalization_method",
        "pooling_type",
        "source_document_id",
    ]
    assert (result["normalization_method"], result["pooling_type"]) == (method, "Mean")


def test_normalizations_act(embedding_fleet: Fleet) -> None:
    raw = vectors(embed(embedding_fleet, documents(1)))["0"]
    l2 = vectors(embed(embedding_fleet, documents(1), "L2"))["0"]
    rms = vectors(embed(embedding_fleet, documents(1), {"RmsNorm": {"epsilon": 0.0}}))["0"]
    assert math.hypot(*l2) == pytest.approx(1.0, abs=1e-5)
    assert math.hypot(*rms) == pytest.approx(math.sqrt(576), rel=1e-5)
    scale = math.hypot(*raw)
    assert [x / scale for x in raw] == pytest.approx(l2, abs=1e-5)


def test_the_same_document_has_the_same_embedding_bit_by_bit(embedding_fleet: Fleet) -> None:
    batch = [{"content": "The same.", "id": str(n)} for n in range(6)]
    batch += [{"content": "Another one, longer than that.", "id": "other"}]
    by_agent: dict[str, set[tuple[float, ...]]] = {}
    for message in embed(embedding_fleet, batch)[:-1]:
        result = message["Response"]["response"]["Embedding"]["Embedding"]
        if result["source_document_id"] != "other":
            key = message["Response"]["generated_by"]
            by_agent.setdefault(key, set()).add(tuple(result["embedding"]))
    assert [len(found) for found in by_agent.values()] == [1, 1]


def test_a_document_that_is_too_long_is_told_and_the_others_are_embedded(
    embedding_fleet: Fleet,
) -> None:
    batch = [{"content": "word " * 100, "id": "huge"}, {"content": "small", "id": "small"}]
    messages = embed(embedding_fleet, batch)
    (oversized,) = [r for r in results(messages) if "DocumentExceedsBatchSize" in r]
    detail = oversized["DocumentExceedsBatchSize"]
    assert (detail["source_document_id"], detail["n_batch"]) == ("huge", 64)
    assert detail["document_tokens"] > 64
    assert list(vectors(messages)) == ["small"]


def test_only_documents_that_are_too_long_produce_nothing(embedding_fleet: Fleet) -> None:
    batch = [{"content": "word " * 100, "id": str(n)} for n in range(2)]
    found = results(embed(embedding_fleet, batch))
    assert found.count("NoEmbeddingsProduced") == 2  # one for each part
    assert found[-1] == "Done"


def test_an_empty_batch_is_done(embedding_fleet: Fleet) -> None:
    (message,) = embed(embedding_fleet, [])
    assert message["Response"]["response"] == {"Embedding": "Done"}


def test_text_is_refused_in_embeddings_mode(embedding_fleet: Fleet) -> None:
    body = json.dumps(raw_prompt("Once", 1)).encode()
    path = "/api/v1/continue_from_raw_prompt"
    assert request(embedding_fleet.inference, "POST", path, body) == (
        501,
        b"Token generation is disabled while the cluster is configured for embeddings",
    )


def test_embeddings_are_refused_in_text_mode(fleet: Fleet) -> None:
    body = json.dumps({"input_batch": [], "normalization_method": "L2"}).encode()
    assert request(fleet.inference, "POST", PATH, body) == (
        501,
        b"Embedding generation is not enabled in the inference parameters",
    )


def test_embeddings_without_an_agent_are_refused(tmp_path: Path, smollm2_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        fleet.put_model(smollm2_path, enable_embeddings=True)
        body = json.dumps({"input_batch": [], "normalization_method": "L2"}).encode()
        assert request(fleet.inference, "POST", PATH, body) == (
            503,
            b"No agents are currently connected",
        )


def test_more_parts_than_may_wait_overflow_inside_the_stream(
    tmp_path: Path, smollm2_path: Path
) -> None:
    with Fleet(tmp_path, "--max-buffered-requests", "2") as fleet:
        fleet.start_agent("a", 1)
        fleet.put_model(smollm2_path, enable_embeddings=True, embedding_batch_size=1)
        fleet.wait_slots(1)
        messages = embed(fleet, documents(8))
        errors = [message["Error"]["error"] for message in messages if "Error" in message]
        assert errors
        assert {(e["code"], e["description"]) for e in errors} == {
            (503, "Buffered requests overflow")
        }
        embedded = vectors([message for message in messages if "Response" in message])
        assert len(errors) + len(embedded) == 8
        assert messages[-1]["Response"]["response"] == {"Embedding": "Done"}


@pytest.mark.parametrize(
    "body",
    [
        {"input_batch": []},
        {"input_batch": [], "normalization_method": None},
        {"input_batch": [], "normalization_method": "L3"},
        {"input_batch": [], "normalization_method": {"RmsNorm": {}}},
        {"input_batch": [{"content": "x"}], "normalization_method": "L2"},
        {"input_batch": [], "normalization_method": "L2", "extra": 1},
    ],
)
def test_a_bad_batch_is_refused(embedding_fleet: Fleet, body: dict[str, Any]) -> None:
    status, _ = request(embedding_fleet.inference, "POST", PATH, json.dumps(body).encode())
    assert status == 400
