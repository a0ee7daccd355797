"""The inference WebSocket, through an independent client."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.fleet import (
    PATIENT,
    Fleet,
    conversation,
    get,
    raw_prompt,
    wait_until,
)

LONG = 2000
TIMEOUT_S = 60


def open_socket(fleet: Fleet) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{fleet.inference}/api/v1/inference_socket", max_size=None)


@pytest.fixture
def client(fleet: Fleet) -> Iterator[ClientConnection]:
    with open_socket(fleet) as socket:
        yield socket


def send(client: ClientConnection, request_id: str, body: dict[str, Any]) -> None:
    kind = "ContinueFromRawPrompt" if "raw_prompt" in body else "ContinueFromConversationHistory"
    client.send(json.dumps({"Request": {"id": request_id, "request": {kind: body}}}))


def stop(client: ClientConnection, request_id: str) -> None:
    client.send(json.dumps({"Notification": {"StopRespondingTo": request_id}}))


def receive(client: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(client.recv(timeout=TIMEOUT_S))
    return message


def id_of(message: dict[str, Any]) -> str:
    ((_, envelope),) = message.items()
    request_id: str = envelope["request_id"]
    return request_id


def is_last(message: dict[str, Any]) -> bool:
    return "Error" in message or "Done" in message["Response"]["response"]["GeneratedToken"]


def collect(client: ClientConnection, *ids: str) -> dict[str, list[dict[str, Any]]]:
    """All messages of these requests, until each has ended."""
    answers: dict[str, list[dict[str, Any]]] = {request_id: [] for request_id in ids}
    while not all(messages and is_last(messages[-1]) for messages in answers.values()):
        message = receive(client)
        answers[id_of(message)].append(message)
    return answers


def test_both_kinds_of_requests_are_answered_at_once(client: ClientConnection) -> None:
    send(client, "raw", raw_prompt("Once upon a time", 8))
    send(client, "chat", conversation("Say hello.", 8))
    for messages in collect(client, "raw", "chat").values():
        assert len(messages) > 1
        assert all(m["Response"]["generated_by"] == "agent-1" for m in messages)


def test_a_second_request_with_an_id_in_flight_is_refused_and_the_first_goes_on(
    client: ClientConnection,
) -> None:
    send(client, "same", raw_prompt("Once upon a time", 40))
    first = receive(client)
    assert "Response" in first
    send(client, "same", raw_prompt("Other", 1))
    messages = []
    while not (messages and "Response" in messages[-1] and is_last(messages[-1])):
        messages.append(receive(client))
    errors = [message for message in messages if "Error" in message]
    assert errors == [
        {
            "Error": {
                "request_id": "same",
                "error": {
                    "code": 400,
                    "description": 'Request id "same" is already in flight on this connection',
                },
            }
        }
    ]
    assert len(messages) == 41  # 39 tokens more, the error, and Done
    send(client, "same", raw_prompt("Again", 1))  # free again
    assert len(collect(client, "same")["same"]) == 2


def test_ids_are_scoped_to_their_socket(fleet: Fleet, client: ClientConnection) -> None:
    with open_socket(fleet) as other:
        send(client, "same", raw_prompt("Once upon a time", 8))
        send(other, "same", raw_prompt("Once upon a time", 8))
        assert len(collect(client, "same")["same"]) == 9
        assert len(collect(other, "same")["same"]) == 9


def test_stopping_a_request_is_silent_and_leaves_its_sibling(
    fleet: Fleet, client: ClientConnection
) -> None:
    send(client, "stopped", raw_prompt("Once upon a time", LONG))
    send(client, "sibling", raw_prompt("Once upon a time", 60))
    wait_until(lambda: fleet.slots_busy() == 2, "both run")
    stop(client, "stopped")
    stop(client, "unknown")
    after: list[dict[str, Any]] = []
    while not (after and id_of(after[-1]) == "sibling" and is_last(after[-1])):
        after.append(receive(client))
    assert not any(id_of(message) == "stopped" and is_last(message) for message in after)
    wait_until(lambda: fleet.slots_busy() == 0, "the slot is free")


def test_stopping_a_waiting_request_takes_it_out_of_the_line(
    fleet: Fleet, client: ClientConnection
) -> None:
    for number in range(5):
        send(client, str(number), raw_prompt("Once upon a time", LONG))
        wait_until(
            lambda number=number: fleet.slots_busy() + fleet.buffered() == number + 1,
            "the request runs or waits",
        )
    assert fleet.buffered() == 1
    stop(client, "4")
    wait_until(lambda: fleet.buffered() == 0, "nobody waits")
    assert fleet.slots_busy() == 4


def test_closing_the_socket_frees_everything(fleet: Fleet) -> None:
    with open_socket(fleet) as socket:
        for number in range(6):
            send(socket, str(number), raw_prompt("Once upon a time", LONG))
        wait_until(lambda: (fleet.slots_busy(), fleet.buffered()) == (4, 2), "all are in")
    wait_until(lambda: (fleet.slots_busy(), fleet.buffered()) == (0, 0), "all are gone")


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            '{"Request":{"id":"x","request":{"ContinueFromRawPrompt":{"raw_prompt":"a"}}}}',
            "max_tokens",
        ),
        ('{"Request":{"id":"x","request":{"Unknown":{}}}}', "Unknown"),
        ('{"Request":{"id":"x"}}', "request"),
        (
            '{"Request":{"id":"x","request":{"ContinueFromConversationHistory":'
            '{"add_generation_prompt":true,"conversation_history":[],"enable_thinking":false,'
            '"max_tokens":1,"tools":[{"type":"function","function":{"name":"f","description":"",'
            '"parameters":{"type":"object","properties":{},"required":["b"]}}}]}}}}',
            "Required field 'b' not found in properties",
        ),
    ],
)
def test_a_bad_request_with_an_id_is_answered_and_the_socket_lives(
    client: ClientConnection, frame: str, expected: str
) -> None:
    client.send(frame)
    error = receive(client)["Error"]
    assert error["request_id"] == "x"
    assert error["error"]["code"] == 400
    assert expected in error["error"]["description"]
    send(client, "x", raw_prompt("Once", 1))
    assert len(collect(client, "x")["x"]) == 2


@pytest.mark.parametrize("frame", ["{", "[]", '{"Unknown":1}', '{"Request":7}', b"\x00\x01"])
def test_rubbish_without_an_id_is_not_answered_and_the_socket_lives(
    client: ClientConnection, frame: str | bytes
) -> None:
    client.send(frame)
    client.send('{"Error":{"request_id":"x","error":{"code":500,"description":"y"}}}')
    send(client, "after", raw_prompt("Once", 1))
    assert len(collect(client, "after")["after"]) == 2


def test_pings_are_answered_and_sent(client: ClientConnection) -> None:
    assert client.ping(b"payload").wait(TIMEOUT_S)


def test_a_request_without_an_upgrade_is_refused(fleet: Fleet) -> None:
    assert get(fleet.inference, "/api/v1/inference_socket")[0] == 400


def test_a_change_of_mode_is_told_and_the_socket_serves_on_afterwards(
    tmp_path: Path, smollm2_path: Path
) -> None:
    with Fleet(tmp_path, *PATIENT) as fleet:
        fleet.start_agent("agent-1", 1)
        fleet.put_model(smollm2_path, enable_embeddings=True)
        with open_socket(fleet) as client:
            assert receive(client) == {"Notification": "TokenGenerationDisabled"}
            send(client, "early", raw_prompt("Once", 1))
            assert receive(client) == {
                "Response": {
                    "generated_by": None,
                    "request_id": "early",
                    "response": {
                        "GeneratedToken": {
                            "TokenGenerationDisabled": "Token generation is disabled while "
                            "the cluster is configured for embeddings"
                        }
                    },
                }
            }
            fleet.put_model(smollm2_path)
            assert receive(client) == {"Notification": "TokenGenerationEnabled"}
            send(client, "late", raw_prompt("Once", 3))
            assert len(collect(client, "late")["late"]) == 4


def test_a_stopping_balancer_ends_what_runs_by_name_and_closes(
    tmp_path: Path, smollm2_path: Path
) -> None:
    with Fleet(tmp_path, "--drain-timeout", "300ms") as fleet:
        fleet.start_agent("agent-1", 1)
        fleet.put_model(smollm2_path)
        fleet.wait_slots(1)
        assert fleet.balancer is not None
        with open_socket(fleet) as busy, open_socket(fleet) as idle:
            send(busy, "x", raw_prompt("Once upon a time", LONG))
            receive(busy)
            fleet.balancer.signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                receive(idle)
            send(busy, "late", raw_prompt("Once upon a time", LONG))
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
                1001,
                "Server shutting down",
            )
            for messages in collect(busy, "x", "late").values():
                assert messages[-1]["Error"]["error"] == {
                    "code": 503,
                    "description": "balancer is shutting down",
                }
            with pytest.raises(ConnectionClosed) as closed:
                receive(busy)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        assert fleet.balancer.wait() == 0
