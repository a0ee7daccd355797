"""The shape in which a chat template wants a conversation.

OpenAI's API knows one shape of messages. Authors of templates agree on most of it, and
each disagrees somewhere: some want arguments as text, some refuse a system message, some
never heard of tools. What is said must reach the model all the same.
"""

import hashlib
import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from paddler.agent.worker.images import IMAGE_MARKER
from paddler.agent.worker.tool_calls.reading import NOT_JSON, decode_json, encode_json

ROLES: Final = frozenset({"user", "system", "assistant", "tool"})

# What templates call the thought of a message. The first is what most read.
THOUGHT_KEYS: Final = ("reasoning_content", "thinking", "reasoning")


class HistoryForm(NamedTuple):
    """How a template wants what its authors disagree on. The default suits most."""

    arguments_are_text: bool = False
    """Whether the arguments of a call are JSON text, not an object."""
    empty_content: str | None = ""
    """The content of a message that only calls tools."""
    no_tools: tuple[()] | None = None
    """What ``tools`` is where there are none: Hugging Face gives ``None``."""
    ids_are_short: bool = False
    """Whether ids of calls must have nine letters or digits, as Mistral demands."""
    ids_are_named: bool = False
    """Whether ids of calls tell the function and a count, as Kimi's do."""
    text_roles: frozenset[str] = frozenset()
    """Roles whose content must be one text, not a list of parts."""
    parts_roles: frozenset[str] = frozenset()
    """Roles whose content must be such a list."""
    merged_roles: frozenset[str] = frozenset()
    """Roles that the template refuses or leaves out: they speak through the user's messages."""
    knows_developer: bool = False
    """Whether ``developer`` is a role of its own; else it is ``system``."""
    thoughts_are_parts: bool = False
    """Whether a thought is a part of the content, not a key of the message."""
    thoughts_replace_content: bool = False
    """Whether a message that calls tools must not have both thought and content."""
    calls_as_text: tuple[str, str] | None = None
    """What stands around a call in the content; ``None``: the template writes calls itself."""
    single_calls: bool = False
    """Whether a message makes one call at most, as Llama 3's do."""
    tools_in_system: bool = False
    """Whether tools are JSON text within the system message, as Phi-4-mini has it."""

    def messages(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()
    ) -> list[dict[str, Any]]:
        """The messages of OpenAI's API as the template wants them.

        ``tools`` are those of the request: they may belong into a message.
        """
        if self.single_calls:
            messages = _one_by_one(messages)
        made = self._calls_made(messages)
        shaped = [self._message(message, made) for message in messages]
        if self.tools_in_system and tools:
            shaped = _with_tools(shaped, tools)
        return self._merged(shaped) if self.merged_roles else shaped

    def tools(self, tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """The tools as the template wants them."""
        if tools:
            return list(tools)
        return None if self.no_tools is None else []

    # --- one message -------------------------------------------------------------------------

    def _message(self, message: Mapping[str, Any], made: Mapping[Any, "_Made"]) -> dict[str, Any]:
        # Templates ask whether a key is there: one without a value counts as missing.
        shaped = {
            key: value for key, value in message.items() if value is not None or key == "content"
        }
        if shaped.get("role") == "developer" and not self.knows_developer:
            shaped["role"] = "system"
        if shaped.get("tool_calls"):
            self._shape_calls(shaped, made)
        elif "content" in shaped:
            shaped["content"] = self._content(shaped.get("role"), shaped["content"] or "")
        if "tool_call_id" in shaped:
            self._shape_result(shaped, made)
        self._shape_thought(shaped)
        return shaped

    def _content(self, role: str | None, content: str | Sequence[Any]) -> str | list[Any]:
        if role in self.merged_roles or role not in ROLES:
            role = "user"
        if isinstance(content, str):
            return [_text_part(content)] if role in self.parts_roles else content
        return _joined(content) if role in self.text_roles else list(content)

    def _shape_calls(self, message: dict[str, Any], made: Mapping[Any, "_Made"]) -> None:
        content = message.get("content") or self.empty_content
        calls = [self._call(call, made) for call in message["tool_calls"]]
        if self.calls_as_text is None:
            message["tool_calls"] = calls
        else:
            del message["tool_calls"]
            opening, closing = self.calls_as_text
            texts = [f"{opening}{_call_text(call['function'])}{closing}" for call in calls]
            content = _spoken_together([content, "\n".join(texts)], "\n")
        if content is not None:
            content = self._content(message.get("role"), content)
        message["content"] = content

    def _shape_result(self, message: dict[str, Any], made: Mapping[Any, "_Made"]) -> None:
        """A result names its function, which OpenAI's clients leave to the id."""
        call = made.get(message["tool_call_id"])
        if call is None:
            message["tool_call_id"] = self._id(message["tool_call_id"], None)
        else:
            message["tool_call_id"] = call.id
            message.setdefault("name", call.name)

    def _shape_thought(self, message: dict[str, Any]) -> None:
        thought = next((message[key] for key in THOUGHT_KEYS if message.get(key)), None)
        if not thought:
            return
        if self.thoughts_are_parts:
            content = message.get("content") or []
            said = [_text_part(content)] if isinstance(content, str) else content
            message["content"] = [{"type": "thinking", "thinking": thought}, *said]
            return
        for key in THOUGHT_KEYS:
            message.setdefault(key, thought)
        if self.thoughts_replace_content and message.get("tool_calls"):
            message["content"] = self.empty_content

    def _call(self, call: dict[str, Any], made: Mapping[Any, "_Made"]) -> dict[str, Any]:
        function = dict(call["function"])
        function["arguments"] = self._arguments(function.get("arguments", {}))
        shaped: dict[str, Any] = call | {"function": function}
        if shaped.get("id") is not None:
            shaped["id"] = made[shaped["id"]].id
        return shaped

    def _arguments(self, arguments: Any) -> Any:
        if self.arguments_are_text:
            return arguments if isinstance(arguments, str) else encode_json(arguments)
        if isinstance(arguments, str):
            value = decode_json(arguments)
            return arguments if value is NOT_JSON else value
        return arguments

    def _calls_made(self, messages: Sequence[Mapping[str, Any]]) -> dict[Any, "_Made"]:
        """By the ids that the client has for them, all calls."""
        made: dict[Any, _Made] = {}
        for message in messages:
            for call in message.get("tool_calls") or ():
                name = call["function"]["name"]
                if (given := call.get("id")) is not None:
                    made[given] = _Made(name, self._id(given, f"functions.{name}:{len(made)}"))
        return made

    def _id(self, given: str, named: str | None) -> str:
        if self.ids_are_named and named and not _NAMED_ID.fullmatch(given):
            return named
        if self.ids_are_short and not _SHORT_ID.fullmatch(given):
            return hashlib.sha256(given.encode()).hexdigest()[:9]
        return given

    # --- between messages --------------------------------------------------------------------

    def _merged(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Let the user say what other roles cannot, before the next message that stays."""
        merged: list[dict[str, Any]] = []
        waiting: list[Any] = []
        for message in messages:
            if message.get("role") in self.merged_roles:
                waiting.append(message.get("content"))
                continue
            if waiting and message.get("role") == "user":
                waiting.append(message.get("content"))
                merged.append(message | {"content": _spoken_together(waiting)})
            elif waiting:
                merged += [{"role": "user", "content": _spoken_together(waiting)}, message]
            else:
                merged.append(message)
            waiting.clear()
        if waiting:
            merged.append({"role": "user", "content": _spoken_together(waiting)})
        return merged


class _Made(NamedTuple):
    """A call that was made, and its id as the template wants it."""

    name: str
    id: str


_SHORT_ID: Final = re.compile(r"[A-Za-z0-9]{9}")
_NAMED_ID: Final = re.compile(r"functions\.[^\s:]+:\d+")


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _joined(parts: Sequence[Any]) -> str:
    """The texts of parts, a line each; an image stands where it is."""
    joined = ""
    for part in parts:
        text = part.get("text", "")
        beside_image = IMAGE_MARKER in (text, joined[-len(IMAGE_MARKER) :])
        joined += text if beside_image or not joined else f"\n{text}"
    return joined


def _spoken_together(contents: Sequence[Any], between: str = "\n\n") -> Any:
    """Several contents as one: a text, or parts if any of them is."""
    said = [content for content in contents if content]
    if all(isinstance(content, str) for content in said):
        return between.join(said)
    parts: list[Any] = []
    for content in said:
        if parts:
            parts.append(_text_part(between))
        parts += [_text_part(content)] if isinstance(content, str) else content
    return parts


def _one_by_one(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls that were made at once as if each had waited for the result of the one before."""
    single: list[dict[str, Any]] = []
    waiting = deque(messages)
    while waiting:
        message = waiting.popleft()
        calls = message.get("tool_calls") or ()
        if len(calls) < 2:
            single.append(message)
            continue
        results: list[dict[str, Any]] = []
        while waiting and waiting[0].get("role") == "tool":
            results.append(waiting.popleft())
        for call in calls:
            own = [result for result in results if result.get("tool_call_id") == call.get("id")]
            results = [result for result in results if result not in own]
            single += [message | {"tool_calls": [call]}, *own]
            message = {"role": message["role"], "content": None}
        single += results
    return single


def _call_text(function: Mapping[str, Any]) -> str:
    """A call as most models write it."""
    return encode_json({"name": function["name"], "arguments": function["arguments"]})


def _with_tools(
    messages: Sequence[dict[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The messages with a system message, theirs or a new one, that has the tools."""
    text = encode_json([tool["function"] for tool in tools])
    if messages and messages[0].get("role") == "system":
        return [messages[0] | {"tools": text}, *messages[1:]]
    return [{"role": "system", "content": "", "tools": text}, *messages]
