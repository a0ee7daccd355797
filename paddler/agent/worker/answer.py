"""One answer in the making: the bytes of its tokens in, what its client is told out."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from paddler.agent.worker.detokenize import Detokenizer
from paddler.agent.worker.markers import ModelFormat
from paddler.agent.worker.scores import Scores
from paddler.agent.worker.sections import Piece, SectionSplitter
from paddler.agent.worker.stop_texts import StopTexts
from paddler.agent.worker.tool_calls.dialects import ToolCallStream, Unrecognized, parse
from paddler.agent.worker.tool_calls.reading import CallStarted, Event, call_id
from paddler.agent.worker.tool_calls.schemas import parameter_schemas
from paddler.messages.chat import Tool
from paddler.messages.inference import GeneratedTokenResult, TokenUsage
from paddler.messages.link import CallDelta, Delivery, FrameKind, ScoredText, TokenScore
from paddler.messages.tools import ParsedToolCall, UnrecognizedToolCall

_CONTENT_KINDS = (FrameKind.CONTENT, FrameKind.UNDETERMINABLE)


class Telling(NamedTuple):
    """One frame for the client: of a token kind, or a structured one."""

    kind: FrameKind
    payload: bytes


class Answer:
    """Splits an answer into its sections, counts its tokens and reads its tool calls.

    ``prompt`` tells in which section it starts. ``tools``: what the model may call.
    ``parses_calls``: read the calls at the end; else only their text is shown.
    ``is_constrained``: a grammar rules the answer, so no JSON in it is a call.
    ``is_scored``: content is told together with the scores that :meth:`feed` was given.
    """

    __slots__ = (
        "_call_stream",
        "_call_text",
        "_form",
        "_holds_space",
        "_limits_calls",
        "_max_calls",
        "_parses_calls",
        "_scores",
        "_space",
        "_splitter",
        "_stop",
        "_text",
        "calls",
        "has_stopped",
        "tools",
    )

    def __init__(
        self,
        form: ModelFormat,
        prompt: str,
        *,
        tools: Sequence[Tool] = (),
        parses_calls: bool = False,
        is_constrained: bool = False,
        is_scored: bool = False,
        delivery: Delivery | None = None,
    ) -> None:
        delivery = delivery or Delivery()
        self._form = form
        self.tools = tools
        self._parses_calls = parses_calls
        self._text = Detokenizer()
        self._splitter = SectionSplitter(
            form.markers, prompt, expects_calls=bool(tools) and not is_constrained
        )
        self._stop = StopTexts(delivery.stop) if delivery.stop else None
        self._scores = Scores() if is_scored else None
        self._max_calls = delivery.max_calls
        self._limits_calls = delivery.limits_calls
        self._call_text: list[str] = []
        self._call_stream = (
            ToolCallStream(own=form.dialect, schemas=parameter_schemas(tools))
            if delivery.call_deltas
            else None
        )
        # Where calls are told apart, white space around them is no content: it is held until
        # something else follows. Scored text is not: each token of it is told.
        self._holds_space = self._call_stream is not None and self._scores is None
        self._space = ""
        self.has_stopped = False
        """Whether a stop text came, or one call too many: nothing more is told."""
        self.calls: list[ParsedToolCall] = []
        """After :meth:`finish`: calls that are to be checked before :meth:`conclude`."""

    def feed(self, piece: bytes, score: TokenScore | None = None) -> list[Telling]:
        """The next token; it counts even if nothing of it can be told yet."""
        text = self._text.feed(piece)
        if self._scores is not None and score is not None:
            self._scores.feed(text, score)
        return self._tell(self._splitter.feed(text))

    def finish(self) -> list[Telling]:
        """The answer ended by itself or at its limit: what was held. See :attr:`calls`."""
        tellings = self.stop()
        if self._call_stream is not None:
            tellings += self._tell_calls(self._call_stream.finish())
        text = "".join(self._call_text)
        if text and self._parses_calls:
            calls = parse(text, own=self._form.dialect, schemas=parameter_schemas(self.tools))
            if isinstance(calls, Unrecognized):
                unrecognized = UnrecognizedToolCall(calls.text, calls.why)
                tellings.append(
                    _result(GeneratedTokenResult(unrecognized_tool_call_format=unrecognized))
                )
            else:
                self.calls = calls[: self._max_calls]
        return tellings

    def conclude(self, wrong: Sequence[str]) -> Telling:
        """What the calls came to: they are told, or what is ``wrong`` with them."""
        if wrong:
            return _result(GeneratedTokenResult(tool_call_validation_failed=list(wrong)))
        return _result(GeneratedTokenResult(tool_call_parsed=self.calls))

    def stop(self) -> list[Telling]:
        """The answer is cut off: what was held, and no more."""
        tellings = self._tell(self._splitter.finish(self._text.flush()))
        text = self._stop.finish() if self._stop is not None else ""
        if text := self._space + text:
            self._space = ""
            tellings.append(self._content(FrameKind.CONTENT, text))
        return tellings

    @property
    def limited_tokens(self) -> int:
        """Tokens that count towards ``max_tokens``: those of tool calls only if asked for."""
        if self._limits_calls:
            return self.tokens
        return self.tokens - self._splitter.counts[FrameKind.TOOL_CALL]

    @property
    def tokens(self) -> int:
        """All tokens that were fed."""
        return sum(self._splitter.counts.values()) + self._splitter.held_tokens

    def usage(
        self, *, prompt_tokens: int, cached_prompt_tokens: int, input_image_tokens: int = 0
    ) -> TokenUsage:
        """The counts of the whole request, once the answer has ended."""
        counts = self._splitter.counts
        return TokenUsage(
            prompt_tokens=prompt_tokens,
            cached_prompt_tokens=cached_prompt_tokens,
            input_image_tokens=input_image_tokens,
            content_tokens=counts[FrameKind.CONTENT],
            reasoning_tokens=counts[FrameKind.REASONING],
            tool_call_tokens=counts[FrameKind.TOOL_CALL],
            undeterminable_tokens=counts[FrameKind.UNDETERMINABLE],
        )

    def _tell(self, pieces: Iterable[Piece]) -> list[Telling]:
        tellings = []
        for piece, token in zip(pieces, self._splitter.piece_tokens, strict=True):
            if self.has_stopped:
                break
            if piece.section not in _CONTENT_KINDS:
                if self._scores is not None:
                    self._scores.pass_over(token)
                tellings.append(Telling(piece.section, escape(piece.text)))
                continue
            if self._scores is not None:
                self._scores.place(token, len(piece.text))
            text = piece.text if self._stop is None else self._stop.feed(piece.text)
            if self._holds_space:
                text = self._hold_space(text)
            if text:
                tellings.append(self._content(piece.section, text))
            self.has_stopped = self._stop is not None and self._stop.has_stopped
        if text := self._splitter.take_call_text():
            self._call_text.append(text)
            if self._call_stream is not None:
                tellings += self._tell_calls(self._call_stream.feed(text))
        return tellings

    def _hold_space(self, text: str) -> str:
        """What may be told of a piece of content now."""
        if text.isspace():
            self._space += text
            return ""
        held, self._space = self._space, ""
        return held + text if text else ""

    def _content(self, section: FrameKind, text: str) -> Telling:
        if self._scores is None:
            return Telling(section, escape(text))
        scored = ScoredText(text, self._scores.take(len(text)))
        return Telling(FrameKind.SCORED, msgspec.json.encode(scored))

    def _tell_calls(self, events: Iterable[Event]) -> list[Telling]:
        tellings = []
        for event in events:
            if self._max_calls is not None and event.index >= self._max_calls:
                self.has_stopped = True
            if self.has_stopped:
                break
            self._space = ""
            tellings.append(Telling(FrameKind.CALL, msgspec.json.encode(_delta(event))))
        return tellings


def escape(text: str) -> bytes:
    """``text`` as the contents of a JSON string: escaped once here, copied everywhere after."""
    return msgspec.json.encode(text)[1:-1]


def _delta(event: Event) -> CallDelta:
    if isinstance(event, CallStarted):
        given = None if event.id == call_id(event.index) else event.id
        return CallDelta(event.index, name=event.name, id=given)
    return CallDelta(event.index, arguments=event.json_text)


def _result(result: GeneratedTokenResult) -> Telling:
    return Telling(FrameKind.RESULT, msgspec.json.encode(result))
