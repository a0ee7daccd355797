"""What clients of the native inference service get, over real sockets and from the real model."""

import json
import re
import socket

import pytest

from tests.e2e.fleet import (
    Answer,
    Fleet,
    ask,
    ask_at_once,
    conversation,
    get,
    raw_prompt,
    request,
    tokens_of,
    usage_of,
    wait_until,
)


def test_health_is_exactly_ok_on_every_listener(fleet: Fleet) -> None:
    for port in (fleet.management, fleet.inference, fleet.openai):
        assert get(port, "/health") == (200, b"OK")


def test_a_conversation_is_answered_line_by_line(fleet: Fleet) -> None:
    messages = ask(fleet.inference, conversation("Say hello.", 32))
    ids = {message["Response"]["request_id"] for message in messages}
    assert len(ids) == 1
    assert re.fullmatch(r"[A-Za-z0-9_-]{21}", ids.pop())
    for message in messages:
        assert set(message) == {"Response"}
        assert list(message["Response"]) == ["generated_by", "request_id", "response"]
        assert message["Response"]["generated_by"] == "agent-1"
    for message in messages[:-1]:
        assert set(message["Response"]["response"]["GeneratedToken"]) == {"UndeterminableToken"}
    usage = usage_of(messages)
    assert usage["prompt_tokens"] > 10
    assert usage["undeterminable_tokens"] >= len(messages) - 1
    assert "<|im_end|>" not in "".join(tokens_of(messages))


def test_the_wire_of_an_answer_is_to_the_letter(fleet: Fleet) -> None:
    body = json.dumps(raw_prompt("The meaning of life is", 1)).encode()
    with socket.create_connection(("127.0.0.1", fleet.inference)) as sock:
        sock.sendall(
            b"POST /api/v1/continue_from_raw_prompt HTTP/1.1\r\nhost: a\r\n"
            b"content-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        wire = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, chunks = wire.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"http/1.1 200 ok"
    assert b"content-type: application/json" in lines
    assert b"cache-control: no-cache" in lines
    assert b"transfer-encoding: chunked" in lines
    assert chunks.endswith(b"0\r\n\r\n")
    token, done = re.findall(rb"\r\n(\{.*?\}\n)\r\n", b"\r\n" + chunks)
    identity = rb'\{"Response":\{"generated_by":"agent-1","request_id":"[A-Za-z0-9_-]{21}",'
    assert re.fullmatch(
        identity
        + rb'"response":\{"GeneratedToken":\{"UndeterminableToken":"(?:[^"\\]|\\.)+"\}\}\}\}\n',
        token,
    )
    assert re.fullmatch(
        identity + rb'"response":\{"GeneratedToken":\{"Done":\{"usage":\{"prompt_tokens":5,'
        rb'"cached_prompt_tokens":\d,"input_image_tokens":0,"input_audio_tokens":0,'
        rb'"content_tokens":0,"reasoning_tokens":0,"tool_call_tokens":0,'
        rb'"undeterminable_tokens":1\}\}\}\}\}\}\n',
        done,
    )


def test_max_tokens_is_exact(fleet: Fleet) -> None:
    messages = ask(fleet.inference, raw_prompt("Once upon a time", 5))
    assert len(tokens_of(messages)) == 5
    assert usage_of(messages)["undeterminable_tokens"] == 5


@pytest.mark.parametrize("max_tokens", [1, 0, -3])
def test_max_tokens_of_one_or_less_yields_one_token(fleet: Fleet, max_tokens: int) -> None:
    assert len(tokens_of(ask(fleet.inference, raw_prompt("Once upon a time", max_tokens)))) == 1


def test_a_repeated_prompt_is_not_prefilled_again(fleet: Fleet) -> None:
    body = conversation("Tell me about the city of Paris and its bridges.", 4)
    ask(fleet.inference, body)
    usage = usage_of(ask(fleet.inference, body))
    assert 0 < usage["cached_prompt_tokens"] < usage["prompt_tokens"]


def test_twelve_streams_on_four_slots_all_complete(fleet: Fleet) -> None:
    answers = ask_at_once(
        fleet.inference, [raw_prompt(f"Story number {n}: once", 24) for n in range(12)]
    )
    for messages in answers:
        assert "Done" in messages[-1]["Response"]["response"]["GeneratedToken"]
        assert tokens_of(messages)


def test_no_more_requests_run_than_there_are_slots(fleet: Fleet) -> None:
    answers = [Answer(fleet.inference, raw_prompt("Count: one, two,", 400)) for _ in range(6)]
    wait_until(lambda: fleet.buffered() == 2, "two requests wait")
    assert fleet.slots_busy() == 4
    for answer in answers:
        answer.cut()
    wait_until(lambda: fleet.buffered() == 0, "nobody waits")
    fleet.wait_idle()


def test_tokens_arrive_one_by_one(fleet: Fleet) -> None:
    answer = Answer(fleet.inference, raw_prompt("The history of Rome begins", 60))
    messages = answer.rest()
    spread_s = answer.arrived_at[-1] - answer.arrived_at[0]
    # One burst at the end would put all of them at one moment.
    first_half_s = answer.arrived_at[len(messages) // 2] - answer.arrived_at[0]
    assert first_half_s > 0.2 * spread_s > 0


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("continue_from_raw_prompt", b"{", "Json deserialize error: "),
        ("continue_from_raw_prompt", b"{}", "raw_prompt"),
        ("continue_from_raw_prompt", b'{"raw_prompt":"a","max_tokens":1,"x":1}', "`x`"),
        ("continue_from_raw_prompt", b'{"raw_prompt":"a","max_tokens":2147483648}', "max_tokens"),
        ("continue_from_raw_prompt", b'{"raw_prompt":"a","max_tokens":1.5}', "max_tokens"),
        ("continue_from_raw_prompt", b'{"raw_prompt":7,"max_tokens":1}', "raw_prompt"),
        ("continue_from_conversation_history", b'{"max_tokens":1}', "Json deserialize error: "),
    ],
)
def test_a_bad_body_is_refused_with_its_reason(
    fleet: Fleet, path: str, body: bytes, expected: str
) -> None:
    status, answer = request(fleet.inference, "POST", f"/api/v1/{path}", body)
    assert status == 400
    assert expected in answer.decode()


def test_a_tool_that_requires_what_it_does_not_declare_is_refused(fleet: Fleet) -> None:
    body = conversation("hi", 1) | {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "",
                    "parameters": {"type": "object", "properties": {"a": {}}, "required": ["b"]},
                },
            }
        ]
    }
    status, answer = request(
        fleet.inference,
        "POST",
        "/api/v1/continue_from_conversation_history",
        json.dumps(body).encode(),
    )
    assert (status, answer) == (
        400,
        b"Invalid request parameters: Required field 'b' not found in properties",
    )


def test_a_prompt_larger_than_the_context_ends_with_a_named_error(fleet: Fleet) -> None:
    messages = ask(fleet.inference, raw_prompt("word " * 6000, 5))
    (message,) = messages
    assert "evicted" in message["Response"]["response"]["GeneratedToken"]["SamplerError"]
