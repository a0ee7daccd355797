"""``POST /v1/completions``: raw prompts, continued."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Final, Literal

import msgspec

from paddler._fastpath import Sink
from paddler.balancer.link import Agent, Completed
from paddler.balancer.relay import Dispatcher, Outcome
from paddler.balancer.services.openai.answers import (
    MARK,
    AnswerHead,
    EventStream,
    around_mark,
    usage_of,
)
from paddler.balancer.services.openai.choices import run_choices, total_usage
from paddler.balancer.services.openai.errors import ParameterError, Places, problem_of
from paddler.balancer.services.openai.gathering import GatheredChoice
from paddler.balancer.services.openai.requests import (
    MAX_CHOICES,
    check_range,
    sampling_of,
    sampling_of_choice,
    stop_texts,
)
from paddler.balancer.services.outlet import StreamingOutlet
from paddler.ids import new_id
from paddler.messages.inference import ContinueFromRawPrompt, TokenUsage
from paddler.messages.link import (
    Delivery,
    Finished,
    FrameKind,
    RawPromptJob,
    Sampling,
    TokenScore,
    decode_scored_text,
)
from paddler.messages.openai import completions as api
from paddler.net.connection import Exchange
from paddler.net.http import Response, json
from paddler.proto import sse

ROUTE: Final = "completions"
PLACES: Final = Places(input="prompt")
DEFAULT_MAX_TOKENS: Final = 16  # OpenAI's
MAX_LOGPROBS: Final = 5  # OpenAI's

FinishReason = Literal["stop", "length"]

encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(api.CompletionRequest).decode


class Plan(msgspec.Struct, frozen=True):
    """All choices of a request: each prompt as often as it asks for."""

    prompts: list[str]
    jobs: list[RawPromptJob]
    sampling: Sampling
    delivery: Delivery
    echo: bool

    def choice(self, index: int) -> tuple[RawPromptJob, Sampling]:
        """What choice ``index`` asks of an agent."""
        per_prompt = len(self.jobs) // len(self.prompts)
        return self.jobs[index], sampling_of_choice(self.sampling, index % per_prompt)

    def opening(self, index: int) -> str:
        """What the text of choice ``index`` begins with."""
        return self.jobs[index].request.raw_prompt if self.echo else ""


async def create_completion(
    dispatcher: Dispatcher, exchange: Exchange, request: api.CompletionRequest
) -> Response | None:
    """Serve one request."""
    plan = plan_of(request)
    head = AnswerHead(f"cmpl-{new_id()}", int(time.time()), request.model, f"fp_{new_id()}")
    if request.stream:
        return await _stream(dispatcher, exchange, request, plan, head)
    return await _gather(dispatcher, request, plan, head)


def plan_of(request: api.CompletionRequest) -> Plan:
    """What the request comes to; :class:`ParameterError` for what is not served."""
    if request.suffix:
        raise ParameterError(
            "suffix", "suffix is not supported: models continue a prompt, they do not fill gaps"
        )
    if (request.best_of or 1) > (request.n or 1):
        raise ParameterError(
            "best_of", "best_of beyond n is not supported: every answer is returned"
        )
    check_range("logprobs", request.logprobs, 0, MAX_LOGPROBS)
    if request.echo and request.logprobs is not None:
        raise ParameterError("echo", "echo with logprobs is not supported: prompts are not scored")
    prompts = texts_of("prompt", "" if request.prompt is None else request.prompt)
    limit = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    jobs = [
        RawPromptJob(ContinueFromRawPrompt(raw_prompt=prompt, max_tokens=limit))
        for prompt in prompts
        for _ in range(request.n or 1)
    ]
    if len(jobs) > MAX_CHOICES:
        raise ParameterError(
            "n", f"n times the number of prompts is {len(jobs)}; at most {MAX_CHOICES} are allowed"
        )
    return Plan(
        prompts,
        jobs,
        sampling_of(request, top_logprobs=request.logprobs),
        Delivery(stop=stop_texts(request.stop), context_is_limit=True),
        bool(request.echo),
    )


def texts_of(name: str, value: str | list[str | int | list[int]]) -> list[str]:
    """One text or several; token ids are refused, since they mean nothing across models."""
    if isinstance(value, str):
        return [value]
    texts = [text for text in value if isinstance(text, str)]
    if len(texts) < len(value):
        raise ParameterError(name, f"{name} has token ids, which are not supported: send text")
    if not texts:
        raise ParameterError(name, f"{name} is an empty list; it must hold at least one text")
    return texts


# --- whole -------------------------------------------------------------------------------------


async def _gather(
    dispatcher: Dispatcher, request: api.CompletionRequest, plan: Plan, head: AnswerHead
) -> Response:
    choices = [GatheredChoice() for _ in plan.jobs]

    async def run(index: int) -> Outcome:
        job, sampling = plan.choice(index)
        return await dispatcher.run(job, choices[index], sampling, plan.delivery, route=ROUTE)

    outcome = await run_choices([partial(run, index) for index in range(len(choices))])
    if not isinstance(outcome, list):
        return problem_of(outcome, PLACES).response()
    answers = []
    for index, (choice, completed) in enumerate(zip(choices, outcome, strict=True)):
        answers.append(
            api.CompletionChoice(
                index=index,
                text=plan.opening(index) + choice.text,
                logprobs=None if request.logprobs is None else logprobs_of(choice.scores, 0)[0],
                finish_reason=finish_reason(completed.finished),
            )
        )
    completion = api.Completion(
        **msgspec.structs.asdict(head), choices=answers, usage=usage_of(plan_usage(plan, outcome))
    )
    return json(200, encode(completion))


# --- streamed ----------------------------------------------------------------------------------


async def _stream(
    dispatcher: Dispatcher,
    exchange: Exchange,
    request: api.CompletionRequest,
    plan: Plan,
    head: AnswerHead,
) -> Response | None:
    stream = CompletionStream(exchange, head)

    async def run(index: int) -> Outcome:
        job, sampling = plan.choice(index)
        with StreamedChoice(stream, index, plan.opening(index)) as choice:
            outcome = await dispatcher.run(job, choice, sampling, plan.delivery, route=ROUTE)
            if isinstance(outcome, Completed):
                # What follows the end of an only choice, follows at once.
                choice.finish(outcome.finished, more=len(plan.jobs) == 1)
            return outcome

    outcome = await run_choices([partial(run, index) for index in range(len(plan.jobs))])
    if not isinstance(outcome, list):
        return stream.fail(outcome)
    options = request.stream_options
    stream.finish(plan_usage(plan, outcome) if options and options.include_usage else None)
    return None


class CompletionStream(EventStream):
    """The event stream of one answer."""

    def __init__(self, exchange: Exchange, head: AnswerHead) -> None:
        super().__init__(exchange, PLACES)
        self._head = msgspec.structs.asdict(head)

    def encode_piece(
        self,
        index: int,
        text: str,
        *,
        reason: FinishReason | None = None,
        logprobs: api.CompletionLogprobs | None = None,
    ) -> bytes:
        """One event with one choice."""
        choice = api.CompletionChoice(
            index=index, text=text, logprobs=logprobs, finish_reason=reason
        )
        return sse.encode_event(encode(api.Completion(**self._head, choices=[choice])))

    def finish(self, usage: TokenUsage | None) -> None:
        """End well; ``usage`` if it was asked for."""
        if usage is not None:
            last = api.Completion(**self._head, choices=[], usage=usage_of(usage))
            self.exchange.write(sse.encode_event(encode(last)), more=True)
        self.end()


class StreamedChoice(StreamingOutlet):
    """One choice of a :class:`CompletionStream`. ``opening`` comes before what is generated."""

    def __init__(self, stream: CompletionStream, index: int, opening: str) -> None:
        exchange = stream.exchange
        super().__init__(exchange.write_raw, exchange.framing, exchange.flow, exchange.abort)
        self._stream = stream
        self._index = index
        self._opening = opening
        self._chars = 0

    def open_sink(self, stream_id: int, agent: Agent, now: float) -> Sink:
        """Events around each piece of text, whatever it is."""
        self._stream.start(more=bool(self._opening))
        if self._opening:
            opening, self._opening = self._opening, ""
            self._stream.exchange.write(self._stream.encode_piece(self._index, opening))
        prefix, suffix = around_mark(self._stream.encode_piece(self._index, MARK))
        return self._make_sink(stream_id, (prefix,) * 4, suffix, now)

    def on_result(self, kind: FrameKind, payload: bytes, agent: Agent) -> None:
        """Send scored text."""
        if kind is FrameKind.SCORED:
            scored = decode_scored_text(payload)
            logprobs, self._chars = logprobs_of(scored.scores, self._chars)
            self._stream.exchange.write(
                self._stream.encode_piece(self._index, scored.text, logprobs=logprobs)
            )

    def finish(self, finished: Finished, *, more: bool) -> None:
        """Send how the choice ended; ``more``: the end of the stream follows at once."""
        self._stream.exchange.write(
            self._stream.encode_piece(self._index, "", reason=finish_reason(finished)), more=more
        )


# --- parts of both -----------------------------------------------------------------------------


def logprobs_of(scores: Sequence[TokenScore], offset: int) -> tuple[api.CompletionLogprobs, int]:
    """Scores as parallel lists, the first token at ``offset``; and the offset behind the last."""
    offsets = []
    for score in scores:
        offsets.append(offset)
        offset += len(score.token.text)
    logprobs = api.CompletionLogprobs(
        tokens=[score.token.text for score in scores],
        token_logprobs=[score.token.logprob for score in scores],
        top_logprobs=[{one.text: one.logprob for one in score.likeliest} for score in scores],
        text_offset=offsets,
    )
    return logprobs, offset


def plan_usage(plan: Plan, completed: Sequence[Completed]) -> TokenUsage:
    """What all choices cost: each prompt, which its choices share, counts once."""
    per_prompt = len(completed) // len(plan.prompts)
    usages = [
        total_usage(completed[start : start + per_prompt])
        for start in range(0, len(completed), per_prompt)
    ]
    return TokenUsage(
        **{
            name: sum(getattr(usage, name) for usage in usages)
            for name in TokenUsage.__struct_fields__
        }
    )


def finish_reason(finished: Finished) -> FinishReason:
    """OpenAI's word for how the answer ended."""
    return "length" if finished.reason == "length" else "stop"
