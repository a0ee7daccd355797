"""Messages of the native inference service, the same on HTTP and on its WebSocket."""

from typing import Final

import msgspec

from paddler.balancer.link import Completed, Concluded
from paddler.balancer.relay import Outcome
from paddler.messages.inference import (
    ErrorEnvelope,
    ErrorMessage,
    Failure,
    GeneratedTokenResult,
)

# In the order of the token kinds of the link (content, reasoning, tool call, undeterminable).
TOKEN_OPENINGS: Final = (
    b'{"ContentToken":"',
    b'{"ReasoningToken":"',
    b'{"ToolCallToken":"',
    b'{"UndeterminableToken":"',
)

# What stands after a token's text; closes what its prefix opened.
TOKEN_SUFFIX: Final = b'"}}}}'

encode = msgspec.json.Encoder().encode


def envelope_prefix(generated_by: str | None, request_id: str) -> bytes:
    """What stands before a ``GeneratedTokenResult`` in its message; ``}}}`` closes it."""
    return b'{"Response":{"generated_by":%b,"request_id":%b,"response":{"GeneratedToken":' % (
        encode(generated_by),
        encode(request_id),
    )


def token_prefixes(generated_by: str | None, request_id: str) -> tuple[bytes, ...]:
    """What stands before a token's text, for each kind of token."""
    prefix = envelope_prefix(generated_by, request_id)
    return tuple([prefix + opening for opening in TOKEN_OPENINGS])


def error_message(failure: Failure, request_id: str) -> bytes:
    """``{"Error": …}`` for one request."""
    return encode(ErrorMessage(ErrorEnvelope(request_id, failure)))


def result_message(result: bytes, generated_by: str | None, request_id: str) -> bytes:
    """``{"Response": …}`` around a ``GeneratedTokenResult`` in JSON."""
    return envelope_prefix(generated_by, request_id) + result + b"}}}"


def final_message(outcome: Outcome, request_id: str) -> bytes:
    """The message that ends an answer."""
    match outcome:
        case Completed():
            done = GeneratedTokenResult(done={"usage": outcome.finished.usage})
            return result_message(encode(done), outcome.agent.name, request_id)
        case Concluded():
            return result_message(outcome.payload, outcome.agent.name, request_id)
        case Failure():
            return error_message(outcome, request_id)
