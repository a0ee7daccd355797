"""The OpenAI-compatible service: chat completions, streamed and whole."""

import time
from typing import Final

import msgspec

from paddler._fastpath import FRAMING_RAW, Sink
from paddler.balancer.desired_state import DesiredStateStore
from paddler.balancer.link import Agent, Completed, Concluded
from paddler.balancer.relay import Dispatcher, Outcome
from paddler.balancer.services.body import read_json
from paddler.balancer.services.health import get_health
from paddler.balancer.services.outlet import MAX_UNSENT_BYTES, StreamingOutlet
from paddler.errors import ClientError
from paddler.ids import new_id
from paddler.messages import openai as api
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ConversationMessage,
    Failure,
    ImagePart,
    ImageUrl,
    TextPart,
    TokenUsage,
)
from paddler.messages.link import ConversationJob, Finished, Sampling
from paddler.net.connection import Exchange
from paddler.net.http import Response, Router, json
from paddler.proto import sse

DEFAULT_MAX_TOKENS: Final = 2000
RETRY_AFTER_S: Final = 1

CHAT_DISABLED: Final = (
    "Chat completions are disabled while the cluster is configured for embeddings"
)

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
decode_chat = msgspec.json.Decoder(api.ChatCompletionRequest).decode


def render_error(
    status: int, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()
) -> Response:
    """Any error in OpenAI's shape, so that its clients raise their own exceptions.

    ``code`` is ours and stays out: OpenAI's codes have meanings of their own.
    """
    kind = "invalid_request_error" if status < 500 else "server_error"
    if status == 503:
        headers = (*headers, ("retry-after", str(RETRY_AFTER_S)))
    body = api.ErrorBody(api.ErrorDetail(message=message, type=kind))
    return Response(status, encode(body), content_type="application/json", headers=headers)


class OpenAIService:
    """Routes of the OpenAI listener."""

    def __init__(self, dispatcher: Dispatcher, state: DesiredStateStore) -> None:
        self._dispatcher = dispatcher
        self._state = state

    def add_routes(self, router: Router) -> None:
        """Register everything this service answers."""
        router.add("GET", "/health", get_health)
        router.add("POST", "/v1/chat/completions", self.create_chat_completion)

    async def create_chat_completion(self, exchange: Exchange) -> Response | None:
        """``POST /v1/chat/completions``."""
        request = read_json(exchange.request, decode_chat)
        if self._state.is_embedding:
            raise ClientError(CHAT_DISABLED, status=501, code="embeddings_mode")
        refuse_unserved(request)
        job = ConversationJob(conversation_of(request))
        head = AnswerHead(f"chatcmpl-{new_id()}", int(time.time()), request.model, f"fp_{new_id()}")
        if not request.stream:
            collected = CollectedAnswer(head)
            return collected.respond(
                await self._dispatcher.run(job, collected, sampling_of(request))
            )
        options = request.stream_options
        with StreamedAnswer(
            exchange, head, with_usage=bool(options and options.include_usage)
        ) as streamed:
            return streamed.end(await self._dispatcher.run(job, streamed, sampling_of(request)))


class AnswerHead(msgspec.Struct, frozen=True):
    """What every object of one answer repeats."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    def encode_chunk(
        self,
        delta: api.ChatDelta,
        finish_reason: api.FinishReason | None = None,
    ) -> bytes:
        """One event with one choice."""
        return sse.encode_event(
            encode(
                api.ChatChunk(
                    id=self.id,
                    created=self.created,
                    model=self.model,
                    system_fingerprint=self.system_fingerprint,
                    choices=[api.ChunkChoice(delta=delta, finish_reason=finish_reason)],
                )
            )
        )


class CollectedAnswer:
    """A whole answer: the text is gathered as JSON string contents, never decoded."""

    def __init__(self, head: AnswerHead) -> None:
        self._head = head
        self._parts: list[bytes] = []

    def open_sink(self, stream_id: int, agent: Agent, now: float) -> Sink:
        """Text of content and of tokens whose section is unknown; reasoning and calls are not."""
        return Sink(
            stream_id,
            self._parts.append,
            FRAMING_RAW,
            (b"", None, None, b""),
            b"",
            now,
            MAX_UNSENT_BYTES,
        )

    def on_result(self, payload: bytes, agent: Agent) -> None:
        """Nothing to show for now."""

    def on_overrun(self) -> None:
        """Cannot be: the sink is never paused."""

    def respond(self, outcome: Outcome) -> Response:
        """The response for how the request ended."""
        if not isinstance(outcome, Completed):
            return error_response(outcome)
        usage = encode(usage_of(outcome.finished.usage))
        body = (
            b'{"id":%b,"object":"chat.completion","created":%d,"model":%b,"choices":[{"index":0,'
            b'"message":{"role":"assistant","content":"%b","refusal":null,"annotations":[]},'
            b'"logprobs":null,"finish_reason":%b}],"usage":%b,"service_tier":"default"}'
        ) % (
            encode(self._head.id),
            self._head.created,
            encode(self._head.model),
            b"".join(self._parts),
            encode(finish_reason(outcome.finished)),
            usage,
        )
        return json(200, body)


class StreamedAnswer(StreamingOutlet):
    """An answer as server-sent events; the status goes out once a slot is claimed."""

    def __init__(self, exchange: Exchange, head: AnswerHead, *, with_usage: bool) -> None:
        super().__init__(exchange.write_raw, exchange.framing, exchange.flow, exchange.abort)
        self._exchange = exchange
        self._head = head
        self._with_usage = with_usage
        self._is_started = False

    def open_sink(self, stream_id: int, agent: Agent, now: float) -> Sink:
        """Events around each piece of text."""
        if not self._is_started:
            self._start()
        # Cut a real chunk at its text, so that both ways of writing one cannot differ.
        mark = "\0"
        chunk = self._head.encode_chunk(api.ChatDelta(content=mark))
        before, after = chunk.rsplit(encode(mark)[1:-1], 1)
        return self._make_sink(stream_id, (before, None, None, before), after, now)

    def on_result(self, payload: bytes, agent: Agent) -> None:
        """Nothing to show for now."""

    def end(self, outcome: Outcome) -> Response | None:
        """Write the last events, or an error response if nothing was sent yet."""
        if not self._is_started and not isinstance(outcome, Completed):
            return error_response(outcome)
        if isinstance(outcome, Completed):
            self._finish(outcome.finished)
        else:
            self._exchange.write(sse.encode_event(error_response(outcome).body))
        self._exchange.write(sse.DONE)
        self._exchange.finish()
        return None

    def _start(self) -> None:
        self._is_started = True
        self._exchange.start(200, "text/event-stream", (("cache-control", "no-cache"),))
        opening = api.ChatDelta(role="assistant", content="", refusal=None)
        self._exchange.write(self._head.encode_chunk(opening))

    def _finish(self, finished: Finished) -> None:
        self._exchange.write(self._head.encode_chunk(api.ChatDelta(), finish_reason(finished)))
        if self._with_usage:
            usage = api.ChatChunk(
                id=self._head.id,
                created=self._head.created,
                model=self._head.model,
                system_fingerprint=self._head.system_fingerprint,
                choices=[],
                usage=usage_of(finished.usage),
            )
            self._exchange.write(sse.encode_event(encode(usage)))


def conversation_of(request: api.ChatCompletionRequest) -> ContinueFromConversationHistory:
    """The native request for a chat completion."""
    limit = request.max_completion_tokens
    if limit is None:
        limit = request.max_tokens
    return ContinueFromConversationHistory(
        add_generation_prompt=True,
        conversation_history=[message_of(message) for message in request.messages],
        enable_thinking=True,
        max_tokens=DEFAULT_MAX_TOKENS if limit is None else limit,
    )


def message_of(message: api.ChatMessage) -> ConversationMessage:
    """The native message for one of OpenAI's; ``content: null`` is empty text.

    Text parts alone are joined, since many chat templates take only a string.
    """
    parts = message.content
    if parts is None or isinstance(parts, str):
        return ConversationMessage(message.role, parts or "")
    texts = [part.text for part in parts if isinstance(part, api.TextPart)]
    if len(texts) == len(parts):
        return ConversationMessage(message.role, "\n".join(texts))
    return ConversationMessage(
        message.role,
        [
            TextPart(part.text)
            if isinstance(part, api.TextPart)
            else ImagePart(ImageUrl(part.image_url.url))
            for part in parts
        ],
    )


def sampling_of(request: api.ChatCompletionRequest) -> Sampling:
    """The sampling values that the request sets; the desired state fills in the others."""
    return Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        seed=request.seed,
    )


def refuse_unserved(request: api.ChatCompletionRequest) -> None:
    """Refuse by name what this service does not do yet, rather than ignore it."""
    asked = {
        "n": request.n not in (None, 1),
        "stop": bool(request.stop),
        "logprobs": bool(request.logprobs),
        "logit_bias": bool(request.logit_bias),
        "response_format": (request.response_format or {}).get("type", "text") != "text",
        "tools": bool(request.tools),
        "tool_choice": request.tool_choice not in (None, "none", "auto"),
        "top_logprobs": bool(request.top_logprobs),
        "messages[].tool_calls": any(message.tool_calls for message in request.messages),
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise ClientError(f"{name} is not supported by this version", code="unsupported")


def usage_of(usage: TokenUsage) -> api.CompletionUsage:
    """OpenAI's token counts for ours."""
    return api.CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=api.PromptTokensDetails(usage.cached_prompt_tokens),
        completion_tokens_details=api.CompletionTokensDetails(usage.reasoning_tokens),
    )


def finish_reason(finished: Finished) -> api.FinishReason:
    """OpenAI's word for how the answer ended."""
    return "length" if finished.reason == "length" else "stop"


def error_response(outcome: Concluded | Failure) -> Response:
    """The error response for an answer that failed."""
    if isinstance(outcome, Failure):
        return render_error(outcome.code, "failed", outcome.description)
    ((variant, detail),) = msgspec.json.decode(outcome.payload, type=dict[str, object]).items()
    message = detail if isinstance(detail, str) else encode(detail).decode()
    if variant == "TokenGenerationDisabled":
        return render_error(501, variant, message)
    is_mistake = outcome.is_refusal or variant in CALLER_MISTAKES
    return render_error(400 if is_mistake else 500, variant, message)
