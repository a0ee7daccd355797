"""What a request is told that cannot be served, and what a client's leaving sets free."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from tests.e2e.fleet import (
    PATIENT,
    Answer,
    Fleet,
    ask,
    conversation,
    error_of,
    raw_prompt,
    request,
    tokens_of,
    wait_until,
)
from tests.e2e.test_inference_socket import open_socket, send, stop
from tests.tiny_gguf import write_tiny_gguf

LONG = 2000
EMBEDDINGS = "/api/v1/generate_embedding_batch"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf", context_length=16384)


def only_error(fleet: Fleet) -> dict[str, Any]:
    """The error that is the first and last message of an answer."""
    (message,) = ask(fleet.inference, raw_prompt("Once", 3))
    return error_of([message])


# --- nobody serves ------------------------------------------------------------------------------


def test_busy_fleet_without_a_buffer_refuses(tmp_path: Path, tiny: Path) -> None:
    with Fleet(tmp_path, "--max-buffered-requests", "0") as fleet:
        fleet.start_agent("a", 1)
        fleet.put_model(tiny, context_size=16384)
        fleet.wait_slots(1)
        running = Answer(fleet.inference, raw_prompt("Once", 16000))
        running.first()
        assert only_error(fleet) == {"code": 503, "description": "Buffered requests overflow"}
        running.cut()
        fleet.wait_idle()
        assert len(tokens_of(ask(fleet.inference, raw_prompt("Once", 3)))) == 3


def test_fleet_without_an_agent_or_a_model_answers_once_waiting_was_too_long(
    tmp_path: Path,
) -> None:
    too_long = {"code": 504, "description": "Waiting for available slot timed out"}
    with Fleet(tmp_path, "--buffered-request-timeout", "200ms") as fleet:
        assert only_error(fleet) == too_long
        fleet.start_agent("a", 1)
        wait_until(lambda: len(fleet.snapshot()) == 1, "the agent is there, without a model")
        assert only_error(fleet) == too_long


def test_waiting_request_is_served_by_an_agent_that_joins(tmp_path: Path, tiny: Path) -> None:
    with Fleet(tmp_path, *PATIENT) as fleet:
        waiting = Answer(fleet.inference, raw_prompt("Once", 3))
        wait_until(lambda: fleet.buffered() == 1, "the request waits")
        fleet.put_model(tiny)
        fleet.start_agent("late", 1)
        messages = waiting.rest()
        assert {message["Response"]["generated_by"] for message in messages} == {"late"}
        assert len(tokens_of(messages)) == 3


@pytest.mark.parametrize("timeout_ms", [0, 300])
def test_agent_that_says_nothing_in_time_is_given_up(
    tmp_path: Path, tiny: Path, timeout_ms: int
) -> None:
    with Fleet(tmp_path, "--inference-item-timeout", f"{timeout_ms}ms") as fleet:
        agent = fleet.start_agent("a", 1)
        fleet.put_model(tiny)
        fleet.wait_slots(1)
        (worker,) = agent.children()
        if timeout_ms:
            os.kill(worker, signal.SIGSTOP)
        assert only_error(fleet) == {
            "code": 504,
            "description": f"Inference timed out after {timeout_ms}ms waiting for next token. "
            "Increase --inference-item-timeout if the prompt requires longer processing.",
        }
        if timeout_ms:
            os.kill(worker, signal.SIGCONT)


# --- embeddings beside text ---------------------------------------------------------------------


def embed(fleet: Fleet) -> tuple[int, bytes]:
    batch = {"input_batch": [{"content": "a", "id": "1"}], "normalization_method": "None"}
    return request(fleet.inference, "POST", EMBEDDINGS, json.dumps(batch).encode())


def test_embeddings_are_refused_while_text_is_generated_and_served_after_the_switch(
    tmp_path: Path, tiny: Path
) -> None:
    with Fleet(tmp_path, *PATIENT) as fleet:
        fleet.start_agent("a", 2)
        fleet.put_model(tiny, context_size=4096)
        fleet.wait_slots(2)
        running = Answer(fleet.inference, raw_prompt("Once", 800))
        running.first()
        assert embed(fleet) == (
            501,
            b"Embedding generation is not enabled in the inference parameters",
        )
        fleet.put_model(tiny, enable_embeddings=True)
        # It waits for the text that runs, and for the other way of serving.
        status, answer = embed(fleet)
        assert status == 200
        embedded, done = (json.loads(line) for line in answer.splitlines())
        assert "Embedding" in embedded["Response"]["response"]["Embedding"]
        assert done["Response"]["response"] == {"Embedding": "Done"}
        assert len(tokens_of(running.rest())) == 799


# --- clients that leave -------------------------------------------------------------------------


def chat(max_tokens: int, **more: Any) -> dict[str, Any]:
    question = "Write a very long story about the sea, with many chapters."
    message = {"role": "user", "content": question}
    return {"model": "any", "messages": [message], "max_tokens": max_tokens, **more}


# Where a request goes, its path and its body.
REQUESTS = {
    "raw": ("inference", "/api/v1/continue_from_raw_prompt", raw_prompt("Once", LONG)),
    "conversation": (
        "inference",
        "/api/v1/continue_from_conversation_history",
        conversation("Write a very long story.", LONG),
    ),
    "openai": ("openai", "/v1/chat/completions", chat(LONG, temperature=0)),
    "openai_stream": ("openai", "/v1/chat/completions", chat(LONG, temperature=0, stream=True)),
    "responses": (
        "openai",
        "/v1/responses",
        {"model": "m", "input": "Write a very long story.", "max_output_tokens": LONG},
    ),
    "completions": (
        "openai",
        "/v1/completions",
        {"model": "m", "prompt": "Once", "max_tokens": LONG, "stream": True},
    ),
}


def sent(fleet: Fleet, name: str) -> socket.socket:
    """The socket of a client that has sent its request and reads nothing yet."""
    listener, path, body = REQUESTS[name]
    encoded = json.dumps(body).encode()
    client = socket.create_connection(("127.0.0.1", getattr(fleet, listener)))
    client.settimeout(30)
    client.sendall(
        f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        f"content-length: {len(encoded)}\r\n\r\n".encode()
        + encoded
    )
    return client


@pytest.fixture
def full_fleet(fleet: Fleet) -> Iterator[Fleet]:
    """The shared fleet with an answer in each of its 4 slots."""
    running = [Answer(fleet.inference, raw_prompt(f"Tale {n}:", LONG)) for n in range(4)]
    wait_until(lambda: fleet.slots_busy() == 4, "all slots are busy")
    yield fleet
    for answer in running:
        answer.cut()


@pytest.mark.parametrize("name", REQUESTS)
def test_client_that_shuts_its_side_leaves_the_line(full_fleet: Fleet, name: str) -> None:
    with sent(full_fleet, name) as client:
        wait_until(lambda: full_fleet.buffered() == 1, "the request waits")
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: full_fleet.buffered() == 0, "it waits no more", timeout_s=5)
    assert full_fleet.slots_busy() == 4


@pytest.mark.parametrize("name", REQUESTS)
def test_client_that_shuts_its_side_frees_its_slot(fleet: Fleet, name: str) -> None:
    with sent(fleet, name) as client:
        wait_until(lambda: fleet.slots_busy() == 1, "the request runs")
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: fleet.slots_busy() == 0, "the slot is free", timeout_s=5)
        wire = b"".join(iter(lambda: client.recv(65536), b""))
    # It did not end by itself.
    assert b'"Done"' not in wire
    assert b"finish_reason" not in wire.replace(b'"finish_reason":null', b"")


# --- cancelling over the socket -----------------------------------------------------------------


@pytest.fixture
def queue(fleet: Fleet) -> Iterator[ClientConnection]:
    """A socket with requests 0 to 3 running and 4 to 7 waiting."""
    with open_socket(fleet) as client:
        for number in range(8):
            send(client, str(number), raw_prompt(f"Tale {number}:", LONG if number < 6 else 5))
            wait_until(
                lambda number=number: fleet.slots_busy() + fleet.buffered() == number + 1,
                "the request runs or waits",
            )
        yield client


def test_cancelling_all_that_runs_serves_all_that_wait(
    fleet: Fleet, queue: ClientConnection
) -> None:
    for number in range(6):
        stop(queue, str(number))
    answers: dict[str, list[dict[str, Any]]] = {}
    while sum("Done" in str(messages[-1]) for messages in answers.values()) < 2:
        message = json.loads(queue.recv(timeout=60))
        answers.setdefault(message["Response"]["request_id"], []).append(message)
    assert all(len(tokens_of(answers[waited])) == 5 for waited in ("6", "7"))
    wait_until(lambda: (fleet.slots_busy(), fleet.buffered()) == (0, 0), "all is done")


def test_cancelling_some_serves_as_many_as_slots_were_freed(
    fleet: Fleet, queue: ClientConnection
) -> None:
    stop(queue, "0")
    stop(queue, "1")
    wait_until(lambda: (fleet.slots_busy(), fleet.buffered()) == (4, 2), "two more run")
    heard: set[str] = set()
    while not heard >= {"4", "5"}:
        heard.add(json.loads(queue.recv(timeout=60))["Response"]["request_id"])
    assert not heard & {"6", "7"}
    assert fleet.buffered() == 2


# --- stopping -----------------------------------------------------------------------------------


def test_fleet_with_a_running_answer_stops_within_five_seconds(tmp_path: Path, tiny: Path) -> None:
    with Fleet(tmp_path) as fleet:
        agents = [fleet.start_agent(name, 1) for name in ("a", "b")]
        fleet.put_model(tiny, context_size=16384)
        fleet.wait_slots(2)
        running = Answer(fleet.inference, raw_prompt("Once", 16000))
        running.first()
        assert fleet.balancer is not None
        started_at = time.monotonic()
        for process in (fleet.balancer, *agents):
            process.signal(signal.SIGTERM)
        assert [process.wait() for process in (fleet.balancer, *agents)] == [0, 0, 0]
        assert time.monotonic() - started_at < 5
        assert error_of(running.rest())["code"] in (502, 503)
