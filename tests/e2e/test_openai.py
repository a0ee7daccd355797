"""The OpenAI-compatible service, through OpenAI's own client."""

import openai
import pytest
from openai import OpenAI

from tests.e2e.fleet import Fleet, request

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def client(fleet: Fleet) -> OpenAI:
    return OpenAI(base_url=f"http://127.0.0.1:{fleet.openai}/v1", api_key="unused", max_retries=0)


def test_a_chat_is_answered_whole(client: OpenAI) -> None:
    with client:
        answer = client.chat.completions.create(model="any", messages=MESSAGES, max_tokens=40)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "any"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_chat_is_streamed(client: OpenAI) -> None:
    with client:
        chunks = list(
            client.chat.completions.create(
                model="any",
                messages=MESSAGES,
                max_tokens=40,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:-1])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]).strip()
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_limit_is_told_as_length(client: OpenAI) -> None:
    with client:
        answer = client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "Write a long story about the sea."}],
            max_completion_tokens=3,
        )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_the_same_seed_gives_the_same_text(client: OpenAI) -> None:
    def text() -> str | None:
        answer = client.chat.completions.create(
            model="any", messages=MESSAGES, max_tokens=24, seed=7, temperature=1.0
        )
        return answer.choices[0].message.content

    with client:
        text()  # from here on, the prompt is cached alike
        assert text() == text()


def test_a_value_out_of_range_is_named(client: OpenAI) -> None:
    with client, pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="any", messages=MESSAGES, temperature=3)


def test_an_unknown_path_is_an_error_that_the_client_knows(client: OpenAI) -> None:
    with client, pytest.raises(openai.NotFoundError):
        client.get("/nothing", cast_to=object)


def test_a_wrong_method_is_told_as_json(fleet: Fleet) -> None:
    status, body = request(fleet.openai, "GET", "/v1/chat/completions")
    assert status == 405
    assert body.startswith(b'{"error":{"message":')
