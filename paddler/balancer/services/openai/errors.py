"""Errors in OpenAI's shape, so that its clients raise their own exceptions."""

from typing import Any, Final

import msgspec

from paddler.balancer.link import Concluded
from paddler.errors import ClientError
from paddler.messages.inference import Failure
from paddler.messages.openai.common import ErrorBody, ErrorDetail
from paddler.net.http import Response

RETRY_AFTER_S: Final = 1

# GeneratedTokenResult variants that are the caller's mistake; the others are the server's.
CALLER_MISTAKES: Final = frozenset(
    {
        "ChatTemplateError",
        "GrammarIncompatibleWithThinking",
        "GrammarInitializationFailed",
        "GrammarSyntaxError",
        "ImageDecodingFailed",
        "ImageExceedsBatchSize",
        "MultimodalNotSupported",
        "ToolSchemaInvalid",
    }
)

encode = msgspec.json.Encoder().encode


class ParameterError(ClientError):
    """A field of the request cannot be what it is; ``param`` names it."""

    code = "invalid_parameter"

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


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
        return encode(
            ErrorBody(
                ErrorDetail(message=self.message, type=kind, param=self.param, code=self.code)
            )
        )

    def response(self, headers: tuple[tuple[str, str], ...] = ()) -> Response:
        """The error as a response."""
        if self.status == 503:
            headers = (*headers, ("retry-after", str(RETRY_AFTER_S)))
        return Response(self.status, self.body, content_type="application/json", headers=headers)


def render_error(
    status: int, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()
) -> Response:
    """Any error of this listener."""
    return Problem(status, message).response(headers)


def problem_of(outcome: Concluded | Failure) -> Problem:
    """What is told of an answer that failed."""
    if isinstance(outcome, Failure):
        return Problem(outcome.code, outcome.description)
    variant, detail = read_result(outcome.payload)
    if variant == "TokenGenerationDisabled":
        return Problem(501, describe(variant, detail))
    is_mistake = outcome.is_refusal or variant in CALLER_MISTAKES
    return Problem(400 if is_mistake else 500, describe(variant, detail))


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
