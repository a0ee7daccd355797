"""``POST /v1/responses``."""

from typing import Any, Literal

from msgspec import UNSET, Raw, Struct, UnsetType, field

from paddler.messages.openai.common import ModelName, TokenLogprob

# --- request -----------------------------------------------------------------------------------


class FunctionTool(Struct, frozen=True, kw_only=True):
    """A function that the model may call; tools of another ``type`` are not offered to it."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class TextFormat(Struct, frozen=True):
    """What the text must be. Unknown types ask for nothing."""

    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextOptions(Struct, frozen=True):
    """``text``."""

    format: TextFormat | None = None


class ReasoningOptions(Struct, frozen=True):
    """``reasoning``. ``effort`` ``none`` turns it off."""

    effort: str | None = None


class ResponsesRequest(Struct, frozen=True, kw_only=True):
    """The body. ``input``: one message as text, or items; each is decoded by its ``type``."""

    model: ModelName
    input: str | list[dict[str, Any]] = field(default_factory=list)
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    metadata: dict[str, str] | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None
    # Known, and refused: nothing is kept here.
    previous_response_id: str | None = None
    conversation: Any = None
    store: bool | None = None
    background: bool | None = None
    prompt: Any = None


class InputText(Struct, frozen=True):
    """Text within an item."""

    text: str


class InputImage(Struct, frozen=True):
    """An image within an item; one without an address is left out."""

    image_url: str | None = None


class MessageItem(Struct, frozen=True):
    """A turn."""

    role: str
    content: str | list[dict[str, Any]]


class FunctionCallItem(Struct, frozen=True):
    """A call of an earlier turn."""

    call_id: str
    name: str
    arguments: str


class FunctionOutputItem(Struct, frozen=True):
    """What a call came to."""

    call_id: str
    output: str | list[dict[str, Any]]


class ReasoningItem(Struct, frozen=True):
    """What the model thought in an earlier turn."""

    content: list[dict[str, Any]] | None = None


# --- answer ------------------------------------------------------------------------------------

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class ReasoningText(Struct, frozen=True, tag_field="type", tag="reasoning_text"):
    """Part of :class:`ReasoningOutput`."""

    text: str


class ReasoningOutput(Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """What the model thought."""

    id: str
    summary: tuple[()] = ()
    content: tuple[ReasoningText, ...] | UnsetType = UNSET
    status: ItemStatus


class OutputText(Struct, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    """Part of :class:`MessageOutput`."""

    text: str
    annotations: tuple[()] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class EventTopLogprob(Struct, frozen=True):
    """Part of :class:`EventLogprob`."""

    token: str
    logprob: float


class EventLogprob(Struct, frozen=True):
    """A token that was drawn, as the events of text tell it."""

    token: str
    logprob: float
    top_logprobs: list[EventTopLogprob]


class MessageOutput(Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """What the model said."""

    id: str
    role: Literal["assistant"] = "assistant"
    status: ItemStatus
    content: tuple[OutputText, ...]


class FunctionCallOutput(Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """A call that the model made."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


OutputItem = ReasoningOutput | MessageOutput | FunctionCallOutput


class InputTokensDetails(Struct, frozen=True):
    """Part of :class:`ResponseUsage`."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(Struct, frozen=True):
    """Part of :class:`ResponseUsage`."""

    reasoning_tokens: int


class ResponseUsage(Struct, frozen=True, kw_only=True):
    """Token counts."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(Struct, frozen=True):
    """Why a response failed. ``code`` is one of OpenAI's."""

    code: Literal["server_error", "invalid_prompt"]
    message: str


class IncompleteDetails(Struct, frozen=True):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class EchoedTool(Struct, frozen=True, kw_only=True):
    """A tool of the request."""

    type: Literal["function"] = "function"
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class Response(Struct, frozen=True, kw_only=True):
    """The answer, and the state of it within events.

    What it repeats of its request is encoded once: a list of :class:`EchoedTool`, and ``text``.
    """

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    model: str
    tools: Raw
    output: list[OutputItem] = field(default_factory=list)
    parallel_tool_calls: bool
    metadata: dict[str, str]
    tool_choice: Any
    temperature: float
    top_p: float
    text: Raw
    usage: ResponseUsage | UnsetType = UNSET
