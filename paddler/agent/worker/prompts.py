"""From a request to the text of its prompt, or to the reason why there is none."""

from typing import Any, Final, NamedTuple

import msgspec

from paddler.agent.worker.chat_template import ChatTemplate, TemplateRenderError
from paddler.agent.worker.grammar import Gbnf, SchemaNotSupported, gbnf_of
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ConversationMessage,
    GeneratedTokenResult,
    ImagePart,
)
from paddler.messages.link import ConversationJob, RawPromptJob

INCOMPATIBLE: Final = "Grammar constraints are incompatible with thinking mode"


class Prompt(NamedTuple):
    """What is decoded, and the grammar that the answer obeys."""

    text: str
    grammar: Gbnf | None


class PromptMaker:
    """Renders prompts for one model.

    ``agent_label`` opens the texts of errors: the client may talk to many agents at once.
    """

    def __init__(self, agent_label: str, template: ChatTemplate) -> None:
        self._agent_label = agent_label
        self._template = template

    def make(self, job: RawPromptJob | ConversationJob) -> Prompt | GeneratedTokenResult:
        """The prompt, or the result that refuses the request."""
        grammar = self._grammar_of(job)
        if isinstance(grammar, GeneratedTokenResult):
            return grammar
        text = (
            job.request.raw_prompt if isinstance(job, RawPromptJob) else self._render(job.request)
        )
        return Prompt(text, grammar) if isinstance(text, str) else text

    def _grammar_of(
        self, job: RawPromptJob | ConversationJob
    ) -> Gbnf | GeneratedTokenResult | None:
        if job.request.grammar is None:
            return None
        if isinstance(job, ConversationJob) and job.request.enable_thinking:
            return GeneratedTokenResult(grammar_incompatible_with_thinking=INCOMPATIBLE)
        try:
            return gbnf_of(job.request.grammar)
        except SchemaNotSupported as error:
            return GeneratedTokenResult(
                grammar_syntax_error=f"Failed to create grammar sampler: {error}"
            )

    def _render(self, request: ContinueFromConversationHistory) -> str | GeneratedTokenResult:
        if any(_has_images(message) for message in request.conversation_history):
            return GeneratedTokenResult(
                multimodal_not_supported=self._say(
                    "received images but model does not support multimodal input"
                )
            )
        if request.parse_tool_calls and request.tools:
            return GeneratedTokenResult(
                tool_schema_invalid=self._say(
                    "tool calls cannot be parsed yet; leave parse_tool_calls out to get their text"
                )
            )
        try:
            return self._template.render(
                [_template_message(message) for message in request.conversation_history],
                add_generation_prompt=request.add_generation_prompt,
                enable_thinking=request.enable_thinking,
                tools=msgspec.to_builtins(request.tools),
            )
        except TemplateRenderError as error:
            return GeneratedTokenResult(
                chat_template_error=self._say(f"failed to render chat template: {error}")
            )

    def _say(self, text: str) -> str:
        return f"{self._agent_label}: {text}"


def _has_images(message: ConversationMessage) -> bool:
    return not isinstance(message.content, str) and any(
        isinstance(part, ImagePart) for part in message.content
    )


def _template_message(message: ConversationMessage) -> dict[str, Any]:
    """A message as templates know it: part arrays stay arrays of plain objects."""
    return {"role": message.role, "content": msgspec.to_builtins(message.content)}
