"""``paddler chat``: asks the fleet one question, or holds a conversation."""

import json
import sys
from typing import Any, Final

from paddler.errors import ConfigError, StartError
from paddler.operators.client import Client

PATH: Final = "/api/v1/continue_from_conversation_history"
_SHOWN: Final = ("ContentToken", "UndeterminableToken")


def chat(
    inference: Client,
    question: str | None,
    *,
    system: str | None,
    max_tokens: int,
    thinks: bool,
) -> int:
    """Answer ``question``, or standard input, or at a terminal turn after turn until its end."""
    conversation = Conversation(inference, system=system, max_tokens=max_tokens, thinks=thinks)
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if question is None and not is_terminal:
        question = _read_input()
    if question is not None:
        if not question.strip():
            raise StartError("there is nothing to ask: the question is empty")
        conversation.ask(question)
        return 0
    while (asked := _prompt()) is not None:
        if asked.strip():
            conversation.ask(asked)
    return 0


class Conversation:
    """What was said so far, and how to go on."""

    def __init__(
        self, inference: Client, *, system: str | None, max_tokens: int, thinks: bool
    ) -> None:
        self._inference = inference
        self._max_tokens = max_tokens
        self._thinks = thinks
        self._history: list[dict[str, str]] = []
        if system is not None:
            self._history.append({"role": "system", "content": checked_text(system)})

    def ask(self, question: str) -> None:
        """Print the answer as it comes, and remember it."""
        self._history.append({"role": "user", "content": checked_text(question)})
        body = {
            "add_generation_prompt": True,
            "conversation_history": self._history,
            "enable_thinking": self._thinks,
            "max_tokens": self._max_tokens,
        }
        answer: list[str] = []
        try:
            for message in self._inference.stream(PATH, body):
                kind, text = self._read(message)
                if kind in _SHOWN:
                    answer.append(text)
                    print(text, end="", flush=True)
                elif kind == "ReasoningToken":
                    print(text, end="", flush=True, file=sys.stderr)
        finally:
            if answer:
                print(flush=True)  # whatever comes next begins a line
        self._history.append({"role": "assistant", "content": "".join(answer)})

    def _read(self, message: Any) -> tuple[str, str]:
        try:
            return read_message(message)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self._inference.stranger() from None


def read_message(message: Any) -> tuple[str, str]:
    """Kind and text of one message; :class:`StartError` for one that tells of a failure."""
    if "Error" in message:
        error = message["Error"]["error"]
        raise StartError(f"the balancer answered {error['code']}: {error['description']}")
    ((kind, value),) = message["Response"]["response"]["GeneratedToken"].items()
    if kind.endswith("Token"):
        return kind, str(value)
    if kind not in ("Done", "ToolCallParsed"):
        text = value if isinstance(value, str) else json.dumps(value)
        raise StartError(f"{kind}: {text}")
    return kind, ""


def checked_text(text: str) -> str:
    """``text``, which must be text: the shell passes any bytes on."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError("what is asked holds bytes that are no UTF-8 text") from None
    return text


def _read_input() -> str:
    """All of standard input; nothing where there is none."""
    if sys.stdin is None:
        return ""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise ConfigError("standard input holds bytes that are no UTF-8 text") from None


def _prompt() -> str | None:
    try:
        return input("> ")
    except EOFError:
        print()
        return None
