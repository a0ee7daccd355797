"""Requests and answers of the native inference service."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from paddler.messages._base import OneOf, Strict
from paddler.messages.state import I32
from paddler.messages.tools import ParsedToolCall, UnrecognizedToolCall

# --- requests ----------------------------------------------------------------------------------


class ImageUrl(Strict, frozen=True):
    """An image as a ``data:`` address."""

    url: str


class TextPart(Strict, frozen=True, tag_field="type", tag="text"):
    """Text within a message."""

    text: str


class ImagePart(Strict, frozen=True, tag_field="type", tag="image_url"):
    """An image within a message."""

    image_url: ImageUrl


class ConversationMessage(Strict, frozen=True):
    """One turn. ``role`` is any string: the chat template gives it meaning."""

    role: str
    content: str | list[TextPart | ImagePart]


class GbnfGrammar(Strict, frozen=True, tag_field="type", tag="gbnf"):
    """A grammar in llama.cpp's GBNF; ``root`` names the start rule."""

    grammar: str
    root: str


class JsonSchemaGrammar(Strict, frozen=True, tag_field="type", tag="json_schema"):
    """A JSON schema, as text."""

    schema: str


Grammar = GbnfGrammar | JsonSchemaGrammar


class ToolParameters(
    Strict,
    frozen=True,
    kw_only=True,
    rename={"additional_properties": "additionalProperties"},
    omit_defaults=True,
):
    """What a tool takes, as a JSON schema of an object."""

    type: str
    properties: dict[str, Any] | UnsetType = UNSET
    required: list[str] | UnsetType = UNSET
    additional_properties: Any = UNSET


class ToolFunction(Strict, frozen=True, omit_defaults=True):
    """A function that the model may call."""

    name: str
    description: str
    parameters: ToolParameters | None = None


class Tool(Strict, frozen=True, tag_field="type", tag="function"):
    """A tool that the model may use."""

    function: ToolFunction


class ContinueFromRawPrompt(Strict, frozen=True, kw_only=True):
    """``POST /api/v1/continue_from_raw_prompt``: text in, its continuation out."""

    raw_prompt: str
    max_tokens: I32
    grammar: Grammar | None = None


class ContinueFromConversationHistory(Strict, frozen=True, kw_only=True):
    """``POST /api/v1/continue_from_conversation_history``: a conversation in, the next turn out."""

    add_generation_prompt: bool
    conversation_history: list[ConversationMessage]
    enable_thinking: bool
    max_tokens: I32
    grammar: Grammar | None = None
    parse_tool_calls: bool = False
    tools: list[Tool] = msgspec.field(default_factory=list)


class EmbeddingInput(Strict, frozen=True):
    """One document; ``id`` is the client's and comes back with the embedding."""

    content: str
    id: str


class RmsNorm(Strict, frozen=True):
    """x / sqrt(mean(x^2) + epsilon)."""

    epsilon: Annotated[float, Meta(ge=0.0)]


class RmsNormMethod(OneOf, frozen=True):
    """The one normalization method that has a parameter."""

    rms_norm: RmsNorm = msgspec.field(name="RmsNorm")


NormalizationMethod = Literal["L2", "None"] | RmsNormMethod


class GenerateEmbeddingBatch(Strict, frozen=True):
    """``POST /api/v1/generate_embedding_batch``: documents in, an embedding of each out."""

    input_batch: list[EmbeddingInput]
    normalization_method: NormalizationMethod


# --- requests on the WebSocket -----------------------------------------------------------------


class SocketJob(OneOf, frozen=True):
    """What a client asks for on the WebSocket."""

    conversation: ContinueFromConversationHistory | UnsetType = msgspec.field(
        default=UNSET, name="ContinueFromConversationHistory"
    )
    raw_prompt: ContinueFromRawPrompt | UnsetType = msgspec.field(
        default=UNSET, name="ContinueFromRawPrompt"
    )


class SocketRequest(Strict, frozen=True):
    """A request under an id of the client's choice, unique among those in flight on its socket."""

    id: str
    request: SocketJob


class SocketNotification(OneOf, frozen=True):
    """What a client tells without expecting an answer."""

    stop_responding_to: str = msgspec.field(name="StopRespondingTo")


class Failure(Strict, frozen=True):
    """The ``error`` of an :class:`ErrorEnvelope`; codes follow HTTP's meaning."""

    code: int
    description: str


class ErrorEnvelope(Strict, frozen=True):
    """An error that ends one request."""

    request_id: str
    error: Failure


class SocketMessage(OneOf, frozen=True, rename="pascal"):
    """One text frame from a client."""

    request: SocketRequest | UnsetType = UNSET
    notification: SocketNotification | UnsetType = UNSET
    error: ErrorEnvelope | UnsetType = UNSET


class _LooseRequest(Struct, frozen=True):
    id: str


class LooseSocketMessage(Struct, frozen=True, rename={"request": "Request"}):
    """As much of a malformed request as it takes to answer it."""

    request: _LooseRequest


# --- answers -----------------------------------------------------------------------------------


class TokenUsage(Struct, frozen=True, kw_only=True):
    """Token counts of one request. ``cached_prompt_tokens`` are part of ``prompt_tokens``."""

    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    input_image_tokens: int = 0
    input_audio_tokens: int = 0
    content_tokens: int = 0
    reasoning_tokens: int = 0
    tool_call_tokens: int = 0
    undeterminable_tokens: int = 0

    @property
    def completion_tokens(self) -> int:
        """All generated tokens, markers and the end-of-turn token included."""
        return (
            self.content_tokens
            + self.reasoning_tokens
            + self.tool_call_tokens
            + self.undeterminable_tokens
        )


class ErrorMessage(Struct, frozen=True, rename={"error": "Error"}):
    """``{"Error": …}``: always the last message of its request."""

    error: ErrorEnvelope


class ResponseEnvelope(Struct, frozen=True):
    """Who answered which request with what."""

    generated_by: str | None
    request_id: str
    response: Any


class ResponseMessage(Struct, frozen=True, rename={"response": "Response"}):
    """``{"Response": …}``."""

    response: ResponseEnvelope


class OversizedImage(Struct, frozen=True):
    """An image that needs more tokens than fit in one batch."""

    image_tokens: int
    n_batch: int


class OversizedDocument(Struct, frozen=True):
    """A document that needs more tokens than fit in one batch; it was skipped."""

    document_tokens: int
    n_batch: int
    source_document_id: str


class GeneratedTokenResult(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """One step of an answer, externally tagged: exactly one field is set."""

    content_token: str | UnsetType = UNSET
    reasoning_token: str | UnsetType = UNSET
    tool_call_token: str | UnsetType = UNSET
    undeterminable_token: str | UnsetType = UNSET
    done: dict[Literal["usage"], TokenUsage] | UnsetType = UNSET
    chat_template_error: str | UnsetType = UNSET
    detokenization_failed: str | UnsetType = UNSET
    grammar_incompatible_with_thinking: str | UnsetType = UNSET
    grammar_initialization_failed: str | UnsetType = UNSET
    grammar_rejected_model_output: str | UnsetType = UNSET
    grammar_syntax_error: str | UnsetType = UNSET
    image_decoding_failed: str | UnsetType = UNSET
    image_exceeds_batch_size: OversizedImage | UnsetType = UNSET
    multimodal_not_supported: str | UnsetType = UNSET
    sampler_error: str | UnsetType = UNSET
    token_generation_disabled: str | UnsetType = UNSET
    tool_call_parsed: list[ParsedToolCall] | UnsetType = UNSET
    tool_call_parse_failed: str | UnsetType = UNSET
    tool_call_validation_failed: list[str] | UnsetType = UNSET
    tool_schema_invalid: str | UnsetType = UNSET
    unrecognized_tool_call_format: UnrecognizedToolCall | UnsetType = UNSET


decode_raw_prompt = msgspec.json.Decoder(ContinueFromRawPrompt).decode
decode_conversation = msgspec.json.Decoder(ContinueFromConversationHistory).decode
decode_embedding_batch = msgspec.json.Decoder(GenerateEmbeddingBatch).decode
decode_socket_message = msgspec.json.Decoder(SocketMessage).decode
decode_loose_socket_message = msgspec.json.Decoder(LooseSocketMessage).decode
