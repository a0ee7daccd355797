"""What the answers of the endpoints have in common."""

import msgspec

from paddler.balancer.link import Concluded
from paddler.balancer.services.openai.errors import Places, Problem, problem_of
from paddler.messages.inference import Failure, TokenUsage
from paddler.messages.link import TokenScore
from paddler.messages.openai.common import (
    CompletionTokensDetails,
    CompletionUsage,
    PromptTokensDetails,
    TokenLogprob,
    TopLogprob,
)
from paddler.net.connection import Exchange
from paddler.net.http import Response
from paddler.proto import sse

encode = msgspec.json.Encoder().encode

MARK = "\0"
"""Stands for a piece of text in an event that is made once and then cut at it."""
_ENCODED_MARK = encode(MARK)[1:-1]


class AnswerHead(msgspec.Struct, frozen=True):
    """What every object of one answer repeats."""

    id: str
    created: int
    model: str
    system_fingerprint: str


class EventStream:
    """Server-sent events up to ``[DONE]``; the status goes out once a slot is claimed."""

    def __init__(self, exchange: Exchange, places: Places) -> None:
        self.exchange = exchange
        self._places = places

    def start(self, *, more: bool) -> None:
        """Send the status, once; ``more``: a piece of the body follows at once."""
        if not self.exchange.is_started:
            fields = (("cache-control", "no-cache"),)
            self.exchange.start(200, "text/event-stream", fields, more=more)

    def tell(self, problem: Problem) -> None:
        """Send an error event."""
        self.exchange.write(sse.encode_event(problem.body))

    def fail(self, outcome: Concluded | Failure) -> Response | None:
        """End with an error: as the response, if nothing was sent yet."""
        problem = problem_of(outcome, self._places)
        if not self.exchange.is_started:
            return problem.response()
        self.tell(problem)
        self.end()
        return None

    def end(self) -> None:
        """Say that nothing follows."""
        self.exchange.write(sse.DONE, more=True)
        self.exchange.finish()


def around_mark(event: bytes) -> tuple[bytes, bytes]:
    """What stands before and after the mark, so that both ways of writing one cannot differ."""
    before, after = event.rsplit(_ENCODED_MARK, 1)
    return before, after


def usage_of(usage: TokenUsage) -> CompletionUsage:
    """OpenAI's token counts for ours."""
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(usage.cached_prompt_tokens),
        completion_tokens_details=CompletionTokensDetails(usage.reasoning_tokens),
    )


def logprob_of(score: TokenScore) -> TokenLogprob:
    """A token's log probability, and those of its alternatives."""
    token = score.token
    return TokenLogprob(
        token=token.text,
        bytes=token.bytes,
        logprob=token.logprob,
        top_logprobs=[TopLogprob(one.text, one.bytes, one.logprob) for one in score.likeliest],
    )
