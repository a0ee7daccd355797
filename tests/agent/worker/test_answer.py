import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.agent.worker.answer import Answer, Telling, escape
from paddler.agent.worker.markers import ModelFormat
from paddler.agent.worker.sections import Markers
from paddler.agent.worker.tool_calls.schemas import failed_checks
from paddler.messages.inference import Tool, ToolFunction, ToolParameters
from paddler.messages.link import FrameKind

QWEN = ModelFormat(
    Markers(
        reasoning=("<think>",),
        tool_calls=("<tool_call>",),
        closings=("</think>", "</tool_call>"),
        turn_starts=("<|im_start|>assistant\n",),
    )
)
PROMPT = "<|im_start|>assistant\n"
WEATHER = Tool(
    ToolFunction(
        "get_weather",
        "",
        ToolParameters(type="object", properties={"days": {"type": "integer"}}),
    )
)
CALL = '<tool_call>{"name": "get_weather", "arguments": {"days": %s}}</tool_call>'


def told(answer: Answer, *pieces: str) -> list[Telling]:
    return [telling for piece in pieces for telling in answer.feed(piece.encode())]


def texts(tellings: list[Telling]) -> dict[FrameKind, str]:
    joined: dict[FrameKind, str] = {}
    for kind, payload in tellings:
        if kind is not FrameKind.RESULT:
            joined[kind] = joined.get(kind, "") + json.loads(b'"' + payload + b'"')
    return joined


def results(tellings: list[Telling]) -> list[Any]:
    return [json.loads(payload) for kind, payload in tellings if kind is FrameKind.RESULT]


def test_a_model_without_markers_says_nothing_of_sections() -> None:
    answer = Answer(ModelFormat(), "Once")
    tellings = told(answer, "a <think>", "b") + answer.finish()
    assert texts(tellings) == {FrameKind.UNDETERMINABLE: "a <think>b"}
    usage = answer.usage(prompt_tokens=4, cached_prompt_tokens=1, input_image_tokens=2)
    assert msgspec.to_builtins(usage) == {
        "prompt_tokens": 4,
        "cached_prompt_tokens": 1,
        "input_image_tokens": 2,
        "input_audio_tokens": 0,
        "content_tokens": 0,
        "reasoning_tokens": 0,
        "tool_call_tokens": 0,
        "undeterminable_tokens": 2,
    }


def test_sections_are_told_apart_without_their_markers() -> None:
    answer = Answer(QWEN, PROMPT)
    tellings = told(answer, "<think>", "hm", "</think>", "Hi", "!") + answer.finish()
    assert texts(tellings) == {FrameKind.REASONING: "hm", FrameKind.CONTENT: "Hi!"}
    usage = answer.usage(prompt_tokens=1, cached_prompt_tokens=0)
    assert (usage.reasoning_tokens, usage.content_tokens) == (3, 2)
    assert usage.completion_tokens == 5


def test_the_token_that_ends_an_answer_counts() -> None:
    answer = Answer(QWEN, PROMPT + "<think>\n\n</think>\n\n")
    assert texts(told(answer, "Hi", "")) == {FrameKind.CONTENT: "Hi"}
    assert answer.limited_tokens == answer.tokens == 2


def test_held_text_is_told_at_the_end() -> None:
    answer = Answer(QWEN, PROMPT + "<think>\n\n</think>\n\n")
    held = told(answer, "a <thi")
    assert texts(held + answer.stop())[FrameKind.CONTENT] == "a <thi"
    cut = Answer(ModelFormat(), "")
    assert cut.feed("€".encode()[:2]) == []
    assert texts(cut.finish()) == {FrameKind.UNDETERMINABLE: "\ufffd"}


def test_calls_are_parsed_and_told_at_the_end() -> None:
    answer = Answer(QWEN, PROMPT, tools=[WEATHER], check_calls=failed_checks)
    tellings = told(answer, CALL % 1, "\n", CALL % 2)
    assert results(tellings) == []
    assert FrameKind.TOOL_CALL in texts(tellings)
    assert results(answer.finish()) == [
        {
            "ToolCallParsed": [
                {
                    "id": f"call_{index}",
                    "name": "get_weather",
                    "arguments": {"ValidJson": {"days": index + 1}},
                }
                for index in range(2)
            ]
        }
    ]
    assert answer.limited_tokens < answer.tokens


@pytest.mark.parametrize(
    ("text", "variant", "expected"),
    [
        (
            CALL % '"two"',
            "ToolCallValidationFailed",
            ["arguments for tool \"get_weather\" failed schema check: 'two' is not of type"],
        ),
        (
            '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
            "ToolCallValidationFailed",
            ['unknown tool name "other"'],
        ),
        ("<tool_call>no call at all</tool_call>", "UnrecognizedToolCallFormat", ["at all"]),
    ],
)
def test_calls_that_are_wrong_are_told_by_name(
    text: str, variant: str, expected: list[str]
) -> None:
    answer = Answer(QWEN, PROMPT, tools=[WEATHER], check_calls=failed_checks)
    told(answer, text)
    (result,) = results(answer.finish())
    assert list(result) == [variant]
    for part in expected:
        assert part in json.dumps(result[variant]).replace('\\"', '"')


def test_calls_are_not_parsed_unless_asked_for_nor_after_a_stop() -> None:
    shown = Answer(QWEN, PROMPT, tools=[WEATHER])
    told(shown, CALL % 1)
    assert results(shown.finish()) == []
    stopped = Answer(QWEN, PROMPT, tools=[WEATHER], check_calls=failed_checks)
    told(stopped, CALL % 1)
    assert results(stopped.stop()) == []


@pytest.mark.parametrize(
    ("text", "payload"),
    [('say "hi"', rb"say \"hi\""), ("a\nb\\c", rb"a\nb\\c"), ("\0", rb"\u0000")],
)
def test_text_is_escaped_for_a_json_string(text: str, payload: bytes) -> None:
    assert escape(text) == payload


@given(cuts=st.lists(st.integers(0, 200), max_size=12))
def test_an_answer_is_the_same_however_tokens_cut_it(cuts: list[int]) -> None:
    data = f"<think>hm €</think>Well: {CALL % 3}".encode()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    answer = Answer(QWEN, PROMPT, tools=[WEATHER], check_calls=failed_checks)
    tellings = [
        t for begin, end in itertools.pairwise(bounds) for t in answer.feed(data[begin:end])
    ]
    tellings += answer.finish()
    assert texts(tellings) == {
        FrameKind.REASONING: "hm €",
        FrameKind.CONTENT: "Well: ",
        FrameKind.TOOL_CALL: CALL.removeprefix("<tool_call>").removesuffix("</tool_call>") % 3,
    }
    assert list(results(tellings)[0]) == ["ToolCallParsed"]
