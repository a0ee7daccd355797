"""From a request to the text of its prompt, or to the reason why there is none."""

from typing import Any

import msgspec

from paddler.agent.worker.chat_template import ChatTemplate, TemplateRenderError
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ConversationMessage,
    GeneratedTokenResult,
    ImagePart,
)
from paddler.messages.link import ConversationJob, RawPromptJob


class PromptMaker:
    """Renders prompts for one model. ``template`` is ``None`` where the model has none.

    ``agent_label`` opens the texts of errors: the client may talk to many agents at once.
    """

    def __init__(
        self, agent_label: str, template: ChatTemplate | None, *, is_embeddings_only: bool
    ) -> None:
        self._agent_label = agent_label
        self._template = template
        self._is_embeddings_only = is_embeddings_only

    def make(self, job: RawPromptJob | ConversationJob) -> str | GeneratedTokenResult:
        """The prompt, or the result that refuses the request."""
        if self._is_embeddings_only:
            return GeneratedTokenResult(
                token_generation_disabled=self._say(
                    "token generation is disabled because this agent is running in "
                    "embeddings-only mode"
                )
            )
        if job.request.grammar is not None:
            return GeneratedTokenResult(
                grammar_initialization_failed=self._say("grammar constraints are not supported yet")
            )
        if isinstance(job, RawPromptJob):
            return job.request.raw_prompt
        return self._render(job.request)

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
        # Only an embeddings-only agent loads a model without a template.
        assert self._template is not None
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
