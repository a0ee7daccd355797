"""How a model's answer is made up: what it may say before it comes to what it shall say."""

from collections.abc import Mapping
from typing import Final, Protocol

from paddler.agent.worker.gbnf.writing import Rules, literal, until
from paddler.agent.worker.markers import ModelFormat
from paddler.agent.worker.sections import CHANNEL_HEADERS, RECIPIENT_HEADERS
from paddler.agent.worker.tool_calls.examples import FUNCTION

# Blanks between a thought and what it leads to.
_MAX_BLANKS: Final = 4


class Turn(Protocol):
    """The answers of one model. All rules are from one grammar, all texts are expressions."""

    @property
    def content_opening(self) -> str:
        """What may or must come before content; empty if nothing."""
        ...

    def call_beginnings(self, before: str) -> list[str]:
        """The ways to begin a call, of which the template shows one: up to its arguments."""
        ...

    def led_to(
        self,
        goal: str,
        *,
        starts_in_reasoning: bool,
        thinks: bool,
        shortcuts: Mapping[str, str] | None = None,
        has_blanks: bool = False,
    ) -> str:
        """A rule for answers that come to ``goal``, maybe by way of reasoning.

        ``shortcuts``: texts that end reasoning, too, with what follows them. ``has_blanks``:
        whether there may be some before a goal to which no reasoning leads.
        """
        ...

    def free(self, endings: Mapping[str, str]) -> str:
        """A rule for answers that say anything, but for what follows one of ``endings``."""
        ...


def turn_of(form: ModelFormat, rules: Rules) -> Turn:
    """What answers of a model of this form are made of."""
    if form.markers.headers == CHANNEL_HEADERS:
        return _ChannelTurn(form, rules)
    if form.markers.headers == RECIPIENT_HEADERS:
        return _RecipientTurn(form, rules)
    return _MarkedTurn(form, rules)


class _MarkedTurn:
    """Sections between markers."""

    def __init__(self, form: ModelFormat, rules: Rules) -> None:
        self._markers = form.markers
        self._rules = rules
        self._gap = rules.add("gap", f"[ \\n]{{0,{_MAX_BLANKS}}}")
        starts = {start.strip() for start in form.markers.turn_starts}
        openings = [text for text in form.markers.content if text not in starts]
        self.content_opening = f"({literal(openings[0])})?" if openings else ""

    def call_beginnings(self, before: str) -> list[str]:
        return [before]

    def led_to(
        self,
        goal: str,
        *,
        starts_in_reasoning: bool,
        thinks: bool,
        shortcuts: Mapping[str, str] | None = None,
        has_blanks: bool = False,
    ) -> str:
        behind = self._rules.add("goal", f"{self._gap} {goal}")
        at_once = behind if has_blanks else self._rules.add("goal", goal)
        closings = {closing: behind for closing in self._markers.closings if closing}
        openings = self._markers.reasoning if thinks and not starts_in_reasoning else ()
        if not closings or not (openings or starts_in_reasoning):
            return at_once
        thought = until(self._rules, "thought", {**closings, **(shortcuts or {})})
        if starts_in_reasoning:
            return thought
        opened = (f"{self._gap} {literal(opening)} {thought}" for opening in openings)
        return self._rules.add("answer", " | ".join((*opened, at_once)))

    def free(self, endings: Mapping[str, str]) -> str:
        if any(ending in self._markers.tool_calls for ending in endings):
            return until(self._rules, "text", endings, may_end=True)
        # Calls that nothing announces begin a line.
        lines = {f"\n{ending}": rest for ending, rest in endings.items()}
        return until(self._rules, "text", lines, seen="\n", may_end=True)


class _ChannelTurn:
    """Messages with headers, of which the prompt has begun the first: gpt-oss and its kin."""

    _TURN: Final = "<|start|>assistant"

    def __init__(self, form: ModelFormat, rules: Rules) -> None:
        self._rules = rules
        self._endings = [text for text in form.markers.closings if text] or ["<|end|>"]
        self._is_gpt_oss = form.dialect is None or form.dialect.name == "gpt_oss"
        starts = [start for start in form.markers.turn_starts if start.strip()]
        self._turn = starts[0] if starts else self._TURN
        header = "<|channel|>final<|message|>" if self._is_gpt_oss else " to=user<|message|>"
        self.content_opening = literal(header)

    def call_beginnings(self, before: str) -> list[str]:
        shown = before.rpartition(self._turn)[2]
        # What the template shows is one of two places for the recipient; models use the other.
        usual = f"<|channel|>commentary to=functions.{FUNCTION} <|constrain|>json<|message|>"
        return list(dict.fromkeys([usual, shown])) if self._is_gpt_oss else [shown]

    def led_to(
        self,
        goal: str,
        *,
        starts_in_reasoning: bool,
        thinks: bool,
        shortcuts: Mapping[str, str] | None = None,
        has_blanks: bool = False,
    ) -> str:
        message = self._rules.reserve("message")
        following = f"{literal(self._turn)} {message}"
        thought = until(self._rules, "thought", dict.fromkeys(self._endings, following))
        header = "<|channel|>analysis<|message|>" if self._is_gpt_oss else " to=self<|message|>"
        self._rules.define(message, f"{goal} | {literal(header)} {thought}")
        return thought if starts_in_reasoning else message

    def free(self, endings: Mapping[str, str]) -> str:
        headers = {
            ending if ending.startswith("<|channel|>") else f"{self._turn}{ending}": rest
            for ending, rest in endings.items()
        }
        return until(self._rules, "text", headers, seen=self._turn, may_end=True)


class _RecipientTurn:
    """Messages that begin with whom they are to: Functionary."""

    _BEGIN: Final = ">>>"
    _TO_ALL: Final = "all\n"

    def __init__(self, form: ModelFormat, rules: Rules) -> None:
        self._rules = rules
        self._is_begun = any(start.endswith(self._BEGIN) for start in form.markers.turn_starts)
        begin = "" if self._is_begun else self._BEGIN
        self.content_opening = literal(f"{begin}{self._TO_ALL}")

    def call_beginnings(self, before: str) -> list[str]:
        return [before.removeprefix(self._BEGIN) if self._is_begun else before]

    def led_to(
        self,
        goal: str,
        *,
        starts_in_reasoning: bool,
        thinks: bool,
        shortcuts: Mapping[str, str] | None = None,
        has_blanks: bool = False,
    ) -> str:
        return self._rules.add("answer", goal)

    def free(self, endings: Mapping[str, str]) -> str:
        headers = {
            f"{self._BEGIN}{ending.removeprefix(self._BEGIN)}": rest
            for ending, rest in endings.items()
        }
        seen = self._BEGIN if self._is_begun else ""
        return until(self._rules, "text", headers, seen=seen, may_end=True)
