from collections.abc import Sequence
from typing import Any

import pytest

from paddler.agent.worker.chat_template import ChatTemplate
from paddler.agent.worker.grammar import Gbnf
from paddler.agent.worker.images import ImageRefused, RgbImage
from paddler.agent.worker.markers import ModelFormat
from paddler.agent.worker.prompts import Prompt, PromptMaker
from paddler.agent.worker.sections import Markers
from paddler.messages import chat
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ContinueFromRawPrompt,
    ConversationMessage,
    GbnfGrammar,
    GeneratedTokenResult,
    ImagePart,
    ImageUrl,
    JsonSchemaGrammar,
    TextPart,
    Tool,
    ToolFunction,
    ToolParameters,
)
from paddler.messages.link import ChatJob, ConversationJob, RawPromptJob

LABEL = 'agent "gpu-1"'
GRAMMAR = GbnfGrammar('root ::= "a"', "root")
TOOL = Tool(ToolFunction("f", "d", ToolParameters(type="object")))


PICTURE = RgbImage(1, 1, b"rgb")


def maker(template: str = "", *, sees_images: bool = True) -> PromptMaker:
    compiled = ChatTemplate(template, bos_token="<s>", eos_token="</s>", nl_token="\n")
    return PromptMaker(LABEL, compiled, prepare_images=prepare, sees_images=sees_images)


def prepare(urls: Sequence[str]) -> list[RgbImage]:
    """Knows one image."""
    if set(urls) != {"data:,"}:
        raise ImageRefused("Invalid data URI: missing comma separator")
    return [PICTURE] * len(urls)


def conversation(*messages: ConversationMessage, **changes: Any) -> ConversationJob:
    request = {"add_generation_prompt": True, "enable_thinking": False, "max_tokens": 5}
    return ConversationJob(
        ContinueFromConversationHistory(conversation_history=list(messages), **request | changes)
    )


HELLO = ConversationMessage("user", "Hello")
IMAGE = ConversationMessage("user", [TextPart("see"), ImagePart(ImageUrl("data:,"))])
BROKEN_IMAGE = ConversationMessage("user", [ImagePart(ImageUrl("data:"))])
RAW = RawPromptJob(ContinueFromRawPrompt(raw_prompt="<s>Once", max_tokens=5))


def test_raw_prompt_is_taken_as_it_is() -> None:
    assert maker().make(RAW) == Prompt("<s>Once", 5)


def test_conversation_is_rendered_with_parts_and_tools() -> None:
    parts = ConversationMessage("user", [TextPart("a")])
    prompt = maker("{{ messages | tojson }}{{ tools | tojson }}").make(
        conversation(HELLO, parts, tools=[TOOL])
    )
    assert isinstance(prompt, Prompt)
    assert prompt.text == (
        '[{"role": "user", "content": "Hello"}, '
        '{"role": "user", "content": [{"type": "text", "text": "a"}]}]'
        '[{"type": "function", "function": '
        '{"name": "f", "description": "d", "parameters": {"type": "object"}}}]'
    )


@pytest.mark.parametrize(
    ("prompts", "job", "refusal"),
    [
        (
            maker(sees_images=False),
            conversation(IMAGE),
            {
                "multimodal_not_supported": "received images but model does not support "
                "multimodal input"
            },
        ),
        (
            maker("{{ raise_exception('no') }}"),
            conversation(HELLO),
            {
                "chat_template_error": "failed to render chat template: "
                "Model's chat template raised an exception: 'no'"
            },
        ),
    ],
    ids=["image", "template"],
)
def test_refused_request_says_who_and_why(
    prompts: PromptMaker, job: ConversationJob | RawPromptJob, refusal: dict[str, str]
) -> None:
    ((variant, text),) = refusal.items()
    assert prompts.make(job) == GeneratedTokenResult(**{variant: f"{LABEL}: {text}"})


def test_parsing_tool_calls_without_tools_changes_nothing() -> None:
    job = conversation(HELLO, parse_tool_calls=True)
    assert maker("ok").make(job) == Prompt("ok", 5)


def test_a_grammar_goes_along_with_the_prompt() -> None:
    prompt = maker("ok").make(conversation(HELLO, grammar=GRAMMAR))
    assert prompt == Prompt("ok", 5, Gbnf('root ::= "a"', "root"), is_constrained=True)


def test_a_grammar_and_thinking_exclude_each_other() -> None:
    job = conversation(HELLO, grammar=GRAMMAR, enable_thinking=True)
    assert maker("ok").make(job) == GeneratedTokenResult(
        grammar_incompatible_with_thinking="Grammar constraints are incompatible with thinking mode"
    )


def test_a_schema_without_a_grammar_is_refused() -> None:
    refusal = maker("ok").make(conversation(HELLO, grammar=JsonSchemaGrammar("{")))
    assert isinstance(refusal, GeneratedTokenResult)
    assert isinstance(refusal.grammar_syntax_error, str)
    assert refusal.grammar_syntax_error.startswith("Failed to create grammar sampler: ")


def test_an_image_leaves_a_marker_in_its_place() -> None:
    parts = [ImagePart(ImageUrl("data:,")), TextPart("or"), ImagePart(ImageUrl("data:,"))]
    template = "{% for part in messages[0].content %}[{{ part.type }} {{ part.text }}]{% endfor %}"
    prompt = maker(template).make(conversation(ConversationMessage("user", parts)))
    assert isinstance(prompt, Prompt)
    assert prompt.text == "[text <__media__>][text or][text <__media__>]"
    assert prompt.images == [PICTURE, PICTURE]


@pytest.mark.parametrize("sees_images", [True, False])
def test_a_broken_image_is_told_before_anything_that_follows(sees_images: bool) -> None:
    broken = maker("{{ raise_exception('no') }}", sees_images=sees_images)
    assert broken.make(conversation(HELLO, BROKEN_IMAGE)) == GeneratedTokenResult(
        image_decoding_failed=f"{LABEL}: failed to decode images: "
        "Invalid data URI: missing comma separator"
    )


def test_a_grammar_that_cannot_be_is_told_before_a_broken_image() -> None:
    job = conversation(BROKEN_IMAGE, grammar=GRAMMAR, enable_thinking=True)
    refusal = maker().make(job)
    assert isinstance(refusal, GeneratedTokenResult)
    assert refusal.grammar_incompatible_with_thinking


def test_a_template_that_takes_no_parts_is_told_before_a_missing_projection() -> None:
    refusal = maker("{{ 'a' + messages[0].content }}", sees_images=False).make(conversation(IMAGE))
    assert isinstance(refusal, GeneratedTokenResult)
    assert refusal.chat_template_error


def test_a_schema_that_is_none_is_refused_by_name() -> None:
    bad = Tool(ToolFunction("f", "d", ToolParameters(type="object", properties={"a": {"type": 1}})))
    refusal = maker("ok").make(conversation(HELLO, tools=[bad], parse_tool_calls=True))
    assert isinstance(refusal, GeneratedTokenResult)
    assert str(refusal.tool_schema_invalid).startswith(
        'tool "f" parameters are not a valid JSON Schema: '
    )


def test_tools_go_along_with_the_prompt_and_are_parsed_if_asked_for() -> None:
    prompts = maker("ok")
    shown = prompts.make(conversation(HELLO, tools=[TOOL]))
    parsed = prompts.make(conversation(HELLO, tools=[TOOL], parse_tool_calls=True))
    tools = (chat.Tool(chat.Function("f", "d", {"type": "object"})),)
    assert shown == Prompt("ok", 5, tools=tools)
    assert parsed == Prompt("ok", 5, tools=tools, parses_calls=True)


# --- calls under a grammar ----------------------------------------------------------------------

CALLING = ModelFormat(Markers(tool_calls=("<tool_call>",), closings=("</tool_call>",)))
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}


def asked(**changes: Any) -> ChatJob:
    tools = [
        chat.Tool(chat.Function("find", "", SCHEMA)),
        chat.Tool(chat.Function("grasp", "", SCHEMA)),
    ]
    values: dict[str, Any] = {
        "messages": [chat.Message(role="user", content="Hi")],
        "max_tokens": 5,
        "enable_thinking": False,
        "tools": tools,
        "parses_calls": True,
    }
    return ChatJob(chat.Chat(**(values | changes)))


def made(job: ChatJob) -> Prompt | GeneratedTokenResult:
    compiled = ChatTemplate("{{ messages[0].content }}", bos_token="", eos_token="", nl_token="")
    prompts = PromptMaker(LABEL, compiled, prepare_images=prepare, sees_images=False, form=CALLING)
    return prompts.make(job)


def test_tools_that_may_be_called_need_no_grammar() -> None:
    prompt = made(asked())
    assert isinstance(prompt, Prompt)
    assert prompt.grammar is None
    assert not prompt.rules_calls


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"must_call": True}, {"find", "grasp"}),
        ({"must_call": True, "only_tool": "grasp"}, {"grasp"}),
        ({"tools": [chat.Tool(chat.Function("find", "", SCHEMA, strict=True))]}, {"find"}),
    ],
)
def test_calls_that_must_be_right_obey_a_grammar(changes: dict[str, Any], names: set[str]) -> None:
    prompt = made(asked(**changes))
    assert isinstance(prompt, Prompt)
    assert prompt.grammar is not None
    assert {name for name in ("find", "grasp") if name in prompt.grammar.text} == names
    assert prompt.rules_calls
    # They are calls, so JSON in the answer may be one.
    assert not prompt.is_constrained


BAD = {"type": "object", "properties": {"a": {"$ref": "http://x/y"}}}


def test_a_schema_without_a_grammar_is_refused_only_where_a_call_must_be_made() -> None:
    refusal = made(asked(must_call=True, tools=[chat.Tool(chat.Function("f", "", BAD))]))
    assert isinstance(refusal, GeneratedTokenResult)
    assert str(refusal.tool_schema_invalid).startswith('tool "f": ')
    loose = made(asked(tools=[chat.Tool(chat.Function("f", "", BAD, strict=True))]))
    assert isinstance(loose, Prompt)
    assert loose.grammar is None


def test_an_answer_may_call_or_obey_its_grammar() -> None:
    tool = chat.Tool(chat.Function("find", "", {"type": "object"}))
    prompt = made(asked(tools=[tool], grammar=GRAMMAR, grammar_after_reasoning=True))
    assert isinstance(prompt, Prompt)
    assert prompt.grammar is not None
    assert "find" in prompt.grammar.text
    assert prompt.rules_calls
    assert not prompt.is_constrained  # JSON in the answer may be a call.


def test_tools_that_cannot_be_written_leave_the_grammar_to_rule() -> None:
    tools = [chat.Tool(chat.Function("f", "", BAD))]
    prompt = made(asked(tools=tools, grammar=GRAMMAR, grammar_after_reasoning=True))
    assert isinstance(prompt, Prompt)
    assert prompt.grammar is not None
    assert prompt.is_constrained


def test_a_grammar_may_rule_what_follows_the_reasoning() -> None:
    job = asked(tools=[], grammar=GRAMMAR, grammar_after_reasoning=True)
    prompt = made(job)
    assert isinstance(prompt, Prompt)
    assert prompt.grammar is not None
    assert prompt.is_constrained
