"""OpenAI's own Python client and an agent that calls tools: what it reads, what it sends back."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import openai
import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import ResponseFunctionToolCall

from paddler.messages import chat, link
from tests.balancer.services.running import Running, on_balancer
from tests.clients.openai_tap import Tap
from tests.clients.scripted import Turn, answer, call, content, playing, reasoning

TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather at a place",
            "parameters": {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "type": "object",
                "properties": {"place": {"type": "string"}},
                "required": ["place"],
                "additionalProperties": False,
            },
        },
    }
]
FLAT_TOOLS: Any = [{"type": "function", "strict": None, **TOOLS[0]["function"]}]
MESSAGES: Any = [{"role": "user", "content": "Is it warmer in Rome or in Bern?"}]
USAGE: Any = {"include_usage": True}

# A thought, then two calls at once; then the answer.
CALLS = answer(
    *reasoning("Two ", "places."),
    *call(0, "get_weather", '{"pla', 'ce":"Rome"}'),
    *call(1, "get_weather", '{"place":"Bern"}', given_id="functions.get_weather:1"),
)
ANSWER = answer(*content("In ", "Rome: 20 °C. 🌞"))
TEXT = "In Rome: 20 °C. 🌞"


def with_client(
    turns: Sequence[Turn], use: Callable[[OpenAI], None], *flags: str
) -> list[link.StartStream]:
    """Run ``use`` on a client whose requests these turns answer; what the agent was asked."""
    starts: list[link.StartStream] = []

    def run(url: str) -> None:
        with OpenAI(base_url=url, api_key="unused", max_retries=0) as client:
            use(client)

    async def test(running: Running) -> None:
        with Tap(running.openai) as tap:
            async with playing(running, turns) as asked:
                await asyncio.to_thread(run, tap.url)
            starts.extend(asked)

    on_balancer(test, *flags)
    return starts


def require_second_turn(start: link.StartStream, ids: Sequence[str]) -> None:
    """The calls and what they came to have reached the agent as such."""
    assert isinstance(start.job, link.ChatJob)
    _, called, *results = start.job.request.messages
    assert called.tool_calls is not None
    assert [one.id for one in called.tool_calls] == ids
    assert [json.loads(one.function.arguments) for one in called.tool_calls] == [
        {"place": "Rome"},
        {"place": "Bern"},
    ]
    assert results == [
        chat.Message(role="tool", content=text, tool_call_id=one)
        for text, one in zip(("20", "10"), ids, strict=True)
    ]


def results_of(ids: Sequence[str]) -> list[Any]:
    return [
        {"role": "tool", "tool_call_id": one, "content": text}
        for one, text in zip(ids, ("20", "10"), strict=True)
    ]


def test_a_tools_loop_of_whole_answers() -> None:
    ids: list[str] = []

    def use(client: OpenAI) -> None:
        first = client.chat.completions.create(model="m", messages=MESSAGES, tools=TOOLS)
        (choice,) = first.choices
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert choice.message.model_extra == {"reasoning_content": "Two places."}
        ids.extend(one.id for one in choice.message.tool_calls or [])
        messages = [*MESSAGES, choice.message, *results_of(ids)]
        second = client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
        assert second.choices[0].message.content == TEXT
        assert second.choices[0].finish_reason == "stop"

    _, second = with_client([CALLS, ANSWER], use)
    require_second_turn(second, ids)


def test_a_tools_loop_of_streams() -> None:
    ids: list[str] = []

    def use(client: OpenAI) -> None:
        options: Any = {"model": "m", "tools": TOOLS, "stream_options": USAGE}
        with client.chat.completions.stream(messages=MESSAGES, **options) as stream:
            arguments = [
                (event.index, event.arguments_delta)
                for event in stream
                if event.type == "tool_calls.function.arguments.delta" and event.arguments_delta
            ]
            (choice,) = stream.get_final_completion().choices
        assert arguments == [(0, '{"pla'), (0, 'ce":"Rome"}'), (1, '{"place":"Bern"}')]
        assert choice.finish_reason == "tool_calls"
        ids.extend(one.id for one in choice.message.tool_calls or [])
        messages = [*MESSAGES, choice.message.to_dict(exclude_unset=False), *results_of(ids)]
        chunks = client.chat.completions.create(messages=messages, stream=True, **options)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == TEXT

    _, second = with_client([CALLS, ANSWER], use)
    require_second_turn(second, ids)


class GetWeather(pydantic.BaseModel):
    """The weather at a place"""

    place: str


def test_a_tool_that_is_a_model_has_its_arguments_parsed() -> None:
    def use(client: OpenAI) -> None:
        parsed = client.chat.completions.parse(
            model="m",
            messages=MESSAGES,
            tools=[openai.pydantic_function_tool(GetWeather, name="get_weather")],
        )
        calls = parsed.choices[0].message.tool_calls or []
        assert [one.function.parsed_arguments for one in calls] == [
            GetWeather(place="Rome"),
            GetWeather(place="Bern"),
        ]

    (start,) = with_client([CALLS], use)
    assert isinstance(start.job, link.ChatJob)
    assert start.job.request.tools[0].function.strict


@pytest.mark.parametrize("stream", [False, True])
def test_a_tools_loop_of_responses(stream: bool) -> None:
    ids: list[str] = []

    def ask(client: OpenAI, conversation: Any) -> Any:
        options: Any = {"model": "m", "input": conversation, "tools": FLAT_TOOLS, "store": False}
        if not stream:
            return client.responses.create(**options)
        with client.responses.stream(**options) as events:
            return events.get_final_response()

    def use(client: OpenAI) -> None:
        first = ask(client, MESSAGES)
        assert [item.type for item in first.output] == [
            "reasoning",
            "function_call",
            "function_call",
        ]
        calls = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
        ids.extend(item.call_id for item in calls)
        results = [
            {"type": "function_call_output", "call_id": one, "output": text}
            for one, text in zip(ids, ("20", "10"), strict=True)
        ]
        second = ask(client, [*MESSAGES, *first.output, *results])
        assert second.output_text == TEXT

    _, second = with_client([CALLS, ANSWER], use)
    require_second_turn(second, ids)
    assert isinstance(second.job, link.ChatJob)
    assert second.job.request.messages[1].reasoning_content == "Two places."


def test_the_asynchronous_client_reads_all_of_it_too() -> None:
    async def test(running: Running) -> None:
        with Tap(running.openai) as tap:
            async with (
                playing(running, [CALLS, CALLS, ANSWER]),
                AsyncOpenAI(base_url=tap.url, api_key="unused") as client,
            ):
                whole = await client.chat.completions.create(
                    model="m", messages=MESSAGES, tools=TOOLS
                )
                async with client.chat.completions.stream(
                    model="m", messages=MESSAGES, tools=TOOLS
                ) as stream:
                    streamed = await stream.get_final_completion()
                for completion in (whole, streamed):
                    calls = completion.choices[0].message.tool_calls or []
                    assert [one.function.arguments for one in calls] == [
                        '{"place":"Rome"}',
                        '{"place":"Bern"}',
                    ]
                async with client.responses.stream(model="m", input="Hi") as events:
                    assert (await events.get_final_response()).output_text == TEXT

    on_balancer(test)


def test_reasoning_comes_before_the_answer_in_its_own_field() -> None:
    turn = answer(*reasoning("Hm", "."), *content("Yes"))

    def use(client: OpenAI) -> None:
        chunks = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        deltas = [chunk.choices[0].delta.model_dump(exclude_none=True) for chunk in chunks]
        assert [delta for delta in deltas if "role" not in delta] == [
            {"reasoning_content": "Hm"},
            {"reasoning_content": "."},
            {"content": "Yes"},
            {},
        ]
        with client.responses.stream(model="m", input="Hi") as events:
            thought = "".join(
                event.delta for event in events if event.type == "response.reasoning_text.delta"
            )
        assert thought == "Hm."

    with_client([turn, turn], use)


@pytest.mark.parametrize("stream", [False, True])
def test_calls_that_met_the_limit_are_incomplete(stream: bool) -> None:
    cut = answer(*call(0, "get_weather", '{"pla'), reason="length")

    def use(client: OpenAI) -> None:
        options: Any = {"model": "m", "tools": FLAT_TOOLS, "input": "Hi"}
        if stream:
            *_, last = client.responses.create(**options, stream=True)
            assert last.type == "response.incomplete"
            response = last.response
        else:
            response = client.responses.create(**options)
        (item,) = response.output
        assert response.status == item.status == "incomplete"

    with_client([cut], use)
