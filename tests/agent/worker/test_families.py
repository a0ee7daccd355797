"""What a model's template tells, from the prompt to the parsed call, family by family."""

import functools
import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.agent.worker.answer import Answer
from paddler.agent.worker.chat_template import ChatTemplate, TemplateRenderError
from paddler.agent.worker.markers import ModelFormat, probe
from paddler.messages.chat import Tool
from paddler.messages.link import FrameKind
from tests.agent.worker.families import ARGUMENTS, CHAT, FAMILIES, TOOL, Family
from tests.agent.worker.test_answer import end

NAMES = sorted(FAMILIES)
TOOLS = [msgspec.convert(TOOL, Tool)]
ROUND_TRIP: list[dict[str, Any]] = [
    {"role": "user", "content": "Is it warm?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_0",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_0", "content": "the-result"},
]


@functools.cache
def compiled(name: str) -> tuple[ChatTemplate, ModelFormat]:
    family = FAMILIES[name]
    source = family.template.strip("\n")
    template = ChatTemplate(source, bos_token=family.bos, eos_token=family.eos, nl_token="\n")
    return template, probe(template, source)


def rendered(
    name: str, messages: list[dict[str, Any]], *, tools: list[dict[str, Any]] | None = None
) -> str:
    template, form = compiled(name)
    return template.render(
        form.history.messages(messages, tools or ()),
        add_generation_prompt=True,
        enable_thinking=True,
        tools=form.history.tools(tools or ()),
        variables={"today": "1 May 2026"},
    )


@pytest.mark.parametrize("name", NAMES)
def test_prompt_is_what_the_family_documents(name: str) -> None:
    assert rendered(name, CHAT) == FAMILIES[name].prompt


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_content_make_the_same_prompt(name: str) -> None:
    in_parts = [
        message | {"content": [{"type": "text", "text": message["content"]}]} for message in CHAT
    ]
    assert rendered(name, in_parts) == FAMILIES[name].prompt


@pytest.mark.parametrize("name", NAMES)
def test_developer_is_heard_as_the_system_is(name: str) -> None:
    developer, *rest = CHAT
    prompt = rendered(name, [developer | {"role": "developer"}, *rest])
    assert prompt == FAMILIES[name].prompt


@pytest.mark.parametrize("name", NAMES)
def test_call_and_result_are_in_the_prompt(name: str) -> None:
    prompt = rendered(name, ROUND_TRIP, tools=[TOOL])
    call = prompt.find(FAMILIES[name].call)
    assert 0 <= call < prompt.find("the-result")


@pytest.mark.parametrize("name", NAMES)
def test_two_calls_at_once_and_their_results_are_in_the_prompt(name: str) -> None:
    asked, calling, result = ROUND_TRIP
    [first] = calling["tool_calls"]
    second = first | {"id": "call_1"}
    prompt = rendered(
        name,
        [
            asked,
            calling | {"tool_calls": [first, second]},
            result,
            result | {"tool_call_id": "call_1", "content": "the-other"},
        ],
        tools=[TOOL],
    )
    assert 0 <= prompt.find("the-result") < prompt.find("the-other")


@pytest.mark.parametrize("name", NAMES)
def test_form_of_history_is_found(name: str) -> None:
    _, form = compiled(name)
    assert form.history._replace(text_roles=frozenset()) == FAMILIES[name].form


@pytest.mark.parametrize("name", NAMES)
def test_dialect_is_found(name: str) -> None:
    _, form = compiled(name)
    assert (form.dialect.name if form.dialect else None) == FAMILIES[name].dialect


class Told:
    """What an answer tells, its bytes cut into tokens in some way."""

    def __init__(self, name: str, cuts: list[int]) -> None:
        _, form = compiled(name)
        family = FAMILIES[name]
        answer = Answer(form, family.prompt, tools=TOOLS, parses_calls=True)
        data = family.answer.encode()
        bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        tellings = [
            telling
            for begin, end in itertools.pairwise(bounds)
            for telling in answer.feed(data[begin:end])
        ]
        tellings += end(answer)
        tokens = [told for told in tellings if told.kind is not FrameKind.RESULT]
        self.said = [
            (kind, "".join(msgspec.json.decode(b'"' + told.payload + b'"') for told in of_kind))
            for kind, of_kind in itertools.groupby(tokens, lambda told: told.kind)
        ]
        self.results = [
            msgspec.json.decode(told.payload) for told in tellings if told.kind is FrameKind.RESULT
        ]
        assert answer.tokens == len(bounds) - 1

    def check(self, family: Family) -> None:
        assert self.said == family.said
        if not any(kind is FrameKind.TOOL_CALL for kind, _ in family.said):
            assert self.results == []
            return
        [result] = self.results
        for call in result["ToolCallParsed"]:
            assert call["name"] == "weather"
            assert call["arguments"] == {"ValidJson": ARGUMENTS}


@pytest.mark.parametrize("name", NAMES)
def test_answer_is_split_and_its_call_parsed(name: str) -> None:
    family = FAMILIES[name]
    Told(name, []).check(family)
    Told(name, list(range(len(family.answer.encode())))).check(family)


@given(name=st.sampled_from(NAMES), cuts=st.lists(st.integers(0, 300), max_size=40))
def test_answer_tells_the_same_however_tokens_cut_it(name: str, cuts: list[int]) -> None:
    Told(name, cuts).check(FAMILIES[name])


def test_prompt_can_close_a_thought_before_it_begins() -> None:
    template, form = compiled("qwen3")
    prompt = template.render(
        form.history.messages(CHAT), add_generation_prompt=True, enable_thinking=False
    )
    answer = Answer(form, prompt)
    assert [told.kind for told in answer.feed(b"Hi")] == [FrameKind.CONTENT]


def test_thought_of_an_earlier_turn_reaches_a_template_that_reads_it() -> None:
    thought = {"role": "assistant", "content": "Hello!", "reasoning_content": "the-thought"}
    for name in ("ministral3", "qwen3.5"):
        assert "the-thought" in rendered(name, [CHAT[1], thought, CHAT[3]])


def test_template_itself_says_that_roles_must_take_turns() -> None:
    template, form = compiled("gemma2")
    with pytest.raises(TemplateRenderError, match="must take turns"):
        template.render(
            form.history.messages([CHAT[1], CHAT[1]]),
            add_generation_prompt=True,
            enable_thinking=True,
        )
