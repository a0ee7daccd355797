from typing import Any

import pytest

from paddler.agent.worker.chat_template import ChatTemplate
from paddler.agent.worker.grammar import Gbnf
from paddler.agent.worker.prompts import Prompt, PromptMaker
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
from paddler.messages.link import ConversationJob, RawPromptJob

LABEL = 'agent "gpu-1"'
GRAMMAR = GbnfGrammar('root ::= "a"', "root")
TOOL = Tool(ToolFunction("f", "d", ToolParameters(type="object")))


def maker(template: str = "") -> PromptMaker:
    compiled = ChatTemplate(template, bos_token="<s>", eos_token="</s>", nl_token="\n")
    return PromptMaker(LABEL, compiled)


def conversation(*messages: ConversationMessage, **changes: Any) -> ConversationJob:
    request = {"add_generation_prompt": True, "enable_thinking": False, "max_tokens": 5}
    return ConversationJob(
        ContinueFromConversationHistory(conversation_history=list(messages), **request | changes)
    )


HELLO = ConversationMessage("user", "Hello")
IMAGE = ConversationMessage("user", [TextPart("see"), ImagePart(ImageUrl("data:,"))])
RAW = RawPromptJob(ContinueFromRawPrompt(raw_prompt="<s>Once", max_tokens=5))


def test_raw_prompt_is_taken_as_it_is() -> None:
    assert maker().make(RAW) == Prompt("<s>Once", None)


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
            maker(),
            conversation(IMAGE),
            {
                "multimodal_not_supported": "received images but model does not support "
                "multimodal input"
            },
        ),
        (
            maker(),
            conversation(HELLO, tools=[TOOL], parse_tool_calls=True),
            {
                "tool_schema_invalid": "tool calls cannot be parsed yet; leave parse_tool_calls "
                "out to get their text"
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
    ids=["image", "tool calls", "template"],
)
def test_refused_request_says_who_and_why(
    prompts: PromptMaker, job: ConversationJob | RawPromptJob, refusal: dict[str, str]
) -> None:
    ((variant, text),) = refusal.items()
    assert prompts.make(job) == GeneratedTokenResult(**{variant: f"{LABEL}: {text}"})


def test_parsing_tool_calls_without_tools_changes_nothing() -> None:
    job = conversation(HELLO, parse_tool_calls=True)
    assert maker("ok").make(job) == Prompt("ok", None)


def test_a_grammar_goes_along_with_the_prompt() -> None:
    prompt = maker("ok").make(conversation(HELLO, grammar=GRAMMAR))
    assert prompt == Prompt("ok", Gbnf('root ::= "a"', "root"))


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
