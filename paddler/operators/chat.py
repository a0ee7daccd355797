"""``paddler chat``: asks the fleet one question, or holds a conversation."""

import json
import sys
from typing import Any, Final

from paddler.errors import StartError
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
    history: list[dict[str, str]] = []
    if system is not None:
        history.append({"role": "system", "content": system})
    if question is None and not sys.stdin.isatty():
        question = sys.stdin.read()
    if question is not None:
        if not question.strip():
            raise StartError("there is nothing to ask: the question is empty")
        _answer(inference, history, question, max_tokens=max_tokens, thinks=thinks)
        return 0
    while (asked := _ask()) is not None:
        if asked.strip():
            _answer(inference, history, asked, max_tokens=max_tokens, thinks=thinks)
    return 0


def _ask() -> str | None:
    try:
        return input("> ")
    except EOFError:
        print()
        return None


def _answer(
    inference: Client,
    history: list[dict[str, str]],
    question: str,
    *,
    max_tokens: int,
    thinks: bool,
) -> None:
    """Print the answer as it comes, and remember it."""
    history.append({"role": "user", "content": question})
    body = {
        "add_generation_prompt": True,
        "conversation_history": history,
        "enable_thinking": thinks,
        "max_tokens": max_tokens,
    }
    answer: list[str] = []
    for line in inference.lines("POST", PATH, body):
        kind, text = read_line(line)
        if kind in _SHOWN:
            answer.append(text)
            print(text, end="", flush=True)
        elif kind == "ReasoningToken":
            print(text, end="", flush=True, file=sys.stderr)
    print()
    history.append({"role": "assistant", "content": "".join(answer)})


def read_line(line: str) -> tuple[str, str]:
    """Kind and text of one message; :class:`StartError` for one that tells of a failure."""
    message: dict[str, Any] = json.loads(line)
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
