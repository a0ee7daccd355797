"""One choice of an answer, gathered whole."""

from collections.abc import Iterator
from typing import Final

import msgspec

from paddler._fastpath import FRAMING_RAW, Sink
from paddler.balancer.link import Agent
from paddler.balancer.services.openai.errors import Problem, problem_in
from paddler.balancer.services.outlet import MAX_UNSENT_BYTES
from paddler.ids import new_id
from paddler.messages.link import (
    CallDelta,
    FrameKind,
    TokenScore,
    decode_call_delta,
    decode_scored_text,
)

# What the relay puts before a piece of text, by kind, to tell content from reasoning.
CONTENT_TAG: Final = b"c"
REASONING_TAG: Final = b"r"
CALL_TAG: Final = b"t"
TAGS: Final = (CONTENT_TAG, REASONING_TAG, CALL_TAG, CONTENT_TAG)


class GatheredCall:
    """A tool call, as far as it has come."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self, name: str, given_id: str | None) -> None:
        self.name = name
        # Models number the calls of one answer, if anything; clients want ids that are
        # unique in the whole conversation.
        self.id = given_id or f"call_{new_id()}"
        self.arguments = ""


class Calls:
    """The tool calls of one choice."""

    __slots__ = ("_by_index",)

    def __init__(self) -> None:
        self._by_index: list[GatheredCall] = []

    def __len__(self) -> int:
        return len(self._by_index)

    def __iter__(self) -> Iterator[GatheredCall]:
        return iter(self._by_index)

    def take(self, delta: CallDelta) -> GatheredCall:
        """Take more of a call; returns that call. Calls begin in the order of their index."""
        if delta.name is not None:
            self._by_index.append(GatheredCall(delta.name, delta.id))
        if not 0 <= delta.index < len(self._by_index):
            raise ValueError(f"more of call {delta.index}, which has not begun")
        call = self._by_index[delta.index]
        call.arguments += delta.arguments
        return call


class GatheredChoice:
    """Text comes as JSON string contents, and is decoded once, at the end."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.calls = Calls()
        self.scores: list[TokenScore] = []
        self.problem: Problem | None = None
        """The first failure that did not end the answer."""

    @property
    def content(self) -> str:
        """Content, and text whose section is unknown."""
        return self._text(CONTENT_TAG)

    @property
    def reasoning(self) -> str:
        """What the model thought."""
        return self._text(REASONING_TAG)

    @property
    def text(self) -> str:
        """All of it, as it came."""
        return _decoded([part[1:] for part in self._parts])

    def open_sink(self, stream_id: int, agent: Agent, now: float) -> Sink:
        """Every piece with its tag."""
        return Sink(stream_id, self._parts.append, FRAMING_RAW, TAGS, b"", now, MAX_UNSENT_BYTES)

    def on_result(self, kind: FrameKind, payload: bytes, agent: Agent) -> None:
        """Take calls, scores and failures."""
        match kind:
            case FrameKind.CALL:
                self.calls.take(decode_call_delta(payload))
            case FrameKind.SCORED:
                scored = decode_scored_text(payload)
                self._parts.append(CONTENT_TAG + msgspec.json.encode(scored.text)[1:-1])
                self.scores += scored.scores
            case _:
                self.problem = self.problem or problem_in(payload)

    def on_overrun(self) -> None:
        """Cannot be: the sink is never paused."""

    def _text(self, tag: bytes) -> str:
        return _decoded([part[1:] for part in self._parts if part[:1] == tag])


def _decoded(pieces: list[bytes]) -> str:
    return _decode_text(b'"%b"' % b"".join(pieces))


_decode_text = msgspec.json.Decoder(str).decode
