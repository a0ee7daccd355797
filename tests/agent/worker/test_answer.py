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
from paddler.messages.chat import Function, Tool
from paddler.messages.link import CallDelta, Delivery, FrameKind, ScoredToken, TokenScore

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
    Function("get_weather", "", {"type": "object", "properties": {"days": {"type": "integer"}}})
)
CALL = '<tool_call>{"name": "get_weather", "arguments": {"days": %s}}</tool_call>'


def told(answer: Answer, *pieces: str) -> list[Telling]:
    return [telling for piece in pieces for telling in answer.feed(piece.encode())]


def end(answer: Answer) -> list[Telling]:
    """What the end of an answer tells, its calls checked."""
    tellings = answer.finish()
    if answer.calls:
        tellings.append(answer.conclude(failed_checks(answer.calls, answer.tools)))
    return tellings


def texts(tellings: list[Telling]) -> dict[FrameKind, str]:
    joined: dict[FrameKind, str] = {}
    for kind, payload in tellings:
        if kind not in (FrameKind.RESULT, FrameKind.CALL):
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
    answer = Answer(QWEN, PROMPT, tools=[WEATHER], parses_calls=True)
    tellings = told(answer, CALL % 1, "\n", CALL % 2)
    assert results(tellings) == []
    assert FrameKind.TOOL_CALL in texts(tellings)
    assert results(end(answer)) == [
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
    answer = Answer(QWEN, PROMPT, tools=[WEATHER], parses_calls=True)
    told(answer, text)
    (result,) = results(end(answer))
    assert list(result) == [variant]
    for part in expected:
        assert part in json.dumps(result[variant]).replace('\\"', '"')


def test_calls_are_not_parsed_unless_asked_for_nor_after_a_stop() -> None:
    shown = Answer(QWEN, PROMPT, tools=[WEATHER])
    told(shown, CALL % 1)
    assert results(end(shown)) == []
    stopped = Answer(QWEN, PROMPT, tools=[WEATHER], parses_calls=True)
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
    answer = Answer(QWEN, PROMPT, tools=[WEATHER], parses_calls=True)
    tellings = [
        t for begin, end in itertools.pairwise(bounds) for t in answer.feed(data[begin:end])
    ]
    tellings += end(answer)
    assert texts(tellings) == {
        FrameKind.REASONING: "hm €",
        FrameKind.CONTENT: "Well: ",
        FrameKind.TOOL_CALL: CALL.removeprefix("<tool_call>").removesuffix("</tool_call>") % 3,
    }
    assert list(results(tellings)[0]) == ["ToolCallParsed"]


# --- for services that want more ----------------------------------------------------------------


def deltas(tellings: list[Telling]) -> list[CallDelta]:
    return [
        msgspec.json.decode(payload, type=CallDelta)
        for kind, payload in tellings
        if kind is FrameKind.CALL
    ]


def calling(**delivery: Any) -> Answer:
    delivered = Delivery(call_deltas=True, **delivery)
    return Answer(QWEN, PROMPT, tools=[WEATHER], parses_calls=True, delivery=delivered)


@given(cuts=st.lists(st.integers(0, 300), max_size=20))
def test_calls_are_told_while_they_are_generated(cuts: list[int]) -> None:
    data = f"{CALL % 12}\n{CALL % 34}".encode()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    answer = calling()
    tellings = [
        t for begin, stop in itertools.pairwise(bounds) for t in answer.feed(data[begin:stop])
    ]
    tellings += answer.finish()
    told_calls = deltas(tellings)
    for index, days in enumerate(("12", "34")):
        first, *more = [delta for delta in told_calls if delta.index == index]
        assert first == CallDelta(index, name="get_weather")
        assert "".join(delta.arguments for delta in more) == f'{{"days": {days}}}'


@pytest.mark.parametrize(
    ("pieces", "content"),
    [
        (["\n", "\n ", CALL % 1, "\n", CALL % 2, "\n"], "\n"),
        (["Well", ":", " ", "\n", CALL % 1], "Well:"),
        (["\n", "Well", " ", "so", " "], "\nWell so "),
        (["  "], "  "),
    ],
)
def test_white_space_before_a_call_is_no_content(pieces: list[str], content: str) -> None:
    answer = calling()
    tellings = [*told(answer, *pieces), *end(answer)]
    said = texts(tellings)
    assert said.get(FrameKind.UNDETERMINABLE, "") + said.get(FrameKind.CONTENT, "") == content


def test_a_call_is_told_before_it_is_complete() -> None:
    answer = calling()
    begun = told(answer, '<tool_call>{"name": "get_weather", "arguments": {"days"')
    assert deltas(begun) == [
        CallDelta(0, name="get_weather"),
        CallDelta(0, arguments='{"days"'),
    ]


@pytest.mark.parametrize(("limits_calls", "limited"), [(False, 0), (True, 3)])
def test_the_tokens_of_calls_are_limited_if_asked_for(limits_calls: bool, limited: int) -> None:
    answer = calling(limits_calls=limits_calls)
    told(answer, "<tool_call>", "{", '"name"')
    assert (answer.tokens, answer.limited_tokens) == (3, limited)


def test_an_answer_ends_before_one_call_too_many() -> None:
    answer = calling(max_calls=1)
    tellings = told(answer, CALL % 1, "\n")
    assert not answer.has_stopped
    tellings += told(answer, CALL % 2)
    assert answer.has_stopped
    tellings += end(answer)
    assert {delta.index for delta in deltas(tellings)} == {0}
    (result,) = results(tellings)
    assert len(result["ToolCallParsed"]) == 1


@pytest.mark.parametrize(
    ("pieces", "content", "has_stopped"),
    [
        (["a", "b", "STOP", "c"], "ab", True),
        (["abST", "OP"], "ab", True),
        (["abSTO"], "abSTO", False),
        (["abSTx"], "abSTx", False),
        (["SSTOP more"], "S", True),
        (["aEND then STOP"], "a", True),
        (["STOP"], "", True),
    ],
)
def test_a_stop_text_ends_the_content_and_is_no_part_of_it(
    pieces: list[str], content: str, has_stopped: bool
) -> None:
    answer = Answer(ModelFormat(), "", delivery=Delivery(stop=("STOP", "END")))
    tellings = told(answer, *pieces)
    assert answer.has_stopped is has_stopped
    tellings += answer.finish()
    assert (
        texts(tellings).get(FrameKind.UNDETERMINABLE, "")
        + texts(tellings).get(FrameKind.CONTENT, "")
        == content
    )


def test_a_stop_text_in_reasoning_ends_nothing() -> None:
    answer = Answer(QWEN, PROMPT, delivery=Delivery(stop=("STOP",)))
    tellings = told(answer, "<think>", "STOP", "</think>", "yes STOP no") + answer.finish()
    assert texts(tellings) == {FrameKind.REASONING: "STOP", FrameKind.CONTENT: "yes "}


def score(text: str) -> TokenScore:
    return TokenScore(ScoredToken(text, list(text.encode()), -0.5), [])


def scored_texts(tellings: list[Telling]) -> list[tuple[str, list[str]]]:
    scored = [json.loads(payload) for kind, payload in tellings if kind is FrameKind.SCORED]
    return [(one["text"], [s["token"]["text"] for s in one["scores"]]) for one in scored]


@pytest.mark.parametrize(
    ("stop", "tokens", "expected"),
    [
        ((), [b"a", b"b"], [("a", ["a"]), ("b", ["b"])]),
        # Markers and reasoning are not scored, and the parts of a character go with it.
        (
            (),
            [b"<think>", b"hm", b"</think>", b"\xe2\x82", b"\xac", b"!"],
            [("€", ["\ufffd", "\ufffd"]), ("!", ["!"])],
        ),
        # What is held is told with the tokens that it is made of.
        (
            (),
            [b"a <thi", b"s>", b"x"],
            [("a ", ["a <thi"]), ("<thi", []), ("s>", ["s>"]), ("x", ["x"])],
        ),
        (("ST",), [b"aS", b"T", b"b"], [("a", ["aS"])]),
        (("ST",), [b"aS", b"b"], [("a", ["aS"]), ("Sb", ["b"])]),
    ],
    ids=str,
)
def test_content_is_told_with_the_scores_of_its_tokens(
    stop: tuple[str, ...], tokens: list[bytes], expected: list[tuple[str, list[str]]]
) -> None:
    answer = Answer(QWEN, PROMPT, is_scored=True, delivery=Delivery(stop=stop))
    tellings = [
        t for token in tokens for t in answer.feed(token, score(token.decode("utf-8", "replace")))
    ]
    assert scored_texts(tellings + answer.finish()) == expected
