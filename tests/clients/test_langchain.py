"""LangChain's OpenAI integration before an agent that calls tools."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from tests.balancer.services.running import Running, on_balancer
from tests.clients.openai_tap import Tap
from tests.clients.scripted import playing
from tests.clients.test_openai_python import ANSWER, CALLS, TEXT, require_second_turn


@tool
def get_weather(place: str) -> str:
    """The weather at a place."""
    return {"Rome": "20", "Bern": "10"}[place]


@contextlib.asynccontextmanager
async def model_before(running: Running, *, responses: bool) -> AsyncIterator[Any]:
    """LangChain's model with the tool; its connections, which it would keep, are closed."""
    with Tap(running.openai) as tap, openai.DefaultHttpxClient() as whole:
        async with openai.DefaultAsyncHttpxClient() as streamed:
            model = ChatOpenAI(
                base_url=tap.url,
                api_key="unused",  # type: ignore[arg-type]
                model="any",
                max_retries=0,
                stream_usage=True,
                use_responses_api=responses,
                http_client=whole,
                http_async_client=streamed,
            )
            yield model.bind_tools([get_weather])


def results_of(message: AIMessage) -> list[ToolMessage]:
    """What the calls of a message come to."""
    return [get_weather.invoke({**call, "type": "tool_call"}) for call in message.tool_calls]


@pytest.mark.parametrize("responses", [False, True])
def test_a_tools_loop_of_whole_answers(responses: bool) -> None:
    async def test(running: Running) -> None:
        async with model_before(running, responses=responses) as model:
            async with playing(running, [CALLS, ANSWER]) as asked:
                conversation: list[Any] = [HumanMessage("Rome or Bern?")]
                first = await asyncio.to_thread(model.invoke, conversation)
                assert [call["args"] for call in first.tool_calls] == [
                    {"place": "Rome"},
                    {"place": "Bern"},
                ]
                conversation += [first, *results_of(first)]
                second = await asyncio.to_thread(model.invoke, conversation)
                assert second.text == TEXT
            require_second_turn(asked[1], [call["id"] for call in first.tool_calls])

    on_balancer(test)


@pytest.mark.parametrize("responses", [False, True])
def test_a_tools_loop_of_streams(responses: bool) -> None:
    async def test(running: Running) -> None:
        async with model_before(running, responses=responses) as model:
            async with playing(running, [CALLS, ANSWER]) as asked:

                async def stream(conversation: list[Any]) -> AIMessageChunk:
                    whole: Any = None
                    async for piece in model.astream(conversation):
                        whole = piece if whole is None else whole + piece
                    assert isinstance(whole, AIMessageChunk)
                    return whole

                conversation: list[Any] = [HumanMessage("Rome or Bern?")]
                first = await stream(conversation)
                conversation += [first, *results_of(first)]
                second = await stream(conversation)
                assert second.text == TEXT
                assert second.usage_metadata is not None
                assert second.usage_metadata["total_tokens"] == 8
            require_second_turn(asked[1], [call["id"] for call in first.tool_calls])

    on_balancer(test)
