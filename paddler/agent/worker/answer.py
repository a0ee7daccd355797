"""One answer in the making: the bytes of its tokens in, what its client is told out."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from paddler.agent.worker.detokenize import Detokenizer
from paddler.agent.worker.markers import ModelFormat
from paddler.agent.worker.sections import Piece, SectionSplitter
from paddler.agent.worker.tool_calls.dialects import Unrecognized, parse
from paddler.agent.worker.tool_calls.schemas import parameter_schemas
from paddler.messages.inference import GeneratedTokenResult, TokenUsage, Tool
from paddler.messages.link import FrameKind
from paddler.messages.tools import ParsedToolCall, UnrecognizedToolCall

CheckCalls = Callable[[Sequence[ParsedToolCall], Sequence[Tool]], Sequence[str]]
"""What is wrong with calls by the schemas of the tools, a text for each bad one."""


class Telling(NamedTuple):
    """One frame for the client: of a token kind, or a ``RESULT``."""

    kind: FrameKind
    payload: bytes


class Answer:
    """Splits an answer into its sections, counts its tokens and parses its tool calls.

    ``prompt`` tells in which section it starts. ``tools``: what the model may call.
    ``check_calls``: parse the calls at the end and check them; ``None``: only show their
    text. ``is_constrained``: a grammar rules the answer, so no JSON in it is a call.
    """

    __slots__ = ("_call_text", "_check_calls", "_form", "_splitter", "_text", "_tools")

    def __init__(
        self,
        form: ModelFormat,
        prompt: str,
        *,
        tools: Sequence[Tool] = (),
        check_calls: CheckCalls | None = None,
        is_constrained: bool = False,
    ) -> None:
        self._form = form
        self._tools = tools
        self._check_calls = check_calls
        self._text = Detokenizer()
        self._splitter = SectionSplitter(
            form.markers, prompt, expects_calls=bool(tools) and not is_constrained
        )
        self._call_text: list[str] = []

    def feed(self, piece: bytes) -> list[Telling]:
        """The next token; it counts even if nothing of it can be told yet."""
        return self._tell(self._splitter.feed(self._text.feed(piece)))

    def finish(self) -> list[Telling]:
        """The answer ended by itself or at its limit: what was held, then its tool calls."""
        tellings = self.stop()
        calls = "".join(self._call_text)
        if calls and self._check_calls is not None:
            result = self._parse(calls, self._check_calls)
            tellings.append(Telling(FrameKind.RESULT, msgspec.json.encode(result)))
        return tellings

    def stop(self) -> list[Telling]:
        """The answer is cut off: what was held, and no more."""
        return self._tell(self._splitter.finish(self._text.flush()))

    @property
    def limited_tokens(self) -> int:
        """Tokens that count towards ``max_tokens``: all but those of tool calls."""
        counts = self._splitter.counts
        return sum(counts.values()) - counts[FrameKind.TOOL_CALL] + self._splitter.held_tokens

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
        tellings = [Telling(piece.section, escape(piece.text)) for piece in pieces]
        if text := self._splitter.take_call_text():
            self._call_text.append(text)
        return tellings

    def _parse(self, text: str, check_calls: CheckCalls) -> GeneratedTokenResult:
        calls = parse(text, own=self._form.dialect, schemas=parameter_schemas(self._tools))
        if isinstance(calls, Unrecognized):
            unrecognized = UnrecognizedToolCall(calls.text, calls.why)
            return GeneratedTokenResult(unrecognized_tool_call_format=unrecognized)
        if wrong := check_calls(calls, self._tools):
            return GeneratedTokenResult(tool_call_validation_failed=list(wrong))
        return GeneratedTokenResult(tool_call_parsed=calls)


def escape(text: str) -> bytes:
    """``text`` as the contents of a JSON string: escaped once here, copied everywhere after."""
    return msgspec.json.encode(text)[1:-1]
