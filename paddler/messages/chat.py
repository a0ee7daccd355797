"""Conversations with tools, as agents take them: what every service's request becomes.

Wider than what the native service accepts: messages carry tool calls and their results,
tools any JSON schema, as OpenAI's API has them.
"""

from typing import Any

import msgspec
from msgspec import Struct

from paddler.messages import inference
from paddler.messages.inference import Grammar, ImagePart, TextPart


class FunctionCall(Struct, frozen=True):
    """``arguments``: JSON text, as the model wrote it."""

    name: str
    arguments: str = "{}"


class ToolCall(Struct, frozen=True, tag_field="type", tag="function"):
    """A call that the model made in an earlier turn."""

    function: FunctionCall
    id: str | None = None


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn. ``role`` is any string: the chat template gives it meaning."""

    role: str
    content: str | list[TextPart | ImagePart] | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class Function(Struct, frozen=True, omit_defaults=True):
    """A function that the model may call. ``parameters``: a JSON schema; ``None``: any object."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, frozen=True, tag_field="type", tag="function"):
    """A tool that the model may use."""

    function: Function


class Chat(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conversation to continue.

    ``grammar_after_reasoning``: a model that reasons may do so before the grammar rules.
    ``parses_calls``: tool calls are parsed and checked at the end. ``must_call``: the answer
    is a tool call, of ``only_tool`` if that names one. ``variables`` go to the chat template.
    """

    messages: list[Message]
    max_tokens: int
    enable_thinking: bool
    add_generation_prompt: bool = True
    grammar: Grammar | None = None
    grammar_after_reasoning: bool = False
    tools: list[Tool] = msgspec.field(default_factory=list)
    parses_calls: bool = False
    must_call: bool = False
    only_tool: str | None = None
    may_repeat_calls: bool = True
    variables: dict[str, Any] = msgspec.field(default_factory=dict)


def chat_of(request: inference.ContinueFromConversationHistory) -> Chat:
    """The native service's request in this form."""
    return Chat(
        messages=[
            Message(role=message.role, content=message.content)
            for message in request.conversation_history
        ],
        max_tokens=request.max_tokens,
        enable_thinking=request.enable_thinking,
        add_generation_prompt=request.add_generation_prompt,
        grammar=request.grammar,
        tools=[tool_of(tool) for tool in request.tools],
        parses_calls=request.parse_tool_calls,
    )


def tool_of(tool: inference.Tool) -> Tool:
    """The native service's tool in this form."""
    function = tool.function
    parameters = function.parameters
    return Tool(
        Function(
            function.name,
            function.description,
            None if parameters is None else msgspec.to_builtins(parameters),
        )
    )
