"""One running request of a worker, and whom it follows."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from paddler.agent.worker.answer import Answer
from paddler.agent.worker.batch import BatchSequence, Phase
from paddler.agent.worker.engine import TokenizedPrompt
from paddler.agent.worker.prefix_cache import common_prefix
from paddler.messages.inference import TokenUsage

# A prompt waits for another's to be decoded if that saves so much of its own.
MIN_FOLLOWED_TOKENS: Final = 32


class Lead(NamedTuple):
    """A stream whose prompt has the first ``tokens`` in common with a follower's."""

    stream: "Stream"
    tokens: int


class Stream:
    """One request in its slot. ``lead``: whom it follows, while it does."""

    __slots__ = (
        "answer",
        "cached_prompt_tokens",
        "context_is_limit",
        "lead",
        "max_tokens",
        "prompt",
        "prompt_tokens",
        "sequence",
        "stream_id",
    )

    def __init__(
        self,
        stream_id: int,
        prompt: TokenizedPrompt,
        sequence: BatchSequence,
        answer: Answer,
        max_tokens: int,
        *,
        context_is_limit: bool,
    ) -> None:
        self.stream_id = stream_id
        self.prompt = prompt
        self.sequence = sequence
        self.max_tokens = max_tokens
        self.context_is_limit = context_is_limit
        self.prompt_tokens = len(prompt.tokens) - prompt.image_cells
        self.cached_prompt_tokens = sequence.decoded
        self.answer = answer
        self.lead: Lead | None = None

    @property
    def slot(self) -> int:
        """Where its cells are."""
        return self.sequence.slot

    def usage(self) -> TokenUsage:
        """What it has cost so far."""
        return self.answer.usage(
            prompt_tokens=self.prompt_tokens,
            cached_prompt_tokens=self.cached_prompt_tokens,
            input_image_tokens=self.prompt.image_cells,
        )


def lead_for(follower: Stream, running: Iterable[Stream]) -> Lead | None:
    """The running stream that is decoding most of what the follower would have to."""
    prompt = follower.sequence.shareable
    best = None
    for stream in running:
        if stream.sequence.phase is not Phase.PREFILL:
            continue
        common = common_prefix(stream.sequence.shareable, prompt, limit=len(prompt) - 1)
        known = follower.sequence.decoded if best is None else best.tokens
        if common - known >= (MIN_FOLLOWED_TOKENS if best is None else 1):
            best = Lead(stream, common)
    return best
