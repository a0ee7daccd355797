"""Errors as OpenAI's own client raises them, and how often it tries again."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from paddler.messages.link import FrameKind
from tests.balancer.services.openai.test_chat import INVALID
from tests.balancer.services.running import Agent, Running, on_balancer
from tests.balancer.services.test_inference import EMBEDDING
from tests.clients.openai_tap import Exchange, Tap
from tests.clients.scripted import answer, content, failure, playing
from tests.e2e.fleet import wait_until

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def caught_by(url: str, *, retries: int = 0) -> openai.APIError:
    """The error that one request for a chat ends in."""
    with (
        OpenAI(base_url=url, api_key="unused", max_retries=retries) as client,
        pytest.raises(openai.APIError) as caught,
    ):
        client.chat.completions.create(**CHAT)
    return caught.value


def attempts(
    prepare: Callable[[Running], Any], *flags: str
) -> tuple[openai.APIError, list[Exchange], float]:
    """The error of a request that may be tried twice, what passed, and the seconds it took."""
    found: list[tuple[openai.APIError, list[Exchange], float]] = []

    async def test(running: Running) -> None:
        await prepare(running)
        with Tap(running.openai) as tap:
            began_at = time.monotonic()
            error = await asyncio.to_thread(caught_by, tap.url, retries=1)
            found.append((error, tap.exchanges, time.monotonic() - began_at))

    on_balancer(test, *flags)
    return found[0]


async def nothing(running: Running) -> None:
    """The balancer as it is."""


def test_an_overloaded_service_is_asked_again_after_the_time_it_says() -> None:
    error, exchanges, took_s = attempts(nothing, "--max-buffered-requests", "0")
    assert isinstance(error, openai.InternalServerError)
    assert [exchange.status for exchange in exchanges] == [503, 503]
    assert [exchange.headers.get("retry-after") for exchange in exchanges] == ["1", "1"]
    assert took_s >= 1.0  # by itself the client waits half a second at most


def test_a_request_that_waited_too_long_is_tried_again() -> None:
    error, exchanges, _ = attempts(nothing, "--buffered-request-timeout", "10ms")
    assert isinstance(error, openai.InternalServerError)
    assert [exchange.status for exchange in exchanges] == [504, 504]


def test_a_request_whose_agent_is_lost_is_tried_again() -> None:
    async def test(running: Running) -> None:
        with Tap(running.openai) as tap:
            first = await Agent.join(running, "id-1")
            asked = asyncio.create_task(asyncio.to_thread(caught_by, tap.url, retries=1))
            await first.hear_start()
            first.leave()
            await asyncio.to_thread(wait_until, lambda: tap.exchanges, "the first try failed")
            second = await Agent.join(running, "id-2")
            await second.hear_start()
            second.leave()
            error = await asked
            assert isinstance(error, openai.InternalServerError)
            assert [exchange.status for exchange in tap.exchanges] == [502, 502]

    on_balancer(test, "--buffered-request-timeout", "200ms")


def test_what_the_fleet_does_not_do_is_not_tried_again() -> None:
    async def put_embedding(running: Running) -> None:
        await running.put_state(EMBEDDING)

    error, (exchange,), _ = attempts(put_embedding)
    assert isinstance(error, openai.APIStatusError)
    assert error.status_code == exchange.status == 501


@pytest.mark.parametrize(
    ("variant", "kind", "param"),
    [
        ("ChatTemplateError", openai.BadRequestError, "messages"),
        ("GrammarSyntaxError", openai.BadRequestError, "response_format"),
        ("ToolSchemaInvalid", openai.BadRequestError, "tools"),
        ("SamplerError", openai.InternalServerError, None),
    ],
)
def test_what_an_agent_finds_is_raised_as_what_it_is(
    variant: str, kind: type[openai.APIError], param: str | None
) -> None:
    async def test(running: Running) -> None:
        with Tap(running.openai) as tap:
            async with playing(running, [failure(variant, "no")]):
                error = await asyncio.to_thread(caught_by, tap.url)
        assert isinstance(error, kind)
        assert error.message.endswith("no")
        assert (error.param, error.code) == (param, None)

    on_balancer(test)


def test_a_request_that_cannot_be_is_not_tried_again() -> None:
    async def test(running: Running) -> None:
        with Tap(running.openai) as tap:
            async with AsyncOpenAI(base_url=tap.url, api_key="unused") as client:
                with pytest.raises(openai.BadRequestError) as refused:
                    await client.chat.completions.create(**CHAT, temperature=3)
                with pytest.raises(openai.BadRequestError) as stateful:
                    await client.responses.create(model="m", input="Hi", store=True)
                with pytest.raises(openai.NotFoundError) as stored:
                    await client.responses.retrieve("resp_1")
                with pytest.raises(openai.NotFoundError) as unknown:
                    await client.models.retrieve("gpt-4o")
            assert len(tap.exchanges) == 4
        errors = [caught.value for caught in (refused, stateful, stored, unknown)]
        assert [error.param for error in errors] == ["temperature", "store", "id", "model"]
        assert "nothing is stored" in errors[2].message

    on_balancer(test)


# --- within a stream ----------------------------------------------------------------------------

BROKEN = failure("SamplerError", "no", *content("a"))
FORBIDDEN = answer(*content("a"), (FrameKind.RESULT, INVALID))


@pytest.mark.parametrize(
    ("endpoint", "turn", "message"),
    [
        ("chat", BROKEN, "no"),
        ("chat", FORBIDDEN, "arguments are wrong"),
        ("completions", BROKEN, "no"),
    ],
)
def test_a_failure_within_a_stream_is_raised_where_it_comes(
    endpoint: str, turn: Any, message: str
) -> None:
    def read(url: str) -> None:
        with OpenAI(base_url=url, api_key="unused") as client:
            stream: Any
            if endpoint == "chat":
                stream = client.chat.completions.create(**CHAT, stream=True)
                assert next(stream).choices[0].delta.role == "assistant"
                assert next(stream).choices[0].delta.content == "a"
            else:
                stream = client.completions.create(model="m", prompt="Hi", stream=True)
                assert next(stream).choices[0].text == "a"
            with pytest.raises(openai.APIError, match=message) as caught:
                next(stream)
            assert caught.value.type == "server_error"
            assert list(stream) == []

    async def test(running: Running) -> None:
        with Tap(running.openai) as tap:
            async with playing(running, [turn]):
                await asyncio.to_thread(read, tap.url)
            assert len(tap.exchanges) == 1
        (agent,) = await running.agents()
        assert agent["slots_processing"] == 0

    on_balancer(test)


@pytest.mark.parametrize("turn", [BROKEN, FORBIDDEN])
def test_a_failure_within_a_response_is_its_last_event(turn: Any) -> None:
    def read(url: str) -> None:
        with OpenAI(base_url=url, api_key="unused") as client:
            *_, last = client.responses.create(model="m", input="Hi", stream=True)
            assert last.type == "response.failed"
            assert last.response.error is not None
            assert last.response.error.code == "server_error"

    async def test(running: Running) -> None:
        with Tap(running.openai) as tap:
            async with playing(running, [turn]):
                await asyncio.to_thread(read, tap.url)

    on_balancer(test)
