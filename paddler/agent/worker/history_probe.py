"""Finds out in which shape a chat template wants a conversation, by rendering some.

Every word of these conversations is known: what does not come out again was left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from paddler.agent.worker.chat_template import Renderer, TemplateRenderError
from paddler.agent.worker.history import ROLES, HistoryForm
from paddler.agent.worker.tool_calls.examples import ARGUMENTS, FUNCTION

QUESTION: Final = "probe-question"
ANSWER: Final = "probe-answer"
THOUGHT: Final = "probe-thought"
RESULT: Final = "probe-result"
_WORD: Final = "probe-word"
_MORE: Final = "probe-more"

Message = Mapping[str, Any]

USER: Final = {"role": "user", "content": QUESTION}
PLAIN: Final = {"role": "assistant", "content": ANSWER}

# Not the one that is called: a name in the rendering is then that of the call.
TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "probe_other",
        "description": "A probe.",
        "parameters": {
            "type": "object",
            "properties": {"probe_other_key": {"type": "string", "description": "A probe."}},
            "required": ["probe_other_key"],
        },
    },
}


def call(call_id: str) -> dict[str, Any]:
    """A call."""
    function = {"name": FUNCTION, "arguments": ARGUMENTS}
    return {"id": call_id, "type": "function", "function": function}


def round_trip(extra: Message | None = None, *, result: Any = RESULT) -> list[dict[str, Any]]:
    """A call and its result."""
    return [
        {"role": "assistant", "content": None, "tool_calls": [call("call_0")], **(extra or {})},
        {"role": "tool", "tool_call_id": "call_0", "name": FUNCTION, "content": result},
    ]


class HistoryProbe:
    """A template, and what is known of ``form``, the shape of history that it wants."""

    def __init__(self, renderer: Renderer, source: str) -> None:
        self._renderer = renderer
        self._source = source
        self.form = HistoryForm()

    def render(
        self,
        *messages: Message,
        form: HistoryForm | None = None,
        is_asked: bool = False,
        thinks: bool = True,
        has_tools: bool = False,
    ) -> str | None:
        """A prompt; ``None`` if the template raises."""
        form = form or self.form
        tools = [TOOL] if has_tools else []
        try:
            return self._renderer.render(
                form.messages([dict(message) for message in messages], tools),
                add_generation_prompt=is_asked,
                enable_thinking=thinks,
                tools=form.tools(tools),
            )
        except TemplateRenderError:
            return None

    def render_answer(self, *messages: Message, **options: Any) -> str:
        """What follows the question; empty if there is no such text."""
        return (self.render(USER, *messages, **options) or "").rpartition(QUESTION)[2]

    def find_conversation(self) -> None:
        """Learn how the template wants what is said without tools."""
        self._find_no_tools()
        self._find_content("user")
        self._merge("system", [{"role": "system", "content": _WORD}, USER], _WORD)
        self._find_content("system")
        self._find_content("assistant")
        self._find_developer()

    def find_results(self) -> None:
        """Learn how the template wants the results of calls; how it wants calls is known."""
        self._merge("tool", [USER, *round_trip()], RESULT)
        self._find_content("tool")
        both = round_trip({"content": ANSWER, "reasoning_content": THOUGHT})
        self._prefer(self.form._replace(thoughts_replace_content=True), [USER, *both])
        two = round_trip({"tool_calls": [call("call_0"), call("call_1")]})
        self._prefer(self.form._replace(single_calls=True), [USER, *two])
        self._find_tools_in_system()

    def _prefer(self, form: HistoryForm, messages: Sequence[Message]) -> None:
        """Take a form in which messages can be rendered that cannot be otherwise."""
        if self.render(*messages) is None and self.render(*messages, form=form) is not None:
            self.form = form

    def _find_no_tools(self) -> None:
        for no_tools in (None, ()):
            for parts_roles in (frozenset[str](), ROLES):
                form = HistoryForm(no_tools=no_tools, parts_roles=parts_roles)
                if self.render(USER, form=form, is_asked=True) is not None:
                    self.form = HistoryForm(no_tools=no_tools)
                    return

    def _find_content(self, role: str) -> None:
        """Whether a role must speak in one text, or in parts."""
        text, in_part, in_parts = (
            self.render(*_saying(role, content)) or ""
            for content in (_WORD, _parts(_WORD), _parts(_WORD, _MORE))
        )
        takes_parts = _WORD in in_part and _WORD in in_parts and _MORE in in_parts
        if takes_parts and _WORD not in text:
            self.form = self.form._replace(parts_roles=self.form.parts_roles | {role})
        elif not takes_parts or text != in_part:  # They were written out as a list.
            self.form = self.form._replace(text_roles=self.form.text_roles | {role})

    def _merge(self, role: str, messages: Sequence[Message], word: str) -> None:
        """Let the user speak for a role that is refused or left out, if that helps."""
        if word in (self.render(*messages) or ""):
            return
        form = self.form._replace(parts_roles=self.form.parts_roles | {role})
        if word in (self.render(*messages, form=form) or ""):
            return
        form = self.form._replace(merged_roles=self.form.merged_roles | {role})
        if word in (self.render(*messages, form=form) or ""):
            self.form = form

    def _find_developer(self) -> None:
        form = self.form._replace(knows_developer=True)
        told = self.render({"role": "developer", "content": _WORD}, USER, form=form)
        # Most templates write any role, but only some models were taught this one.
        if "developer" in self._source and told is not None and _WORD in told:
            self.form = form

    def _find_tools_in_system(self) -> None:
        name = TOOL["function"]["name"]
        if name in (self.render(USER, has_tools=True) or ""):
            return
        form = self.form._replace(tools_in_system=True)
        if name in (self.render(USER, form=form, has_tools=True) or ""):
            self.form = form


def _parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def _saying(role: str, content: Any) -> list[Message]:
    """A conversation in which a role says something."""
    match role:
        case "user":
            return [{"role": role, "content": content}]
        case "system":
            return [{"role": role, "content": content}, USER]
        case "tool":
            return [USER, *round_trip(result=content)]
        case _:
            return [USER, {"role": role, "content": content}, USER]
