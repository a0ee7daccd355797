"""The OpenAI-compatible service on a real fleet, through OpenAI's own Python client.

Every answer passes a tap that holds it against what OpenAI publishes.
"""

import asyncio
import json
import math
import secrets
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.clients.openai_tap import Tap
from tests.e2e.fleet import Fleet, request, wait_until

MODEL = "SmolLM2-135M-Instruct.Q4_1"
MESSAGES: Any = [{"role": "user", "content": "What is the capital of France?"}]
STORY: Any = [{"role": "user", "content": "Write a long story about the sea."}]
GREEDY: dict[str, Any] = {"model": "any", "temperature": 0}
USAGE: Any = {"include_usage": True}


@pytest.fixture
def client(tap: Tap) -> Iterator[OpenAI]:
    with OpenAI(base_url=tap.url, api_key="unused", max_retries=0) as client:
        yield client


def text_of(client: OpenAI, **changes: Any) -> str:
    """The text of one answer."""
    options = GREEDY | {"messages": STORY, "max_tokens": 24} | changes
    content = client.chat.completions.create(**options).choices[0].message.content
    assert content
    return str(content)


def cache(client: OpenAI, messages: Any = STORY) -> None:
    """Have the prompt cached: from here on, it is decoded alike each time.

    The seed has an idle fleet forget all else: what is decoded next lies behind the prompt, and
    not in gaps before it, where sums over it would come in another order.
    """
    text_of(client, messages=messages, max_tokens=1, seed=7)


# --- chat -----------------------------------------------------------------------------------------


def test_a_chat_is_answered_whole(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="any", messages=MESSAGES, max_tokens=24)
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "any"
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_chat_is_streamed_as_it_is_answered_whole(client: OpenAI) -> None:
    cache(client, MESSAGES)
    options = GREEDY | {"messages": MESSAGES, "max_tokens": 24}
    whole = client.chat.completions.create(**options)
    *chunks, last = client.chat.completions.create(**options, stream=True, stream_options=USAGE)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_the_clients_own_reading_of_a_stream_comes_to_the_same(client: OpenAI) -> None:
    cache(client, MESSAGES)
    with client.chat.completions.stream(
        **GREEDY, messages=MESSAGES, max_tokens=40, stop=".", stream_options=USAGE
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds[-1] == "chunk"
    assert "content.done" in kinds
    assert final.choices[0].message.content == text_of(
        client, messages=MESSAGES, max_tokens=40, stop="."
    )


def test_the_limit_is_told_as_length(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="any", messages=STORY, max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_a_prompt_that_was_seen_is_cached(client: OpenAI) -> None:
    def cached() -> int | None:
        answer = client.chat.completions.create(model="any", messages=STORY, max_tokens=1)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens

    cached()
    assert (cached() or 0) > 20


# --- what requests ask for acts -------------------------------------------------------------------


def test_the_same_seed_gives_the_same_text_and_another_seed_another(client: OpenAI) -> None:
    def text(seed: int) -> str:
        return text_of(client, temperature=1.0, seed=seed)

    assert text(7) == text(7)
    assert len({text(seed) for seed in (7, 8, 9)}) > 1


@pytest.mark.parametrize("words", [1, 100])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_seeded_answer_does_not_depend_on_what_was_asked_before(
    client: OpenAI, temperature: float, words: int
) -> None:
    subject = f"{secrets.token_hex(8)} {'of the sea' * words}"
    story: Any = [{"role": "user", "content": f"A story of {subject}, please."}]
    options: dict[str, Any] = {"messages": story, "temperature": temperature, "seed": 11}
    first = text_of(client, **options)
    for messages in (story, STORY, [*story, {"role": "assistant", "content": first}, *STORY]):
        text_of(client, messages=messages, max_tokens=1)
        assert text_of(client, **options) == first


def test_without_a_temperature_the_seed_does_not_matter(client: OpenAI) -> None:
    assert len({text_of(client, seed=seed) for seed in (1, 2, 3)}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_cuts_exactly_also_across_tokens(client: OpenAI, stream: bool) -> None:
    cache(client)
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(
            **GREEDY, messages=STORY, max_tokens=24, stream=True
        )
        if chunk.choices
    ]
    whole = "".join(pieces)
    middle = len("".join(pieces[:12]))
    stop = whole[middle - 2 : middle + 2]  # the end of one token and the beginning of the next
    options = GREEDY | {"messages": STORY, "max_tokens": 24, "stop": ["never", stop]}
    if stream:
        chunks = list(client.chat.completions.create(**options, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        reason = chunks[-1].choices[0].finish_reason
    else:
        (choice,) = client.chat.completions.create(**options).choices
        text, reason = choice.message.content, choice.finish_reason
    assert text == whole[: whole.index(stop)]
    assert reason == "stop"


@pytest.mark.parametrize(("count", "stream"), [(3, False), (6, True)])
def test_n_gives_as_many_answers_also_beyond_the_slots(
    client: OpenAI, count: int, stream: bool
) -> None:
    options: dict[str, Any] = {"model": "any", "messages": STORY, "max_tokens": 12}
    options |= {"n": count, "seed": 5, "temperature": 1.0}
    if stream:
        texts = [""] * count
        for chunk in client.chat.completions.create(**options, stream=True):
            (choice,) = chunk.choices
            texts[choice.index] += choice.delta.content or ""
    else:
        answer = client.chat.completions.create(**options)
        assert [choice.index for choice in answer.choices] == [*range(count)]
        texts = [choice.message.content for choice in answer.choices]
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 12 * count
    assert all(texts)
    assert len(set(texts)) > 1


PARIS_ID = 38634  # SmolLM2's token "Paris"


def test_a_bias_makes_a_token_certain_or_impossible(client: OpenAI) -> None:
    certain = text_of(client, max_tokens=3, logit_bias={PARIS_ID: 100})
    assert certain == "ParisParisParis"
    impossible = text_of(
        client,
        messages=[{"role": "user", "content": "Paris Paris Paris Paris Paris"}],
        logit_bias={PARIS_ID: -100},
    )
    assert "Paris" not in impossible.split()[:1]


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_tell_of_each_token(client: OpenAI, stream: bool) -> None:
    options = GREEDY | {"messages": MESSAGES, "max_tokens": 8, "logprobs": True, "top_logprobs": 3}
    scores: list[Any] = []
    if stream:
        text = ""
        for chunk in client.chat.completions.create(**options, stream=True):
            (choice,) = chunk.choices
            text += choice.delta.content or ""
            scores += (choice.logprobs.content or []) if choice.logprobs else []
    else:
        (whole,) = client.chat.completions.create(**options).choices
        text = whole.message.content or ""
        assert whole.logprobs is not None
        scores += whole.logprobs.content or []
    assert bytes(byte for score in scores for byte in score.bytes).decode() == text
    assert len(scores) == 8
    for score in scores:
        likeliest = score.top_logprobs
        assert len(likeliest) == 3
        assert 0 >= likeliest[0].logprob >= likeliest[1].logprob >= likeliest[2].logprob
        assert sum(math.exp(one.logprob) for one in likeliest) <= 1
        # The model's own word: what penalties make of it is seen in what is drawn.
        told = {one.token: one.logprob for one in likeliest}
        assert told.get(score.token, score.logprob) == score.logprob <= likeliest[0].logprob


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_a_response_tell_of_each_token(client: OpenAI, stream: bool) -> None:
    options: dict[str, Any] = GREEDY | {"input": "Say hello.", "max_output_tokens": 8}
    options |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    told: list[Any] = []
    if stream:
        *events, last = client.responses.create(**options, stream=True)
        assert last.type == "response.incomplete"
        response = last.response
        for event in events:
            if event.type == "response.output_text.delta":
                assert "".join(score.token for score in event.logprobs) == event.delta
                told += event.logprobs
    else:
        response = client.responses.create(**options)
    (part,) = response.output[0].content
    scores = part.logprobs
    assert "".join(score.token for score in scores) == part.text
    assert [len(score.top_logprobs) for score in scores] == [2] * 8
    assert all(score.logprob <= score.top_logprobs[0].logprob <= 0 for score in scores)
    if stream:
        assert [one.logprob for one in told] == [one.logprob for one in scores]


def test_log_probabilities_of_a_prompts_continuation_are_parallel_lists(client: OpenAI) -> None:
    (choice,) = client.completions.create(
        **GREEDY, prompt="One, two, three,", max_tokens=4, logprobs=2
    ).choices
    assert choice.logprobs is not None
    assert "".join(choice.logprobs.tokens or []) == choice.text
    assert [len(likeliest) for likeliest in choice.logprobs.top_logprobs or []] == [2] * 4
    assert choice.logprobs.text_offset == [
        len("".join((choice.logprobs.tokens or [])[:index])) for index in range(4)
    ]


PLACES: Any = {
    "type": "object",
    "properties": {"place": {"type": "string", "enum": ["Rome", "Bern"]}},
    "required": ["place"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": PLACES}}
    for name in ("get_weather", "get_time")
]


STRICT_TOOLS: Any = [
    {"type": "function", "function": {**tool["function"], "strict": True}} for tool in TOOLS
]


def required(*names: str) -> dict[str, Any]:
    tools = [tool for tool in TOOLS if tool["function"]["name"] in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}}


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"get_weather", "get_time"}),
        ({"type": "function", "function": {"name": "get_time"}}, {"get_time"}),
        (required("get_weather"), {"get_weather"}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_demanded_comes(
    client: OpenAI, choice: Any, names: set[str], stream: bool
) -> None:
    options: dict[str, Any] = {"model": "any", "messages": MESSAGES, "tools": TOOLS}
    options |= {"tool_choice": choice, "parallel_tool_calls": False, "max_completion_tokens": 100}
    if stream:
        with client.chat.completions.stream(**options) as events:
            (answer,) = events.get_final_completion().choices
    else:
        (answer,) = client.chat.completions.create(**options).choices
    assert answer.finish_reason == "tool_calls"
    (call,) = answer.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name in names
    assert json.loads(call.function.arguments)["place"] in ("Rome", "Bern")


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_calls_what_it_must(client: OpenAI, stream: bool) -> None:
    options: dict[str, Any] = {"model": "any", "input": "Hello.", "max_output_tokens": 100}
    options |= {"tools": [{"type": "function", "strict": True, **TOOLS[0]["function"]}]}
    options |= {"tool_choice": "required", "parallel_tool_calls": False}
    if stream:
        with client.responses.stream(**options) as events:
            response: Any = events.get_final_response()
    else:
        response = client.responses.create(**options)
    (call,) = response.output
    assert (call.type, call.name) == ("function_call", "get_weather")
    assert json.loads(call.arguments)["place"] in ("Rome", "Bern")


class Capital(pydantic.BaseModel):
    city: Literal["Paris", "Rome", "Bern"]
    is_in_europe: bool


def test_an_answer_is_parsed_into_a_model(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="any", messages=MESSAGES, max_tokens=60, response_format=Capital
    )
    assert isinstance(answer.choices[0].message.parsed, Capital)


def test_a_streamed_answer_is_parsed_into_a_model(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="any", messages=MESSAGES, max_tokens=60, response_format=Capital
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Capital)


# Tokens of SmolLM2: an object's beginning with a quote, "name", "city"
OBJECT_ID, NAME_ID, CITY_ID = 39428, 1245, 20721


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("calls", [False, True])
def test_an_answer_may_call_a_tool_or_be_as_its_schema_says(
    client: OpenAI, stream: bool, calls: bool
) -> None:
    # Both are JSON here, and their first key tells one from the other.
    options: dict[str, Any] = {"model": "any", "messages": MESSAGES, "max_tokens": 100}
    options |= {"tools": STRICT_TOOLS, "response_format": Capital, "parallel_tool_calls": False}
    options |= {"logit_bias": {OBJECT_ID: 100, NAME_ID if calls else CITY_ID: 100}}
    if stream:
        with client.chat.completions.stream(**options) as events:
            (answer,) = events.get_final_completion().choices
    else:
        (answer,) = client.chat.completions.parse(**options).choices
    if calls:
        assert answer.finish_reason == "tool_calls"
        (call,) = answer.message.tool_calls or []
        assert call.function.parsed_arguments["place"] in ("Rome", "Bern")
        assert not answer.message.content
    else:
        assert answer.finish_reason == "stop"
        assert isinstance(answer.message.parsed, Capital)
        assert not answer.message.tool_calls


def test_any_json_object_is_an_object(client: OpenAI) -> None:
    (choice,) = client.chat.completions.create(
        **GREEDY,
        messages=[{"role": "user", "content": "Reply with the JSON object {}"}],
        max_tokens=200,
        response_format={"type": "json_object"},
        stop=["\n\n\n"],
    ).choices
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content or ""), dict)
    assert (choice.message.content or "").lstrip().startswith("{")


# --- the other endpoints --------------------------------------------------------------------------


def test_a_response_is_answered_whole_and_streamed_alike(client: OpenAI) -> None:
    options: dict[str, Any] = GREEDY | {"input": "Say hello.", "instructions": "Be brief."}
    cache(client)
    client.responses.create(**options, max_output_tokens=1)  # the prompt is cached
    whole = client.responses.create(**options)
    assert whole.status == "completed"
    assert whole.output_text
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    events = list(client.responses.create(**options, stream=True))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text


def test_a_response_is_parsed_into_a_model(client: OpenAI) -> None:
    parsed = client.responses.parse(
        model="any", input="The capital of France?", max_output_tokens=60, text_format=Capital
    )
    assert isinstance(parsed.output_parsed, Capital)
    with client.responses.stream(
        model="any", input="The capital of France?", max_output_tokens=60, text_format=Capital
    ) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Capital)


def test_a_response_that_met_its_limit_is_incomplete(client: OpenAI) -> None:
    cut = client.responses.create(model="any", input="Write a story.", max_output_tokens=3)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_a_response_goes_on_from_its_own_output(client: OpenAI) -> None:
    first = client.responses.create(model="any", input="Hello.", max_output_tokens=4)
    conversation: Any = [{"role": "user", "content": "Hello."}, *first.output]
    conversation.append({"role": "user", "content": "And then?"})
    second = client.responses.create(model="any", input=conversation, max_output_tokens=4)
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens


def test_a_prompt_is_completed(client: OpenAI) -> None:
    options: dict[str, Any] = GREEDY | {
        "prompt": "One, two, three,", "max_tokens": 6, "seed": 7
    }  # fmt: skip
    whole = client.completions.create(**options, echo=True)
    text = "".join(chunk.choices[0].text for chunk in client.completions.create(
        **options, stream=True
    ))  # fmt: skip
    assert whole.choices[0].text == f"One, two, three,{text}"
    several = client.completions.create(
        model="any", prompt=["The sun", "The moon"], n=2, max_tokens=3
    )
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert all(choice.finish_reason == "length" for choice in several.choices)


def test_the_model_is_listed(client: OpenAI) -> None:
    (model,) = client.models.list()
    assert model.id == MODEL
    assert client.models.retrieve(MODEL) == model
    with pytest.raises(openai.NotFoundError, match="the fleet runs: SmolLM2") as caught:
        client.models.retrieve("gpt-4o")
    assert caught.value.code == "model_not_found"


# --- clients that leave ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_a_client_that_leaves_amid_a_stream_frees_its_slots(
    fleet: Fleet, client: OpenAI, count: int
) -> None:
    stream = client.chat.completions.create(
        model="any", messages=STORY, max_tokens=2000, n=count, stream=True
    )
    next(iter(stream))
    wait_until(lambda: fleet.slots_busy() == count, "the answers run")
    stream.close()
    fleet.wait_idle()


def test_a_client_that_gives_up_frees_its_slots(fleet: Fleet, tap: Tap) -> None:
    async def give_up() -> None:
        async with AsyncOpenAI(base_url=tap.url, api_key="unused") as client:
            asked = asyncio.create_task(
                client.chat.completions.create(model="any", messages=STORY, max_tokens=2000, n=2)
            )
            await asyncio.to_thread(wait_until, lambda: fleet.slots_busy() == 2, "answers run")
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            await client.models.list()

    asyncio.run(give_up())
    fleet.wait_idle()


def test_many_at_once_are_each_answered(tap: Tap) -> None:
    async def ask_all() -> list[str]:
        async with AsyncOpenAI(base_url=tap.url, api_key="unused") as client:

            async def whole(number: int) -> str:
                answer = await client.chat.completions.create(
                    **GREEDY, messages=[{"role": "user", "content": f"Say {number}"}], max_tokens=8
                )
                return answer.choices[0].message.content or ""

            async def streamed(number: int) -> str:
                stream = await client.responses.create(
                    **GREEDY, input=f"Say {number}", max_output_tokens=8, stream=True
                )
                return "".join(
                    [e.delta async for e in stream if e.type == "response.output_text.delta"]
                )

            return await asyncio.gather(
                *(whole(number) for number in range(4)), *(streamed(number) for number in range(4))
            )

    assert all(asyncio.run(ask_all()))


# --- refusals -------------------------------------------------------------------------------------

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


@pytest.mark.parametrize(
    ("changes", "param", "text"),
    [
        ({"temperature": 3}, "temperature", "temperature is 3.0; it must be between 0 and 2"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages", "decode images"),
        (
            {"messages": [{"role": "user", "content": [IMAGE | {"image_url": {"url": PIXEL}}]}]},
            "messages",
            "does not support multimodal input",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "bogus"}},
                }
            },
            "response_format",
            "grammar",
        ),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "parameters": {"properties": {"a": 5}}},
                    }
                ]
            },
            "tools",
            "not a valid JSON Schema",
        ),
    ],
)
def test_what_cannot_be_is_a_bad_request_that_names_the_field(
    client: OpenAI, changes: dict[str, Any], param: str, text: str
) -> None:
    options = {"model": "any", "messages": MESSAGES, "max_tokens": 4} | changes
    with pytest.raises(openai.BadRequestError, match=text) as caught:
        client.chat.completions.create(**options)
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")


def test_a_prompt_that_is_longer_than_the_context_is_told_as_openai_does(client: OpenAI) -> None:
    long: Any = [{"role": "user", "content": "a b c d " * 2000}]
    with pytest.raises(openai.BadRequestError, match="the context 4096") as caught:
        client.chat.completions.create(model="any", messages=long)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


def test_a_body_beyond_the_limit_is_told_before_it_was_read(fleet: Fleet) -> None:
    url = f"http://127.0.0.1:{fleet.openai}/v1"
    large: Any = [{"role": "user", "content": "a" * (65 << 20)}]
    with (
        OpenAI(base_url=url, api_key="unused", max_retries=0) as client,
        pytest.raises(openai.APIStatusError, match="larger than allowed") as caught,
    ):
        client.chat.completions.create(model="any", messages=large)
    assert caught.value.status_code == 413


def test_an_unknown_path_is_an_error_that_the_client_knows(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.get("/nothing", cast_to=object)


def test_a_wrong_method_is_told_as_json(fleet: Fleet) -> None:
    status, body = request(fleet.openai, "GET", "/v1/chat/completions")
    assert status == 405
    assert body.startswith(b'{"error":{"message":')
