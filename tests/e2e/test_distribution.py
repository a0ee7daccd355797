"""How work spreads over many agents, each a process of its own."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import PATIENT, Fleet, ask_at_once, raw_prompt, request, tokens_of, wait_until
from tests.tiny_gguf import write_tiny_gguf

EMBEDDINGS = "/api/v1/generate_embedding_batch"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", context_length=4096)


@pytest.fixture(scope="module")
def single_slots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Four agents of one slot each; four requests may wait."""
    folder = tmp_path_factory.mktemp("single")
    with Fleet(folder, *PATIENT, "--max-buffered-requests", "4") as fleet:
        for name in "abcd":
            fleet.start_agent(name, 1)
        wait_until(lambda: len(fleet.snapshot()) == 4, "all agents are there")
        yield fleet


def put_model(fleet: Fleet, path: Path, slots: int, **parameters: Any) -> None:
    """Serve a model with these parameters on all agents, by new workers."""
    old = {worker for agent in fleet.agents for worker in agent.children()}
    fleet.put_model(path, **parameters)
    wait_until(
        lambda: all(
            agent.children() and not old.intersection(agent.children()) for agent in fleet.agents
        ),
        "new workers",
    )
    fleet.wait_slots(slots)


def embed_at_once(fleet: Fleet, batches: list[list[str]]) -> list[list[dict[str, Any]]]:
    """The messages for several batches of documents, which are named by their texts."""
    answers: list[list[dict[str, Any]]] = [[] for _ in batches]

    def run(index: int) -> None:
        documents = [{"content": text, "id": text} for text in batches[index]]
        body = {"input_batch": documents, "normalization_method": "L2"}
        status, answer = request(fleet.inference, "POST", EMBEDDINGS, json.dumps(body).encode())
        assert status == 200, answer
        answers[index] = [json.loads(line) for line in answer.splitlines()]

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def embedded(messages: list[dict[str, Any]]) -> Counter[str]:
    """How often each document came."""
    results = [
        message["Response"]["response"]["Embedding"]
        for message in messages
        if "Response" in message
    ]
    return Counter(
        result["Embedding"]["source_document_id"] for result in results if "Embedding" in result
    )


def producers(messages: list[dict[str, Any]]) -> set[str]:
    """Who made an answer, but for what the balancer says itself."""
    names = {message["Response"]["generated_by"] for message in messages if "Response" in message}
    return names - {None}


def ends_with_done(messages: list[dict[str, Any]]) -> bool:
    return bool(messages[-1]["Response"]["response"] == {"Embedding": "Done"})


def test_burst_of_tokens_takes_every_agent_once(single_slots: Fleet, tiny: Path) -> None:
    put_model(single_slots, tiny, 4, context_size=2048)
    answers = ask_at_once(
        single_slots.inference, [raw_prompt(f"Tale {n}:", 1000) for n in range(4)]
    )
    owners = [producers(messages) for messages in answers]
    assert sorted(owners, key=str) == [{"a"}, {"b"}, {"c"}, {"d"}]
    assert [len(tokens_of(messages)) for messages in answers] == [1000] * 4


def test_embeddings_past_what_may_wait_overflow_within_the_stream(
    single_slots: Fleet, tiny: Path
) -> None:
    put_model(single_slots, tiny, 4, enable_embeddings=True, embedding_batch_size=1)
    documents = [f"document {n}" for n in range(100)]
    (messages,) = embed_at_once(single_slots, [documents])
    errors = [message["Error"]["error"] for message in messages if "Error" in message]
    assert errors
    for error in errors:
        assert error == {"code": 503, "description": "Buffered requests overflow"}
    came = embedded(messages)
    assert set(came.values()) == {1}
    assert len(came) + len(errors) == len(documents)
    assert ends_with_done(messages)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two agents of two slots."""
    with Fleet(tmp_path_factory.mktemp("pair"), *PATIENT) as fleet:
        for name in "ab":
            fleet.start_agent(name, 2)
        wait_until(lambda: len(fleet.snapshot()) == 2, "both agents are there")
        yield fleet


def test_more_requests_than_slots_are_all_served_by_both_agents(pair: Fleet, tiny: Path) -> None:
    put_model(pair, tiny, 4, context_size=2048)
    answers = ask_at_once(pair.inference, [raw_prompt(f"Tale {n}:", 200) for n in range(5)])
    assert [len(tokens_of(messages)) for messages in answers] == [200] * 5
    assert {name for messages in answers for name in producers(messages)} == {"a", "b"}
    assert all(len(producers(messages)) == 1 for messages in answers)


def test_batch_reaches_agents_of_uneven_slots(tmp_path: Path, tiny: Path) -> None:
    with Fleet(tmp_path, *PATIENT) as fleet:
        for name, slots in {"one": 1, "two": 2, "four": 4}.items():
            fleet.start_agent(name, slots)
        fleet.put_model(tiny, enable_embeddings=True)
        fleet.wait_slots(7)
        documents = [f"document {n}" for n in range(13)]
        (messages,) = embed_at_once(fleet, [documents])
        assert embedded(messages) == Counter(documents)
        assert producers(messages) == {"one", "two", "four"}
        assert ends_with_done(messages)


def test_burst_of_batches_reaches_all_agents_and_each_client_gets_its_own(
    pair: Fleet, tiny: Path
) -> None:
    put_model(pair, tiny, 4, enable_embeddings=True)
    batches = [[f"document {n} of {client}" for n in range(8)] for client in range(4)]
    answers = embed_at_once(pair, batches)
    assert [embedded(messages) for messages in answers] == [Counter(batch) for batch in batches]
    assert all(ends_with_done(messages) for messages in answers)
    assert {name for messages in answers for name in producers(messages)} == {"a", "b"}
