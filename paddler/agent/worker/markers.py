"""What a chat template tells of its model: markers, tool-call syntax, shape of history.

It is found by rendering conversations whose every word is known and looking at what
stands around the words: what comes before a thought opens reasoning, what comes after it
closes it. No model is known by name. Only where a template shows nothing of a feature
that its text mentions does a table of well-known markers help: models often open a
section by habit, which their templates then cut from history.

Probing never fails: a template that raises on a probe counts as not having the feature.
"""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from paddler.agent.worker.chat_template import Renderer as Renderer
from paddler.agent.worker.history import HistoryForm
from paddler.agent.worker.history_probe import (
    ANSWER,
    PLAIN,
    QUESTION,
    RESULT,
    THOUGHT,
    TOOL,
    USER,
    HistoryProbe,
    Message,
    call,
    round_trip,
)
from paddler.agent.worker.sections import (
    CHANNEL_HEADERS,
    RECIPIENT_HEADERS,
    Headers,
    Markers,
)
from paddler.agent.worker.tool_calls.dialects import (
    BARE_JSON,
    DIALECTS,
    PYTHONIC,
    Dialect,
    Unrecognized,
    json_dialect,
    parse_in,
)
from paddler.agent.worker.tool_calls.examples import ARGUMENTS, CALL_IDS, FUNCTION, NUMBER


class ModelFormat(NamedTuple):
    """What is known of how a model writes. ``dialect``: of tool calls, if it was taught one.

    ``example``: calls of the probe as the template writes them, from what the dialect reads
    on; empty without a dialect.
    """

    markers: Markers = Markers()
    dialect: Dialect | None = None
    history: HistoryForm = HistoryForm()
    example: str = ""


def probe(renderer: Renderer, source: str) -> ModelFormat:
    """Find out what the template ``source``, which ``renderer`` renders, tells."""
    return _Probe(renderer, source).result()


# --- marker texts ------------------------------------------------------------------------------

# A piece of text that looks like a marker. Two kinds have their name between two tags.
_TAG: Final = re.compile(
    r"<\|(?:open|close)\|>[^<]*<\|sep\|>"
    r"|\]<\]minimax\[>\[</?[^<>\s]+>"
    r"|</?[^<>\s/][^<>\n]{0,60}>"
    r"|\[/?[A-Z][A-Z_ ]+\]"
)
_CUT_TAG: Final = re.compile(r"(?:<\|open\|>[^<]*)?(?:<[^<>]*)?$")
_LAST_TAG: Final = re.compile(rf"(?P<tag>{_TAG.pattern})\s*$")
_OPENING: Final = re.compile(rf"(?P<tag>{_TAG.pattern})[\w\s]*$")
_EMPTY_PAIR: Final = re.compile(rf"(?P<opening>{_TAG.pattern})\s*(?P<closing>{_TAG.pattern})\s*$")
_LAST_TAGS: Final = re.compile(rf"(?:(?:{_TAG.pattern})[\w\s:]*)+$")

# Openings and closings of models whose templates may show them in no rendering. One of
# the two, or what is named first, is in the template's text.
_KNOWN_REASONING: Final = (
    ("</think>", "<think>", "</think>"),
    ("[/THINK]", "[THINK]", "[/THINK]"),
    ("</seed:think>", "<seed:think>", "</seed:think>"),
    ("<|END_THINKING|>", "<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<|channel>thought", "<channel|>"),
    ("[BEGIN FINAL RESPONSE]", "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
)
_KNOWN_CALLS: Final = (
    ("<tool_call>", "<tool_call>", "</tool_call>"),
    ("<|tool_call_start|>", "<|tool_call_start|>", "<|tool_call_end|>"),
    ("<|tool_list_start|>", "<|tool_call_start|>", "<|tool_call_end|>"),
    ("[TOOL_CALLS]", "[TOOL_CALLS]", ""),
    ("<|/tool_call|>", "<|tool_call|>", "<|/tool_call|>"),
    ("<|tool|>", "<|tool_call|>", "<|/tool_call|>"),
    ("<|tool_call|>", "<|tool_call|>", ""),
    ("<TOOLCALL>", "<TOOLCALL>", "</TOOLCALL>"),
)
_KNOWN_BESIDE_BARE_CALLS: Final = (
    ("<|python_tag|>", "<|python_tag|>", ""),
    ("ipython", "<|python_tag|>", ""),  # the name of Llama's environment for tools
    ("<|python_start|>", "<|python_start|>", "<|python_end|>"),
)
_KNOWN_CONTENT: Final = (("<response>", "<response>", "</response>"),)


def closing_of(opening: str) -> str | None:
    """The closing that fits an opening by the ways in which such pairs are written."""
    for begin, end in (
        ("<|open|>", "<|close|>"),
        ("begin", "end"),
        ("start", "end"),
        ("START", "END"),
        ("prefix", "suffix"),
    ):
        if begin in opening:
            return opening.replace(begin, end)
    if opening.startswith("<|") and opening.endswith("|>"):
        return None
    if opening.startswith("<|"):
        return re.sub(r"<\|(\w+)>.*", r"<\1|>", opening)
    if opening.startswith("["):
        return opening.replace("[", "[/", 1)
    name = re.search(r"<([^\s<>=/]+)[^<>]*>?$", opening)
    return None if name is None else f"{opening[: name.start()]}</{name[1]}>"


# --- probing -----------------------------------------------------------------------------------


class _Calling(NamedTuple):
    """A rendering of a tool call. ``text`` starts after the question."""

    form: HistoryForm
    text: str
    dialect: Dialect | None
    start: int  # of what the dialect reads, else of the name
    name: int

    @property
    def rank(self) -> tuple[bool, bool, bool, int]:
        """The lowest is best: it is understood, and nothing odd was written for no content."""
        has_stray_none = re.search(r"\b(?:None|null)\b", self.text[: self.name]) is not None
        return (
            self.dialect is None,
            has_stray_none,
            self.form.arguments_are_text,
            len(self.text),
        )


class _Probe:
    def __init__(self, renderer: Renderer, source: str) -> None:
        self._history = HistoryProbe(renderer, source)
        self._render = self._history.render
        self._render_answer = self._history.render_answer
        self._source = source
        self._turn_starts: tuple[str, ...] = ()
        self._headers: Headers | None = None
        self._has_bare_calls = False
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._calls: list[str] = []
        self._closings: list[str] = []

    def result(self) -> ModelFormat:
        self._history.find_conversation()
        calling = self._find_calling()
        if calling is None:
            around = (*self._unseen_calls(), ("", ""))[0]
            self._history.form = self._history.form._replace(calls_as_text=around)
        else:
            self._history.form = calling.form
        self._history.find_results()
        self._find_turn_starts()
        self._find_reasoning()
        dialect = self._find_calls(calling)
        self._find_content()
        markers = Markers(
            reasoning=tuple(dict.fromkeys(self._reasoning)),
            content=tuple(dict.fromkeys(self._content)),
            tool_calls=tuple(dict.fromkeys(self._calls)),
            closings=tuple(dict.fromkeys(self._closings)),
            headers=self._headers,
            has_bare_calls=self._has_bare_calls,
            turn_starts=self._turn_starts,
        )
        example = "" if calling is None or dialect is None else self._example(calling, dialect)
        return ModelFormat(markers, dialect, self._history.form, example)

    # --- turns -------------------------------------------------------------------------------

    def _find_turn_starts(self) -> None:
        """What is written before an answer to the user and to a tool, thinking or not."""
        after_tool = (USER, *round_trip())
        self._turn_starts = tuple(
            dict.fromkeys(
                start
                for messages, last_word in (((USER,), QUESTION), (after_tool, RESULT))
                if (start := self._find_turn_start(messages, last_word))
            )
        )

    def _find_turn_start(self, messages: Sequence[Message], last_word: str) -> str:
        starts: list[str] = []
        for thinks in (True, False):
            asked = self._render(*messages, is_asked=True, thinks=thinks)
            unasked = self._render(*messages, thinks=thinks)
            if asked is None or last_word not in asked:
                return ""
            if unasked is not None and asked.startswith(unasked) and asked != unasked:
                starts.append(asked[len(unasked) :])
            else:
                last_tags = _LAST_TAGS.search(asked.rpartition(last_word)[2])
                starts.append(last_tags.group() if last_tags else "")
        # The two may differ within a tag.
        return _CUT_TAG.sub("", os.path.commonprefix(starts))  # noqa: RUF071 - texts, no paths

    # --- reasoning ---------------------------------------------------------------------------

    def _find_reasoning(self) -> None:
        pair = self._reasoning_in_history() or self._reasoning_in_turn_start()
        pairs = [pair] if pair else self._known(_KNOWN_REASONING)
        if not pair and pairs:
            for opening, closing in self._known(_KNOWN_CONTENT):
                self._content.append(opening)
                self._closings.append(closing)
        for opening, closing in pairs:
            if opening:
                self._reasoning.append(opening)
            self._closings.append(closing)
        # How much is thought of one question must not decide where an answer starts.
        bounds = (*self._reasoning, *self._closings)
        self._turn_starts = tuple(
            cut if _TAG.search(cut := _before_any(start, bounds)) else start
            for start in self._turn_starts
        )

    def _reasoning_in_history(self) -> tuple[str, str] | None:
        """The markers around a thought, wherever the template shows one."""
        answered = [PLAIN | {"reasoning_content": THOUGHT}]
        as_part = self._history.form._replace(
            text_roles=self._history.form.text_roles - {"assistant"}, thoughts_are_parts=True
        )
        for messages, form in (
            (answered, self._history.form),
            (answered, as_part),
            (round_trip({"reasoning_content": THOUGHT}), self._history.form),
        ):
            text = self._render_answer(*messages, form=form)
            before, thought, after = text.partition(THOUGHT)
            closing = _TAG.search(after)
            opening = _OPENING.search(before)
            if not thought or closing is None or opening is None:
                continue
            if opening["tag"] == CHANNEL_HEADERS.end:
                self._headers = CHANNEL_HEADERS
                return "", closing.group()
            if not self._is_of_turn(opening.group().strip(), closing.group()):
                self._history.form = form
                return opening.group().strip(), closing.group()
        return None

    def _reasoning_in_turn_start(self) -> tuple[str, str] | None:
        """The markers that open an answer: of a thought to come, or of one that is left out."""
        for thinks in (False, True):
            text = self._render_answer(is_asked=True, thinks=thinks)
            if empty := _EMPTY_PAIR.search(text):
                if closing_of(empty["opening"]) == empty["closing"]:
                    return empty["opening"], empty["closing"]
            elif last := _LAST_TAG.search(text):
                opening, closing = last["tag"], closing_of(last["tag"])
                if closing and closing in self._source and not self._is_of_turn(opening, closing):
                    return opening, closing
        return None

    def _is_of_turn(self, opening: str, closing: str) -> bool:
        """Whether an opening belongs to every turn: one without thought has it, too."""
        before = self._render_answer(PLAIN).partition(ANSWER)[0]
        return opening in before and closing not in before

    def _known(self, pairs: Sequence[tuple[str, str, str]]) -> list[tuple[str, str]]:
        """The well-known pairs that the template's text gives evidence of."""
        return [
            (opening, closing) for evidence, opening, closing in pairs if evidence in self._source
        ]

    # --- content -----------------------------------------------------------------------------

    def _find_content(self) -> None:
        """What wraps an answer beyond its turn, as Command R has it."""
        if self._headers is not None:
            return
        before, answer, after = self._render_answer(PLAIN).partition(ANSWER)
        turn_starts = [text for start in self._turn_starts if (text := start.strip())]
        if not answer or not any(start in before for start in turn_starts):
            return
        for done in (*turn_starts, *self._closings):
            before = before.rpartition(done)[2]
        opening = before.strip()
        if not _TAG.match(opening) or opening in self._reasoning:
            return
        # A model that wraps its content may open another turn of its own after a thought.
        self._content += [opening, *turn_starts]
        closing = closing_of(opening)
        if closing is not None and closing in after:
            self._closings.append(closing)

    # --- tool calls --------------------------------------------------------------------------

    def _find_calling(self) -> _Calling | None:
        """The best rendering of a tool call, in any form of history."""
        for is_short, is_named in ((False, False), (True, False), (False, True)):
            form = self._history.form._replace(ids_are_short=is_short, ids_are_named=is_named)
            forms = [
                form._replace(arguments_are_text=is_text, empty_content=empty_content)
                for is_text in (False, True)
                for empty_content in ("", None)
            ]
            if callings := [calling for form in forms if (calling := self._render_call(form))]:
                return min(callings, key=lambda calling: calling.rank)
        return None

    def _render_call(self, form: HistoryForm) -> _Calling | None:
        text = self._render_answer(round_trip()[0], form=form, has_tools=True)
        name = text.find(FUNCTION)
        if name < 0:
            return None
        for start in _possible_starts(text, name):
            for dialect in DIALECTS:
                if _understands(dialect, text[start:]):
                    return _Calling(form, text, dialect, start, name)
        return _Calling(form, text, None, name, name)

    def _example(self, calling: _Calling, dialect: Dialect) -> str:
        """Two calls, or one if the template writes no more, and what follows them."""
        start = calling.start
        if dialect != calling.dialect:
            start = calling.text.rindex(self._calls[0], 0, start)
        head = calling.text[start : calling.name]
        for count in (2, 1):
            calls = [call(call_id) for call_id in CALL_IDS[:count]]
            message = {"role": "assistant", "content": None, "tool_calls": calls}
            text = self._render_answer(message, form=calling.form, has_tools=True)
            start = text.find(FUNCTION) - len(head)
            if start >= 0 and text.startswith(head, start):
                parsed = parse_in(dialect, text[start:])
                if not isinstance(parsed, Unrecognized) and len(parsed) == count:
                    return text[start:]
        return ""

    def _find_calls(self, calling: _Calling | None) -> Dialect | None:
        """Markers of tool calls, and the dialect between them."""
        if calling is None or calling.dialect is None:
            self._add_calls(self._unseen_calls())
            return None
        text, dialect = calling.text, calling.dialect
        if CHANNEL_HEADERS.end in text and f"to={FUNCTION}" in text.replace("functions.", ""):
            self._headers = CHANNEL_HEADERS
            return dialect
        if text[: calling.name].endswith(RECIPIENT_HEADERS.begins):
            self._headers = RECIPIENT_HEADERS
            return dialect
        opening = self._opening(calling)
        if not opening:
            self._has_bare_calls = dialect in (BARE_JSON, PYTHONIC)
            self._add_calls(self._known(_KNOWN_BESIDE_BARE_CALLS))
            return dialect
        closing = self._closing(calling, opening)
        self._add_calls([(opening, closing), *_misspelt(opening, closing)])
        if dialect == BARE_JSON:
            return json_dialect("own", opening, closing)
        return dialect

    def _unseen_calls(self) -> list[tuple[str, str]]:
        """What may stand around calls of a model whose template writes none.

        Most that are told of tools, in whatever way, call them as Hermes does.
        """
        if known := self._known(_KNOWN_CALLS):
            return known
        told = self._render(USER, has_tools=True)
        if told is None or TOOL["function"]["name"] not in told:
            return []
        return [(opening, closing) for _, opening, closing in _KNOWN_CALLS]

    def _opening(self, calling: _Calling) -> str:
        """The marker that announces calls; empty if there is none."""
        if calling.dialect == BARE_JSON:
            tag = _LAST_TAG.search(calling.text[: calling.start])
            plain = self._render_answer(PLAIN).partition(ANSWER)[0]
            return "" if tag is None or tag["tag"] in plain else tag["tag"]
        tag = _TAG.match(calling.text, calling.start)
        return calling.text[calling.start : min(tag.end(), calling.name)] if tag else ""

    def _closing(self, calling: _Calling, opening: str) -> str:
        tail = calling.text.rpartition(str(NUMBER))[2]
        closing = closing_of(opening)
        if closing is not None and (closing in tail or closing in self._source):
            return closing
        # What ends every answer does not end a call.
        tags = _TAG.findall(tail)
        for tag in reversed(_TAG.findall(self._render_answer(PLAIN).rpartition(ANSWER)[2])):
            if tags and tags[-1] == tag:
                tags.pop()
        return tags[-1] if tags else ""

    def _add_calls(self, pairs: Sequence[tuple[str, str]]) -> None:
        for opening, closing in pairs:
            self._calls.append(opening)
            if closing:
                self._closings.append(closing)


def _misspelt(opening: str, closing: str) -> Iterator[tuple[str, str]]:
    """How a model may get its markers wrong: DeepSeek's have low blocks between the words."""
    if "▁" in opening:
        for between in "_ ":
            yield opening.replace("▁", between), closing.replace("▁", between)


def _before_any(text: str, ends: Sequence[str]) -> str:
    """The text up to the first of ``ends``."""
    return text[: min((text.find(end) for end in ends if end in text), default=len(text))]


def _possible_starts(text: str, name: int) -> Iterator[int]:
    """Where the text of a call may begin: at a marker or a bracket before its name."""
    begins = re.compile(rf"{_TAG.pattern}|[\[{{]|>>>|<")
    return (found.start() for found in begins.finditer(text) if found.start() < name)


def _understands(dialect: Dialect, text: str) -> bool:
    """Whether a dialect reads the probe's call."""
    calls = parse_in(dialect, text)
    if isinstance(calls, Unrecognized):
        return False
    return calls[0].name == FUNCTION and calls[0].arguments.valid_json == ARGUMENTS
