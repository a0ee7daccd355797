"""Which part of an answer a text belongs to: reasoning, content or tool calls.

A model says it with markers in its text. The splitter is fed one token at a time and
moves between sections as markers come:

    PENDING ──► REASONING ◄──► CONTENT ◄──► TOOL_CALL

An opening leads to its section from any other, a closing always to CONTENT. Markers are
found in the text, not in the tokens, so that the result is the same however tokens cut
it. What may still become a marker is held back, and nothing else. Markers are not shown,
but their tokens count: an opening's in the section it opens, a closing's in the one it
closes.

Two things lead to a section without a fixed text. A *header* names it, as
``<|channel|>analysis<|message|>`` does. A *bare call* is a JSON object at the start of a
line that has what a call has, or a list of calls as Python writes them; it is held until
it is known to be one, or none.
"""

import functools
import re
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from paddler.agent.worker.tool_calls.json_calls import read_json_calls
from paddler.agent.worker.tool_calls.pythonic import read_call_list
from paddler.agent.worker.tool_calls.reading import Mismatch, Reader, Source
from paddler.messages.link import FrameKind

PENDING: Final = FrameKind.UNDETERMINABLE
CONTENT: Final = FrameKind.CONTENT
REASONING: Final = FrameKind.REASONING
TOOL_CALL: Final = FrameKind.TOOL_CALL

# Longest header. A longer text only began like one.
_MAX_HEADER_CHARS: Final = 256


# --- what a model's markers are ----------------------------------------------------------------


class Headers(NamedTuple):
    """Headers run from one of ``begins`` to ``end``; what stands between names the section."""

    begins: tuple[str, ...]
    body: re.Pattern[str]
    end: str
    section: Callable[[str], FrameKind]


def _channel_section(body: str) -> FrameKind:
    recipient = re.search(r"\bto=([\w.\-]+)", body)
    if recipient is None:
        return REASONING if "analysis" in body else CONTENT
    match recipient[1]:
        case "self":
            return REASONING
        case "user" | "assistant" | "all":
            return CONTENT
        case _:
            return TOOL_CALL


def _recipient_section(body: str) -> FrameKind:
    return CONTENT if body == "all" else TOOL_CALL


# gpt-oss and its kin.
CHANNEL_HEADERS: Final = Headers(
    ("<|start|>", "<|channel|>"), re.compile(r"[^\n]*"), "<|message|>", _channel_section
)
# Functionary: a message to "all" is content, one to a function calls it.
RECIPIENT_HEADERS: Final = Headers((">>>",), re.compile(r"[\w.\-]*"), "\n", _recipient_section)


class Markers(NamedTuple):
    """What tells the sections of a model's answers apart."""

    reasoning: tuple[str, ...] = ()
    """Open reasoning."""
    content: tuple[str, ...] = ()
    """Open content."""
    tool_calls: tuple[str, ...] = ()
    """Open tool calls."""
    closings: tuple[str, ...] = ()
    """Close what is open."""
    headers: Headers | None = None
    has_bare_calls: bool = False
    """Whether the model calls tools by JSON, or as Python does, with no marker before it."""
    turn_starts: tuple[str, ...] = ()
    """What may begin an answer in a prompt: nothing before the last one tells where it starts."""

    @property
    def is_known(self) -> bool:
        """Whether anything tells sections apart; if not, all text is undeterminable."""
        return (
            any((self.reasoning, self.content, self.tool_calls, self.closings))
            or self.headers is not None
            or self.has_bare_calls
        )


class _Table:
    """Markers in the form that is searched for."""

    __slots__ = ("_first_chars", "_max_chars", "_pattern", "_prefixes", "headers", "sections")

    def __init__(self, markers: Markers) -> None:
        self.headers = markers.headers
        # ``None`` stands for a closing. Openings win over closings of the same text.
        self.sections: dict[str, FrameKind | None] = {
            **dict.fromkeys(markers.closings),
            **dict.fromkeys(markers.content, CONTENT),
            **dict.fromkeys(markers.tool_calls, TOOL_CALL),
            **dict.fromkeys(markers.reasoning, REASONING),
        }
        texts = [*self.sections, *(self.headers.begins if self.headers else ())]
        # Of two that begin alike, the longer is meant.
        texts.sort(key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        self._prefixes = {text[:length] for text in texts for length in range(1, len(text))}
        self._max_chars = max(map(len, texts), default=0)
        self._first_chars = re.compile("|".join({re.escape(text[0]) for text in texts}) or r"(?!)")

    def may_begin_in(self, text: str) -> bool:
        """Whether any marker may begin in ``text``: no is final."""
        return self._first_chars.search(text) is not None

    def find(self, text: str, *, is_end: bool) -> tuple[int, str | None]:
        """Where the first marker is, and its text; ``None`` if it has come only in part."""
        found = self._pattern.search(text)
        at = len(text) if found is None else found.start()
        if not is_end:
            for start in range(max(0, len(text) - self._max_chars + 1), min(at + 1, len(text))):
                if text[start:] in self._prefixes:
                    return start, None
        return at, found.group() if found else None


@functools.lru_cache(maxsize=4)  # one model at a time; some more while it is replaced
def _table(markers: Markers) -> _Table:
    return _Table(markers)


# --- one answer --------------------------------------------------------------------------------


class Piece(NamedTuple):
    """Text of one token, or of a part of it, in one section. Never empty."""

    section: FrameKind
    text: str


class SectionSplitter:
    """Splits one answer. ``prompt`` tells in which section it starts.

    ``expects_calls``: whether a bare call may come. It must be off where a grammar makes
    the answer JSON: no part of it may be held.
    """

    __slots__ = (
        "_bare_call",
        "_call_text",
        "_expects_calls",
        "_header_begin",
        "_is_line_start",
        "_pieces",
        "_section",
        "_table",
        "_text",
        "_tokens",
        "_tokens_fed",
        "counts",
        "piece_tokens",
    )

    def __init__(self, markers: Markers, prompt: str, *, expects_calls: bool) -> None:
        self.counts: dict[FrameKind, int] = {CONTENT: 0, REASONING: 0, TOOL_CALL: 0, PENDING: 0}
        self._table = _table(markers)
        self._section: FrameKind = PENDING
        self._tokens: deque[_Token] = deque()  # that are held, with what is held of each
        self._text = ""  # theirs, joined
        self._tokens_fed = 0
        self._pieces: list[tuple[_Token, Piece]] = []
        self.piece_tokens: list[int] = []
        """Of the pieces given last, the numbers of their tokens in the order of feeding, from 0."""
        self._call_text: list[str] = []
        self._header_begin: str | None = None  # of the header that has begun
        self._bare_call: _BareCall | None = None
        self._is_line_start = True
        self._expects_calls = False
        starts = [prompt.rfind(turn_start) for turn_start in markers.turn_starts]
        self._replay(prompt[max(0, *starts, 0) :])
        self._expects_calls = expects_calls and markers.is_known

    @property
    def section(self) -> FrameKind:
        """Where the next text belongs, as far as is known."""
        return self._section

    @property
    def held_tokens(self) -> int:
        """Tokens that are not in ``counts`` yet."""
        return sum(not token.is_counted for token in self._tokens)

    def feed(self, text: str) -> list[Piece]:
        """The next token. Its text may be empty; it counts all the same."""
        self._tokens_fed += 1
        return self._feed(_Token(text, number=self._tokens_fed - 1))

    def finish(self, text: str = "") -> list[Piece]:
        """The end of the answer, with late ``text`` of tokens that were fed; nothing stays held."""
        if text:
            self._add(_Token(text, number=self._tokens_fed - 1, is_counted=True))
        return self._advance(is_end=True)

    def take_call_text(self) -> str:
        """The raw text of tool calls since the last time, markers included."""
        text = "".join(self._call_text)
        self._call_text.clear()
        return text

    def _replay(self, prompt: str) -> None:
        """Follow the prompt's markers; only where they lead is kept."""
        self._feed(_Token(prompt, number=-1))
        self._tokens.clear()
        self._text = ""
        self._call_text.clear()
        self._is_line_start = True
        self.counts = dict.fromkeys(self.counts, 0)
        if self._header_begin is not None:
            self._header_begin = ""

    # --- moving on -----------------------------------------------------------------------------

    def _feed(self, token: "_Token") -> list[Piece]:
        if not self._text and not token.text:
            self.counts[self._section] += 1
            self.piece_tokens = []
            return []
        self._add(token)
        return self._advance(is_end=False)

    def _add(self, token: "_Token") -> None:
        self._tokens.append(token)
        self._text += token.text

    def _advance(self, *, is_end: bool) -> list[Piece]:
        while self._text:
            if self._bare_call is not None:
                has_moved = self._advance_bare_call(self._bare_call, is_end=is_end)
            elif self._header_begin is not None:
                has_moved = self._advance_header(self._header_begin, is_end=is_end)
            else:
                has_moved = self._advance_text(is_end=is_end)
            if not has_moved:
                break
        pieces = [piece for _, piece in self._pieces]
        self.piece_tokens = [token.number for token, _ in self._pieces]
        self._pieces.clear()
        return pieces

    def _advance_text(self, *, is_end: bool) -> bool:
        """Pass what comes before the next marker, else the marker. Whether anything moved."""
        text = self._text
        at, marker = len(text), None
        if self._table.may_begin_in(text):
            at, marker = self._table.find(text, is_end=is_end)
        call_at = self._find_bare_call(text)
        if call_at is not None and call_at < at:
            self._show(call_at)
            self._bare_call = _BareCall()
            return True
        if at:
            self._show(at)
            return True
        if marker is None:
            return False
        self._pass_marker(marker)
        return True

    def _pass_marker(self, marker: str) -> None:
        if marker not in self._table.sections:
            self._header_begin = marker
            return
        opened = self._table.sections[marker]
        if opened is not None:
            self._section = opened
        elif self._section is PENDING:
            self._section = CONTENT
        self._hide(len(marker))
        if opened is None:
            self._section = CONTENT

    def _advance_header(self, begin: str, *, is_end: bool) -> bool:
        headers = self._table.headers
        assert headers is not None
        end = self._text.find(headers.end, len(begin))
        body = self._text[len(begin) : end if end >= 0 else None]
        # While it has no end, the beginning of the end may have come.
        room = _MAX_HEADER_CHARS + (0 if end >= 0 else len(headers.end))
        if headers.body.fullmatch(body) and len(body) <= room:
            if end >= 0:
                self._header_begin = None
                self._section = headers.section(body)
                self._hide(end + len(headers.end))
                return True
            if not is_end:
                return False
        # It was none. One that the prompt began has no text here to be shown.
        self._header_begin = None
        self._show(len(begin))
        return True

    def _find_bare_call(self, text: str) -> int | None:
        """Where a line begins with a JSON object or array, if a call may come."""
        if not self._expects_calls or self._section not in (PENDING, CONTENT):
            return None
        found = _LINE_WITH_JSON.search(text)
        if found is not None and found.start() == 0 and not self._is_line_start:
            first_line = text.find("\n") + 1
            found = _LINE_WITH_JSON.search(text, first_line) if first_line else None
        return None if found is None else found.end() - 1

    def _advance_bare_call(self, call: "_BareCall", *, is_end: bool) -> bool:
        was_call = call.is_call
        call.feed(self._text)
        if call.is_call and not was_call:
            call.section_before = self._section
            self._section = TOOL_CALL
        if not call.has_ended and not is_end:
            if call.is_call:
                self._show(call.chars)
                call.forget()
            return False
        self._bare_call = None
        if call.is_call:
            self._show(call.chars if call.has_ended else len(self._text))
            self._section = call.section_before
            self._is_line_start = True
        else:
            self._show(1)  # The bracket is one like any other.
        return True

    # --- passing text --------------------------------------------------------------------------

    def _show(self, chars: int) -> None:
        """Pass text that is seen."""
        line = self._text[:chars].rpartition("\n")
        self._is_line_start = (bool(line[1]) or self._is_line_start) and not line[2].strip(_BLANK)
        self._pass(chars, is_shown=True)

    def _hide(self, chars: int) -> None:
        """Pass a marker."""
        self._is_line_start = True
        self._pass(chars, is_shown=False)

    def _pass(self, chars: int, *, is_shown: bool) -> None:
        """Let the first ``chars`` of what is held go as part of the current section."""
        if self._section is TOOL_CALL:
            self._call_text.append(self._text[:chars])
        self._text = self._text[chars:]
        while self._tokens and (chars or not self._tokens[0].text):
            token = self._tokens[0]
            if not token.is_counted:
                token.is_counted = True
                self.counts[self._section] += 1
            text = token.text[:chars]
            if text and is_shown:
                self._put(token, text)
            chars -= len(text)
            token.text = token.text[len(text) :]
            if not token.text:
                self._tokens.popleft()

    def _put(self, token: "_Token", text: str) -> None:
        """A piece, or more of the last one: a token gives one piece per section at most."""
        if self._pieces:
            last_token, last = self._pieces[-1]
            if last_token is token and last.section is self._section:
                self._pieces[-1] = token, Piece(last.section, last.text + text)
                return
        self._pieces.append((token, Piece(self._section, text)))


# What may stand before a bare call on its line: models put these between calls.
_BLANK: Final = " \t\r;,"
_LINE_WITH_JSON: Final = re.compile(rf"^[{_BLANK}]*[{{\[]", re.MULTILINE)


class _Token:
    """A token of which some text is held."""

    __slots__ = ("is_counted", "number", "text")

    def __init__(self, text: str, *, number: int, is_counted: bool = False) -> None:
        self.text = text
        self.number = number
        self.is_counted = is_counted


class _BareCall:
    """Text that may be a call. ``chars`` of it have been read since :meth:`forget`."""

    __slots__ = ("_attempts", "_fed", "has_ended", "is_call", "section_before")

    def __init__(self) -> None:
        json_source, list_source = Source(), Source()
        self._attempts: list[tuple[Source, Reader]] = [
            (json_source, read_json_calls(json_source, 0, needs_arguments=True)),
            (list_source, read_call_list(list_source)),
        ]
        self._fed = 0
        self.is_call = False
        self.has_ended = False
        self.section_before: FrameKind = PENDING

    @property
    def chars(self) -> int:
        source, _ = self._attempts[0]
        return self._fed - len(source.rest)

    def feed(self, text: str) -> None:
        """``text`` is all since :meth:`forget`, of which some was fed before."""
        new, self._fed = text[self._fed :], len(text)
        for attempt in list(self._attempts):
            self._try(attempt, new)
            if self.is_call:
                self._attempts = [attempt]
                break

    def forget(self) -> None:
        """What was read need not be fed again."""
        source, _ = self._attempts[0]
        self._fed = len(source.rest)

    def _try(self, attempt: tuple[Source, Reader], new: str) -> None:
        source, reader = attempt
        source.feed(new)
        try:
            while next(reader) is not None:
                self.is_call = True
        except (StopIteration, Mismatch):
            if self.is_call or len(self._attempts) == 1:
                self.has_ended = True
            else:
                self._attempts.remove(attempt)
