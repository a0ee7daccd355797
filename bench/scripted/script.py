"""What scripted agents do: their pace, their answers, their faults."""

import random
import time
from enum import Enum
from typing import Final

import msgspec

from paddler.messages import link as wire
from paddler.messages.inference import TextPart

WORDS: Final = (b" the", b" river", b" ran", b" under", b" a", b" bridge", b" of", b" stone")
CHARACTERS_PER_TOKEN: Final = 4  # of a prompt, about
EMBEDDING: Final = b"[0.5,-0.5,0.5,-0.5]"


class Fault(Enum):
    """What may go wrong in the middle of an answer."""

    STALL = "stall"
    """Silence: nothing more comes until the balancer stops the answer."""
    DROP = "drop"
    """The agent's connection breaks, and it dials again."""
    GARBAGE = "garbage"
    """The agent sends bytes that are no data message."""


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """How every agent of a fleet behaves.

    ``tokens_per_s`` is each stream's pace; 0: the whole answer at once. ``tokens`` is how
    long an answer is that its request does not make shorter. ``is_stamped``: each token's text
    carries ``<t``, ``time.monotonic_ns()`` and ``>``. The faults are chances from 0 to 1 that
    an answer meets with one. ``reconnect_every_s``: an agent hangs up that often, on average.
    """

    slots: int
    tokens_per_s: float = 20.0
    prefill_s: float = 0.0
    tokens: int = 128
    is_stamped: bool = False
    stall: float = 0.0
    drop: float = 0.0
    garbage: float = 0.0
    reconnect_every_s: float | None = None

    @property
    def step_s(self) -> float:
        """Time between two tokens of a stream; 0: none."""
        return 1 / self.tokens_per_s if self.tokens_per_s else 0.0

    def draw_fault(self, dice: random.Random) -> Fault | None:
        """The fault that the next answer meets with, if any."""
        roll = dice.random()
        for fault, chance in (
            (Fault.STALL, self.stall),
            (Fault.DROP, self.drop),
            (Fault.GARBAGE, self.garbage),
        ):
            if roll < chance:
                return fault
            roll -= chance
        return None

    def text(self, step: int) -> bytes:
        """The token of this step, as the contents of a JSON string."""
        word = WORDS[step % len(WORDS)]
        return b"%b<t%d>" % (word, time.monotonic_ns()) if self.is_stamped else word


def prompt_of(job: wire.Job) -> tuple[int, int]:
    """A request's prompt in tokens, about, and the most tokens that it wants."""
    match job:
        case wire.RawPromptJob(request):
            return _tokens_in(len(request.raw_prompt)), request.max_tokens
        case wire.ConversationJob(request):
            texts = [message.content for message in request.conversation_history]
            return _tokens_in(sum(map(_characters, texts))), request.max_tokens
        case wire.ChatJob(chat):
            contents = [message.content or "" for message in chat.messages]
            return _tokens_in(sum(map(_characters, contents))), chat.max_tokens
        case wire.EmbeddingJob(batch):
            return _tokens_in(sum(len(document.content) for document in batch.input_batch)), 0


def _characters(content: object) -> int:
    if isinstance(content, str):
        return len(content)
    parts = content if isinstance(content, list) else []
    return sum(len(part.text) for part in parts if isinstance(part, TextPart))


def _tokens_in(characters: int) -> int:
    return characters // CHARACTERS_PER_TOKEN + 1
