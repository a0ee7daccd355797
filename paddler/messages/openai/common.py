"""What several endpoints share: usage, errors, log probabilities, structured output."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

ModelName = Annotated[str, Meta(max_length=1024)]
"""Any name is accepted and echoed; with every token, hence the limit."""


class TextFormat(Struct, frozen=True, tag_field="type", tag="text"):
    """Any text."""


class JsonObjectFormat(Struct, frozen=True, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchema(Struct, frozen=True):
    """A named JSON schema."""

    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(Struct, frozen=True, tag_field="type", tag="json_schema"):
    """JSON that a schema allows."""

    json_schema: JsonSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class PromptTokensDetails(Struct, frozen=True):
    """Part of :class:`CompletionUsage`."""

    cached_tokens: int
    audio_tokens: int = 0


class CompletionTokensDetails(Struct, frozen=True):
    """Part of :class:`CompletionUsage`."""

    reasoning_tokens: int


class CompletionUsage(Struct, frozen=True, kw_only=True):
    """Token counts of one request, all its choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class TopLogprob(Struct, frozen=True):
    """A token that might have been drawn."""

    token: str
    bytes: list[int]
    logprob: float


class TokenLogprob(Struct, frozen=True):
    """A token that was drawn."""

    token: str
    bytes: list[int]
    logprob: float
    top_logprobs: list[TopLogprob]


class ErrorDetail(Struct, frozen=True, kw_only=True):
    """What OpenAI's clients turn into their exceptions. ``param``: the field at fault."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(Struct, frozen=True):
    """The body of every error."""

    error: ErrorDetail


class Model(Struct, frozen=True, kw_only=True):
    """A model that can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(Struct, frozen=True, kw_only=True):
    """The body of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[Model]
