"""``POST /v1/completions``: text in, its continuation out."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from paddler.messages.openai.chat import StreamOptions
from paddler.messages.openai.common import CompletionUsage, ModelName


class CompletionRequest(Struct, frozen=True, kw_only=True):
    """The body. ``suffix`` and token ids are known, and refused with a reason."""

    model: ModelName
    prompt: str | list[str | int | list[int]] | None = None
    best_of: int | None = None
    echo: bool | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: int | None = None
    max_tokens: int | None = None
    min_p: float | None = None
    n: int | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    suffix: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


class CompletionLogprobs(Struct, frozen=True, kw_only=True):
    """Parallel lists, an entry for each token."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(Struct, frozen=True, kw_only=True):
    """One continuation, or a piece of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(Struct, frozen=True, kw_only=True):
    """The whole answer, and each event of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | UnsetType = UNSET
