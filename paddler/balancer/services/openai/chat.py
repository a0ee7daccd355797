"""``POST /v1/chat/completions``, whole and streamed."""

import time
from functools import partial
from typing import Final

import msgspec

from paddler._fastpath import Sink
from paddler.balancer.link import Agent, Completed
from paddler.balancer.relay import Dispatcher, Outcome
from paddler.balancer.services.openai.answers import (
    MARK,
    AnswerHead,
    EventStream,
    around_mark,
    logprob_of,
    usage_of,
)
from paddler.balancer.services.openai.chat_request import AgentRequest, agent_request
from paddler.balancer.services.openai.choices import run_choices, total_usage
from paddler.balancer.services.openai.errors import Places, problem_in, problem_of
from paddler.balancer.services.openai.gathering import Calls, GatheredCall, GatheredChoice
from paddler.balancer.services.openai.requests import sampling_of_choice
from paddler.balancer.services.outlet import StreamingOutlet
from paddler.ids import new_id
from paddler.messages.inference import TokenUsage
from paddler.messages.link import (
    CallDelta,
    Finished,
    FrameKind,
    decode_call_delta,
    decode_scored_text,
)
from paddler.messages.openai import chat as api
from paddler.net.connection import Exchange
from paddler.net.http import Response, json
from paddler.proto import sse

ROUTE: Final = "chat_completions"
PLACES: Final = Places(input="messages", format="response_format")

encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(api.ChatCompletionRequest).decode


async def create_chat_completion(
    dispatcher: Dispatcher, exchange: Exchange, request: api.ChatCompletionRequest
) -> Response | None:
    """Serve one request."""
    asked = agent_request(request)
    head = AnswerHead(f"chatcmpl-{new_id()}", int(time.time()), request.model, f"fp_{new_id()}")
    if request.stream:
        return await _stream(dispatcher, exchange, request, asked, head)
    return await _gather(dispatcher, request, asked, head)


# --- whole -------------------------------------------------------------------------------------


async def _gather(
    dispatcher: Dispatcher,
    request: api.ChatCompletionRequest,
    asked: AgentRequest,
    head: AnswerHead,
) -> Response:
    choices = [GatheredChoice() for _ in range(request.n or 1)]
    outcome = await run_choices(
        [
            partial(
                dispatcher.run,
                asked.job,
                choice,
                sampling_of_choice(asked.sampling, index),
                asked.delivery,
                route=ROUTE,
            )
            for index, choice in enumerate(choices)
        ]
    )
    if not isinstance(outcome, list):
        return problem_of(outcome, PLACES).response()
    for choice in choices:
        if choice.problem is not None:
            return choice.problem.response()
    completion = api.ChatCompletion(
        **msgspec.structs.asdict(head),
        choices=[
            whole_choice(
                index,
                choice,
                completed.finished,
                shows_reasoning=request.include_reasoning is not False,
                is_scored=bool(request.logprobs),
            )
            for index, (choice, completed) in enumerate(zip(choices, outcome, strict=True))
        ],
        usage=usage_of(total_usage(outcome)),
    )
    return json(200, encode(completion))


def whole_choice(
    index: int,
    choice: GatheredChoice,
    finished: Finished,
    *,
    shows_reasoning: bool,
    is_scored: bool,
) -> api.Choice:
    """One choice of a whole answer."""
    content, reasoning = choice.content, choice.reasoning
    return api.Choice(
        index=index,
        message=api.AnswerMessage(
            role="assistant",
            # White space between calls is no content.
            content=None if choice.calls and not content.strip() else content,
            refusal=None,
            annotations=[],
            reasoning_content=reasoning if reasoning and shows_reasoning else msgspec.UNSET,
            tool_calls=[whole_call(call) for call in choice.calls] or msgspec.UNSET,
        ),
        logprobs=api.Logprobs([logprob_of(score) for score in choice.scores])
        if is_scored
        else None,
        finish_reason=finish_reason(finished, has_calls=bool(choice.calls)),
    )


def whole_call(call: GatheredCall) -> api.MessageToolCall:
    """A call of a whole answer."""
    return api.MessageToolCall(id=call.id, function=api.Function(call.name, call.arguments))


# --- streamed ----------------------------------------------------------------------------------


async def _stream(
    dispatcher: Dispatcher,
    exchange: Exchange,
    request: api.ChatCompletionRequest,
    asked: AgentRequest,
    head: AnswerHead,
) -> Response | None:
    stream = ChatStream(exchange, head, shows_reasoning=request.include_reasoning is not False)
    choices = request.n or 1

    async def run(index: int) -> Outcome:
        with StreamedChoice(stream, index) as choice:
            outcome = await dispatcher.run(
                asked.job,
                choice,
                sampling_of_choice(asked.sampling, index),
                asked.delivery,
                route=ROUTE,
            )
            if isinstance(outcome, Completed):
                # What follows the end of an only choice, follows at once.
                choice.finish(outcome.finished, more=choices == 1)
            return outcome

    outcome = await run_choices([partial(run, index) for index in range(choices)])
    if not isinstance(outcome, list):
        return stream.fail(outcome)
    options = request.stream_options
    stream.finish(total_usage(outcome) if options and options.include_usage else None)
    return None


class ChatStream(EventStream):
    """The event stream of one answer."""

    def __init__(self, exchange: Exchange, head: AnswerHead, *, shows_reasoning: bool) -> None:
        super().__init__(exchange, PLACES)
        self.shows_reasoning = shows_reasoning
        self._head = msgspec.structs.asdict(head)

    def encode_chunk(
        self,
        index: int,
        delta: api.ChatDelta,
        *,
        finish_reason: api.FinishReason | None = None,
        logprobs: api.Logprobs | None = None,
    ) -> bytes:
        """One event with one choice."""
        choice = api.ChunkChoice(
            index=index, delta=delta, finish_reason=finish_reason, logprobs=logprobs
        )
        return sse.encode_event(encode(api.ChatChunk(**self._head, choices=[choice])))

    def finish(self, usage: TokenUsage | None) -> None:
        """End well; ``usage`` if it was asked for."""
        if usage is not None:
            chunk = api.ChatChunk(**self._head, usage=usage_of(usage))
            self.exchange.write(sse.encode_event(encode(chunk)), more=True)
        self.end()


class StreamedChoice(StreamingOutlet):
    """One choice of a :class:`ChatStream`."""

    def __init__(self, stream: ChatStream, index: int) -> None:
        exchange = stream.exchange
        super().__init__(exchange.write_raw, exchange.framing, exchange.flow, exchange.abort)
        self._stream = stream
        self._index = index
        self._is_opened = False
        self._calls = Calls()

    def open_sink(self, stream_id: int, agent: Agent, now: float) -> Sink:
        """Events around each piece of text."""
        if not self._is_opened:
            self._is_opened = True
            self._stream.start(more=True)
            self._write(api.ChatDelta(role="assistant", content="", refusal=None))
        content, suffix = self._around_text(api.ChatDelta(content=MARK))
        reasoning, _ = self._around_text(api.ChatDelta(reasoning_content=MARK))
        shown_reasoning = reasoning if self._stream.shows_reasoning else None
        prefixes = (content, shown_reasoning, None, content)
        return self._make_sink(stream_id, prefixes, suffix, now)

    def on_result(self, kind: FrameKind, payload: bytes, agent: Agent) -> None:
        """Send calls, scored text, and failures that do not end the answer."""
        match kind:
            case FrameKind.CALL:
                delta = decode_call_delta(payload)
                call = self._calls.take(delta)
                self._write(api.ChatDelta(tool_calls=[call_delta(delta, call)]))
            case FrameKind.SCORED:
                scored = decode_scored_text(payload)
                logprobs = api.Logprobs([logprob_of(score) for score in scored.scores])
                self._write(api.ChatDelta(content=scored.text), logprobs=logprobs)
            case _:
                if (problem := problem_in(payload)) is not None:
                    self._stream.tell(problem)

    def finish(self, finished: Finished, *, more: bool) -> None:
        """Send how the choice ended; ``more``: the end of the stream follows at once."""
        reason = finish_reason(finished, has_calls=bool(self._calls))
        self._write(api.ChatDelta(), finish_reason=reason, more=more)

    def _write(
        self,
        delta: api.ChatDelta,
        *,
        finish_reason: api.FinishReason | None = None,
        logprobs: api.Logprobs | None = None,
        more: bool = False,
    ) -> None:
        self._stream.exchange.write(
            self._stream.encode_chunk(
                self._index, delta, finish_reason=finish_reason, logprobs=logprobs
            ),
            more=more,
        )

    def _around_text(self, delta: api.ChatDelta) -> tuple[bytes, bytes]:
        return around_mark(self._stream.encode_chunk(self._index, delta))


# --- parts of both -----------------------------------------------------------------------------


def call_delta(delta: CallDelta, call: GatheredCall) -> api.ToolCallDelta:
    """A call that begins, or more of its arguments."""
    if delta.name is None:
        return api.ToolCallDelta(
            index=delta.index, function=api.FunctionDelta(arguments=delta.arguments)
        )
    return api.ToolCallDelta(
        index=delta.index,
        id=call.id,
        type="function",
        function=api.FunctionDelta(name=delta.name, arguments=delta.arguments),
    )


def finish_reason(finished: Finished, *, has_calls: bool) -> api.FinishReason:
    """OpenAI's word for how the answer ended."""
    if finished.reason == "length":
        return "length"
    return "tool_calls" if has_calls else "stop"
