"""Requests and answers of the OpenAI-compatible service.

Requests are lenient: unknown keys are ignored, as OpenAI's clients send ever new ones.
What is known but not served yet is decoded, so that it can be refused by name.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from paddler.messages.inference import ImageUrl
from paddler.messages.state import I32

# --- chat completions: request -----------------------------------------------------------------


class TextPart(Struct, frozen=True, tag_field="type", tag="text"):
    """Text within a message."""

    text: str


class ImagePart(Struct, frozen=True, tag_field="type", tag="image_url"):
    """An image within a message; only ``data:`` addresses are served."""

    image_url: ImageUrl


class ChatMessage(Struct, frozen=True):
    """One turn of the conversation."""

    role: str
    content: str | list[TextPart | ImagePart] | None = None
    tool_calls: list[Any] | None = None  # known, not served yet


class StreamOptions(Struct, frozen=True):
    """``stream_options``; other keys are accepted and change nothing."""

    include_usage: bool | None = None


class ChatCompletionRequest(Struct, frozen=True, kw_only=True):
    """The body of ``POST /v1/chat/completions``."""

    model: str
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: I32 | None = None
    max_tokens: I32 | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: I32 | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    # Known, not served yet: refused when they ask for something.
    n: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    top_logprobs: int | None = None


# --- chat completions: answer ------------------------------------------------------------------

FinishReason = Literal["stop", "length"]


class PromptTokensDetails(Struct, frozen=True):
    """Part of :class:`CompletionUsage`."""

    cached_tokens: int
    audio_tokens: int = 0


class CompletionTokensDetails(Struct, frozen=True):
    """Part of :class:`CompletionUsage`."""

    reasoning_tokens: int


class CompletionUsage(Struct, frozen=True, kw_only=True):
    """Token counts of one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class ChatDelta(Struct, frozen=True, omit_defaults=True):
    """What one chunk adds to the message."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: UnsetType | None = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    """The one choice of a chunk."""

    index: int = 0
    delta: ChatDelta
    logprobs: None = None
    finish_reason: FinishReason | None = None


class ChatChunk(Struct, frozen=True, kw_only=True):
    """One event of a streamed answer. ``usage`` is absent but for the last chunk, if asked for."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | UnsetType = UNSET


# --- errors ------------------------------------------------------------------------------------


class ErrorDetail(Struct, frozen=True, kw_only=True):
    """What OpenAI's clients turn into their exceptions."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(Struct, frozen=True):
    """The body of every error."""

    error: ErrorDetail
