"""Errors in OpenAI's shape, so that its clients raise their own exceptions."""

from typing import Any, Final

import msgspec

from paddler.balancer.link import Concluded
from paddler.errors import ClientError
from paddler.messages.inference import Failure
from paddler.messages.openai.common import ErrorBody, ErrorDetail
from paddler.net.http import Response

RETRY_AFTER_S: Final = 1

# GeneratedTokenResult variants that are the caller's mistake, by the part of the request that is
# at fault; the others are the server's.
INPUT_MISTAKES: Final = frozenset(
    {
        "ChatTemplateError",
        "ImageDecodingFailed",
        "ImageExceedsBatchSize",
        "MultimodalNotSupported",
    }
)
FORMAT_MISTAKES: Final = frozenset(
    {"GrammarIncompatibleWithThinking", "GrammarInitializationFailed", "GrammarSyntaxError"}
)
TOOL_MISTAKES: Final = frozenset({"ToolSchemaInvalid"})

# How the inference protocol tells of a prompt that is longer than the context.
CONTEXT_EXCEEDED: Final = "Request evicted due to KV cache pressure"

RATE_LIMIT: Final = "rate_limit_exceeded"
# Of ours, those that OpenAI has, too.
KNOWN_CODES: Final = frozenset({"invalid_api_key", RATE_LIMIT})

encode = msgspec.json.Encoder().encode


class ParameterError(ClientError):
    """A field of the request cannot be what it is; ``param`` names it."""

    code = "invalid_parameter"

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class Places(msgspec.Struct, frozen=True):
    """What an endpoint calls the parts of its requests that an agent may find at fault."""

    input: str
    format: str | None = None


class Problem(msgspec.Struct, frozen=True):
    """What is told of a request that failed."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    """One of OpenAI's own; ours stay out, since theirs have meanings."""

    @property
    def body(self) -> bytes:
        """The error as JSON, for a response or an event."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        code = self.code
        if self.status == 429:
            kind, code = "requests", RATE_LIMIT
        return encode(
            ErrorBody(ErrorDetail(message=self.message, type=kind, param=self.param, code=code))
        )

    def response(self, headers: tuple[tuple[str, str], ...] = ()) -> Response:
        """The error as a response."""
        if self.status in (429, 503):
            headers = (*headers, ("retry-after", str(RETRY_AFTER_S)))
        elif self.status == 501:
            # OpenAI's clients repeat what failed with 5xx, unless they are told not to.
            headers = (*headers, ("x-should-retry", "false"))
        return Response(self.status, self.body, content_type="application/json", headers=headers)


def render_error(
    status: int, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()
) -> Response:
    """Any error of this listener."""
    known = code if code in KNOWN_CODES else None
    return Problem(status, message, code=known).response(headers)


def problem_of(outcome: Concluded | Failure, places: Places) -> Problem:
    """What is told of an answer that failed."""
    if isinstance(outcome, Failure):
        return Problem(outcome.code, outcome.description)
    variant, detail = read_result(outcome.payload)
    message = describe(variant, detail)
    if variant == "TokenGenerationDisabled":
        return Problem(501, message)
    if variant in FORMAT_MISTAKES:
        return Problem(400, message, param=places.format)
    if variant in TOOL_MISTAKES:
        return Problem(400, message, param="tools")
    if variant in INPUT_MISTAKES or outcome.is_refusal:
        if not message.startswith(CONTEXT_EXCEEDED):
            return Problem(400, message, param=places.input)
        # Clients that see no more than the message look for these words.
        message = f"{message} (context_length_exceeded: the prompt is too long)"
        return Problem(400, message, param=places.input, code="context_length_exceeded")
    return Problem(500, message)


def problem_in(result: bytes) -> Problem | None:
    """What a result that does not end its answer tells of a failure; ``None``: of none."""
    variant, detail = read_result(result)
    return None if variant == "ToolCallParsed" else Problem(500, describe(variant, detail))


def read_result(payload: bytes) -> tuple[str, Any]:
    """Variant and content of an externally tagged result."""
    ((variant, detail),) = msgspec.json.decode(payload, type=dict[str, Any]).items()
    return variant, detail


def describe(variant: str, detail: Any) -> str:
    """A result for people."""
    match variant, detail:
        case _, str():
            return detail
        case "ToolCallValidationFailed", [str() as first, *_]:
            return first
        case "ToolCallValidationFailed", _:
            return "tool call failed validation"
        case "UnrecognizedToolCallFormat", {"text": text, "ffi_error_message": why}:
            return (
                "model produced output the parser did not recognise as any registered tool-call "
                f"format; FFI error: {why}; raw text: {text}"
            )
        case "ImageExceedsBatchSize", {"image_tokens": tokens, "n_batch": n_batch}:
            return (
                f"image required {tokens} tokens but agent n_batch is {n_batch}; "
                "rerun with a larger n_batch"
            )
        case _:
            return f"{variant}: {encode(detail).decode()}"
