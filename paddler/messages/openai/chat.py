"""``POST /v1/chat/completions``."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from paddler.messages.openai.common import (
    CompletionUsage,
    ModelName,
    ResponseFormat,
    TokenLogprob,
)

# --- request -----------------------------------------------------------------------------------


class TextPart(Struct, frozen=True, tag_field="type", tag="text"):
    """Text within a message."""

    text: str


class RefusalPart(Struct, frozen=True, tag_field="type", tag="refusal"):
    """An earlier refusal of the model's, as it is given back to it."""

    refusal: str


class ImageUrl(Struct, frozen=True):
    """An image as a ``data:`` address; ``detail`` is accepted and changes nothing."""

    url: str


class ImagePart(Struct, frozen=True, tag_field="type", tag="image_url"):
    """An image within a message."""

    image_url: ImageUrl


class CalledFunction(Struct, frozen=True):
    """A call of an earlier turn. ``arguments``: JSON text; some clients send an object."""

    name: str
    arguments: str | dict[str, Any] = "{}"


class ToolCall(Struct, frozen=True):
    """A call of an earlier turn."""

    function: CalledFunction
    id: str | None = None


class ChatMessage(Struct, frozen=True):
    """One turn of the conversation."""

    role: str
    content: str | list[TextPart | ImagePart | RefusalPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """The same under the name that some services give it."""


class FunctionDefinition(Struct, frozen=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(Struct, frozen=True):
    """A tool. Those of another type than ``function`` are not offered to the model."""

    type: str
    function: FunctionDefinition | None = None


class NamedFunction(Struct, frozen=True):
    """Part of :class:`NamedTool`."""

    name: str


class NamedTool(Struct, frozen=True, tag_field="type", tag="function"):
    """The one function that must be called."""

    function: NamedFunction


class NamedTools(Struct, frozen=True):
    """Part of :class:`AllowedTools`."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedTools(Struct, frozen=True, tag_field="type", tag="allowed_tools"):
    """Some of the tools: only they may be called."""

    allowed_tools: NamedTools


class StreamOptions(Struct, frozen=True):
    """``stream_options``; other keys are accepted and change nothing."""

    include_usage: bool | None = None


class ChatCompletionRequest(Struct, frozen=True, kw_only=True):
    """The body. Ranges are checked where the request is read, so that they can be told."""

    model: ModelName
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    response_format: ResponseFormat | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    include_reasoning: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # Known, and refused: what came before tools.
    functions: Any = None
    function_call: Any = None


# --- answer ------------------------------------------------------------------------------------

FinishReason = Literal["stop", "length", "tool_calls"]


class Function(Struct, frozen=True):
    """Part of :class:`MessageToolCall`."""

    name: str
    arguments: str


class MessageToolCall(Struct, frozen=True, kw_only=True):
    """A call in a whole answer."""

    id: str
    type: Literal["function"] = "function"
    function: Function


class AnswerMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The message of a whole answer."""

    role: str  # always "assistant"; without a default, since those are left out
    content: str | None
    refusal: None
    annotations: list[Any]
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[MessageToolCall] | UnsetType = UNSET


class Logprobs(Struct, frozen=True):
    """Log probabilities of a piece of content."""

    content: list[TokenLogprob]
    refusal: None = None


class Choice(Struct, frozen=True, kw_only=True):
    """One whole answer."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: FinishReason


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """The body of a whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    service_tier: Literal["default"] = "default"
    system_fingerprint: str


class FunctionDelta(Struct, frozen=True, omit_defaults=True):
    """Part of :class:`ToolCallDelta`."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call that begins, or more of its arguments."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionDelta


class ChatDelta(Struct, frozen=True, omit_defaults=True):
    """What one chunk adds to the message."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    """The one choice of a chunk."""

    index: int
    delta: ChatDelta
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(Struct, frozen=True, kw_only=True):
    """One event of a streamed answer. ``usage`` is absent but for the last chunk, if asked for."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice] = field(default_factory=list)
    usage: CompletionUsage | UnsetType = UNSET
