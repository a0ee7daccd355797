"""The link between agent and balancer: JSON control messages and binary data messages.

Text messages are the Structs below. A binary message is a run of frames, little-endian:

    u32 stream_id | u8 kind | u8 flags | u16 reserved (0) | u32 length | payload

Kinds below ``FrameKind.RESULT`` carry token text: the contents of a JSON string, already
escaped, without quotes. The others carry a JSON document. ``FRAME_FINAL`` in ``flags``
marks the last frame of its stream, ``FRAME_REFUSED`` a failure that lies in the request
itself: sent again, it would fail again.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from paddler.messages._base import Wire
from paddler.messages.agents import AgentDetails, AgentStatus
from paddler.messages.chat import Chat
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ContinueFromRawPrompt,
    GenerateEmbeddingBatch,
    TokenUsage,
)
from paddler.messages.state import ApplicableState

PROTOCOL_VERSION: Final = 2
MAX_NAME_CHARACTERS: Final = 200
MAX_MESSAGE_BYTES: Final = 128 * 1024 * 1024
"""Of one message on the link, either way, and of one packet on the worker's pipe."""

FRAME_HEADER: Final = struct.Struct("<IBBHI")
FRAME_FINAL: Final = 0x01
FRAME_REFUSED: Final = 0x02
FIRST_STRUCTURED_KIND: Final = 8


class FrameKind(IntEnum):
    """What a frame of a data message carries."""

    CONTENT = 0
    REASONING = 1
    TOOL_CALL = 2
    UNDETERMINABLE = 3
    RESULT = 8
    """A ``GeneratedTokenResult`` that does not end the stream."""
    FAILED = 9
    """A ``GeneratedTokenResult`` that ends the stream."""
    DONE = 10
    """A :class:`Finished`: the stream ended as it should."""
    RETURNED = 11
    """A :class:`Returned`: the agent could not serve or go on serving; another may."""
    EMBEDDING = 12
    """An ``EmbeddingResult`` that does not end the stream."""
    EMBEDDING_END = 13
    """An ``EmbeddingResult`` that ends the stream."""
    CALL = 14
    """A :class:`CallDelta`, where ``Delivery.call_deltas`` asks for them."""
    SCORED = 15
    """A :class:`ScoredText` in place of token text, where ``Sampling.top_logprobs`` is set."""
    EMBEDDING_USAGE = 16
    """An :class:`EmbeddingUsage`: what all documents of the request cost."""


def encode_data_frame(stream_id: int, kind: FrameKind, payload: bytes, flags: int = 0) -> bytes:
    """One frame of a data message."""
    return FRAME_HEADER.pack(stream_id, kind, flags, 0, len(payload)) + payload


class Finished(msgspec.Struct, frozen=True):
    """Payload of ``FrameKind.DONE``. ``reason``: ``stop``, ``length`` or ``cancelled``."""

    usage: TokenUsage
    reason: str


class Returned(msgspec.Struct, frozen=True):
    """Payload of ``FrameKind.RETURNED``: why the agent gave the request back."""

    reason: str


class CallDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """Payload of ``FrameKind.CALL``: a call begins (``name`` is set), or more of its arguments.

    ``id`` is what the model itself called it, if it did. ``arguments`` is a piece of JSON text.
    """

    index: int
    name: str | None = None
    id: str | None = None
    arguments: str = ""


class ScoredToken(msgspec.Struct, frozen=True):
    """A token and the natural logarithm of its probability."""

    text: str
    bytes: list[int]
    logprob: float


class TokenScore(msgspec.Struct, frozen=True):
    """The token that was drawn, and the likeliest ones that might have been."""

    token: ScoredToken
    likeliest: list[ScoredToken]


class ScoredText(msgspec.Struct, frozen=True):
    """Payload of ``FrameKind.SCORED``: text of the answer's content, and its tokens."""

    text: str
    scores: list[TokenScore]


class EmbeddingUsage(msgspec.Struct, frozen=True):
    """Payload of ``FrameKind.EMBEDDING_USAGE``."""

    prompt_tokens: int


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How one answer is told, where a service wants more than the plain text of it.

    ``stop``: texts that end the answer's content, and are no part of it. ``call_deltas``:
    tell tool calls while they are generated. ``max_calls``: end the answer before one more.
    ``limits_calls``: their tokens count towards ``max_tokens``, too. ``context_is_limit``: an
    answer that has begun and finds the context full ends as if at ``max_tokens``.
    """

    stop: tuple[str, ...] = ()
    call_deltas: bool = False
    max_calls: int | None = None
    limits_calls: bool = False
    context_is_limit: bool = False


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Sampling values of one request; ``None`` takes the cluster's inference parameters.

    ``logit_bias`` adds to the logits of tokens, by their ids, before anything else; the model
    may have no token with an id, which is then without effect. ``top_logprobs``: the log
    probabilities of the token that is drawn and of so many of the likeliest are told, 0 to
    20; ``None``: none are.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logit_bias: dict[int, float] | None = None
    top_logprobs: int | None = None


# --- agent to balancer -------------------------------------------------------------------------


class Hello(Wire, frozen=True, kw_only=True, tag="hello"):
    """First message on every connection: who the agent is and what it runs."""

    protocol: int
    version: str
    name: Annotated[str, Meta(max_length=MAX_NAME_CHARACTERS)] | None
    status: AgentStatus


class StatusReport(Wire, frozen=True, tag="status"):
    """Sent each time the agent's status changes."""

    status: AgentStatus


class DetailsReport(Wire, frozen=True, tag="details"):
    """Sent after the welcome, and when something of it changes, at most a few times a second."""

    details: AgentDetails


class Answer(Wire, frozen=True, tag="answer"):
    """The answer to a :class:`Question` with this number; ``error``: there is none, and why."""

    number: int
    value: Any = None
    error: str | None = None


class Goodbye(Wire, frozen=True, tag="goodbye"):
    """The agent stops on purpose; it has reported no slots before."""


FromAgent = Hello | StatusReport | DetailsReport | Answer | Goodbye


# --- balancer to agent -------------------------------------------------------------------------


class Welcome(Wire, frozen=True, tag="welcome"):
    """Answer to a :class:`Hello` that is accepted."""

    protocol: int
    version: str


class Refused(Wire, frozen=True, tag="refused"):
    """Answer to a :class:`Hello` that is not; the balancer closes the link after it."""

    reason: str


class SetState(Wire, frozen=True, tag="set_state"):
    """What the agent shall run, from now on. ``is_default``: nobody has asked for anything yet."""

    state: ApplicableState
    is_default: bool = False


class RawPromptJob(Wire, frozen=True, tag="raw_prompt"):
    """A raw prompt to continue."""

    request: ContinueFromRawPrompt


class ConversationJob(Wire, frozen=True, tag="conversation"):
    """A conversation to continue."""

    request: ContinueFromConversationHistory


class ChatJob(Wire, frozen=True, tag="chat"):
    """A conversation to continue, with all that OpenAI's API knows of."""

    request: Chat


class EmbeddingJob(Wire, frozen=True, tag="embedding"):
    """Documents to embed."""

    request: GenerateEmbeddingBatch


TextJob = RawPromptJob | ConversationJob | ChatJob
Job = TextJob | EmbeddingJob


class StartStream(Wire, frozen=True, kw_only=True, tag="start"):
    """Run one request; its answer comes as frames with this ``stream_id``."""

    stream_id: int
    job: Job
    sampling: Sampling = Sampling()
    delivery: Delivery = Delivery()


class StopStream(Wire, frozen=True, tag="stop"):
    """End a stream early. The agent confirms with its final frame; unknown ids are fine."""

    stream_id: int


class AskMetadata(Wire, frozen=True, tag="metadata"):
    """Which metadata the model file has that was opened last; ``None``: none was."""


class AskTemplateOverride(Wire, frozen=True, tag="template_override"):
    """Which chat template the newest state wants in place of the model's."""


class RenderTemplate(Wire, frozen=True, kw_only=True, tag="render"):
    """A prompt, by any template. The answer is its text."""

    source: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    enable_thinking: bool = True


Ask = AskMetadata | AskTemplateOverride | RenderTemplate


class Question(Wire, frozen=True, tag="question"):
    """Answered by an :class:`Answer` with the same number."""

    number: int
    ask: Ask


FromBalancer = Welcome | Refused | SetState | StartStream | StopStream | Question

decode_from_agent: Callable[[bytes | memoryview], FromAgent] = msgspec.json.Decoder(
    FromAgent
).decode
decode_from_balancer: Callable[[bytes | memoryview], FromBalancer] = msgspec.json.Decoder(
    FromBalancer
).decode
decode_finished = msgspec.json.Decoder(Finished).decode
decode_returned = msgspec.json.Decoder(Returned).decode
decode_call_delta = msgspec.json.Decoder(CallDelta).decode
decode_scored_text = msgspec.json.Decoder(ScoredText).decode
decode_embedding_usage = msgspec.json.Decoder(EmbeddingUsage).decode
encode = msgspec.json.Encoder().encode
