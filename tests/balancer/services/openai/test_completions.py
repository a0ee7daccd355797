"""Text completions on a real balancer."""

import asyncio
import json
import re
from typing import Any

import msgspec
import pytest

from paddler.balancer.services.openai.completions import plan_of
from paddler.balancer.services.openai.errors import ParameterError
from paddler.messages import link as wire
from paddler.messages.link import FrameKind, RawPromptJob
from paddler.messages.openai.completions import CompletionRequest
from tests.balancer.services.openai.test_chat import SCORED, events_of
from tests.balancer.services.running import Agent, Running, on_balancer

PATH = "/v1/completions"
SMALLEST: dict[str, Any] = {"model": "m", "prompt": "Once"}


async def answer(agent: Agent, *texts: bytes) -> list[wire.StartStream]:
    """Answer a request for each text."""
    starts = [await agent.hear_start() for _ in texts]
    for start, text in zip(starts, texts, strict=True):
        agent.say(start.stream_id, FrameKind.UNDETERMINABLE, text)
        agent.finish(start.stream_id, "length")
    return starts


def prompt_of(start: wire.StartStream) -> str:
    assert isinstance(start.job, RawPromptJob)
    return start.job.request.raw_prompt


@pytest.mark.parametrize(("echo", "text"), [(False, " upon"), (True, "Once upon")])
@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_is_continued(stream: bool, echo: bool, text: str) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        body = SMALLEST | {"stream": stream, "echo": echo, "stop": "."}
        asked = asyncio.create_task(running.post(running.openai, PATH, body))
        (start,) = await answer(agent, b" upon")
        assert start.job == RawPromptJob(
            wire.ContinueFromRawPrompt(raw_prompt="Once", max_tokens=16)
        )
        assert start.delivery.stop == (".",)
        told = await asked
        objects = events_of(told) if stream else [json.loads(told.body)]
        assert all(one["object"] == "text_completion" for one in objects)
        choices = [choice for one in objects for choice in one["choices"]]
        assert "".join(choice["text"] for choice in choices) == text
        assert choices[-1]["finish_reason"] == "length"

    on_balancer(test)


def test_several_prompts_have_as_many_choices_each() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running, slots=4)
        body = SMALLEST | {"prompt": ["a", "b"], "n": 2}
        asked = asyncio.create_task(running.post(running.openai, PATH, body))
        starts = await answer(agent, b"0", b"1", b"2", b"3")
        assert sorted(map(prompt_of, starts)) == ["a", "a", "b", "b"]
        completion = json.loads((await asked).body)
        by_index = {choice["index"]: choice["text"] for choice in completion["choices"]}
        assert sorted(by_index) == [0, 1, 2, 3]
        prompts = {text: prompt_of(start) for text, start in zip("0123", starts, strict=True)}
        assert [prompts[by_index[index]] for index in range(4)] == ["a", "a", "b", "b"]
        # Each prompt counts once.
        assert completion["usage"]["prompt_tokens"] == 10
        assert completion["usage"]["completion_tokens"] == 12

    on_balancer(test)


@pytest.mark.parametrize("stream", [True, False])
def test_log_probabilities_are_parallel_lists(stream: bool) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        body = SMALLEST | {"logprobs": 1, "stream": stream}
        asked = asyncio.create_task(running.post(running.openai, PATH, body))
        start = await agent.hear_start()
        for _ in range(2):
            agent.say(start.stream_id, FrameKind.SCORED, wire.encode(SCORED))
        agent.finish(start.stream_id)
        told = await asked
        if stream:
            choices = [event["choices"][0] for event in events_of(told)][:2]
            offsets = [choice["logprobs"]["text_offset"] for choice in choices]
            assert offsets == [[0], [2]]
        else:
            (choice,) = json.loads(told.body)["choices"]
            assert choice["logprobs"] == {
                "tokens": ["Hi", "Hi"],
                "token_logprobs": [-0.5, -0.5],
                "top_logprobs": [{"Ho": -1.5}, {"Ho": -1.5}],
                "text_offset": [0, 2],
            }

    on_balancer(test)


@pytest.mark.parametrize(
    ("changes", "param", "text"),
    [
        ({"suffix": "end"}, "suffix", "suffix is not supported"),
        ({"best_of": 2}, "best_of", "best_of beyond n"),
        ({"logprobs": 6}, "logprobs", "logprobs is 6; it must be between 0 and 5"),
        ({"echo": True, "logprobs": 1}, "echo", "prompts are not scored"),
        ({"prompt": [1, 2]}, "prompt", "prompt has token ids"),
        ({"prompt": [[1]]}, "prompt", "prompt has token ids"),
        ({"prompt": []}, "prompt", "prompt is an empty list"),
        ({"prompt": ["a", "b"], "n": 65}, "n", "n times the number of prompts is 130"),
    ],
)
def test_what_is_not_served_is_refused_by_name(
    changes: dict[str, Any], param: str, text: str
) -> None:
    with pytest.raises(ParameterError, match=re.escape(text)) as caught:
        plan_of(msgspec.convert(SMALLEST | changes, CompletionRequest))
    assert caught.value.param == param


def test_a_failure_has_its_status() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.openai, PATH, SMALLEST))
        agent.fail((await agent.hear_start()).stream_id, {"SamplerError": "no"})
        assert (await asked).status == 500

    on_balancer(test)
