"""From a request to the text of its prompt, or to the reason why there is none."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from paddler.agent.worker.answer import Answer
from paddler.agent.worker.chat_template import TemplateRenderError
from paddler.agent.worker.grammar import Gbnf, SchemaNotSupported, gbnf_of
from paddler.agent.worker.images import IMAGE_MARKER, ImageRefused, RgbImage
from paddler.agent.worker.markers import ModelFormat, Renderer
from paddler.agent.worker.tool_calls import schemas
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ConversationMessage,
    GeneratedTokenResult,
    ImagePart,
    TextPart,
    Tool,
)
from paddler.messages.link import ConversationJob, RawPromptJob
from paddler.messages.tools import ParsedToolCall

INCOMPATIBLE: Final = "Grammar constraints are incompatible with thinking mode"


class ToolChecks(Protocol):
    """Knows the JSON schemas of tools."""

    def invalid_schema(self, tools: Sequence[Tool]) -> str | None:
        """Which tool's parameters are no valid JSON schema, and why; ``None``: all are."""
        ...

    def failed_checks(self, calls: Sequence[ParsedToolCall], tools: Sequence[Tool]) -> list[str]:
        """What is wrong with calls, a text for each bad one."""
        ...


class Prompt(NamedTuple):
    """What is decoded, and the grammar that the answer obeys.

    The text has a marker in the place of each image.
    """

    text: str
    grammar: Gbnf | None
    images: Sequence[RgbImage] = ()
    tools: Sequence[Tool] = ()
    parses_calls: bool = False


class PromptMaker:
    """Renders prompts for one model.

    ``agent_label`` opens the texts of errors: the client may talk to many agents at once.
    ``prepare_images`` decodes the images at these addresses; images are decoded, so that
    errors in them are told, even where ``sees_images`` says that nothing can be done with
    them. ``form`` is how the model writes, ``checks`` knows the schemas of tools.
    """

    def __init__(
        self,
        agent_label: str,
        template: Renderer,
        *,
        prepare_images: Callable[[Sequence[str]], Sequence[RgbImage]],
        sees_images: bool,
        form: ModelFormat | None = None,
        checks: ToolChecks = schemas,
    ) -> None:
        self._agent_label = agent_label
        self._template = template
        self._form = form or ModelFormat()
        self._checks = checks
        self._prepare_images = prepare_images
        self._sees_images = sees_images

    def make(self, job: RawPromptJob | ConversationJob) -> Prompt | GeneratedTokenResult:
        """The prompt, or the result that refuses the request."""
        grammar = self._grammar_of(job)
        if isinstance(grammar, GeneratedTokenResult):
            return grammar
        if isinstance(job, RawPromptJob):
            return Prompt(job.request.raw_prompt, grammar)
        images = self._images_of(job.request)
        if isinstance(images, GeneratedTokenResult):
            return images
        text = self._render(job.request)
        if isinstance(text, GeneratedTokenResult):
            return text
        if images and not self._sees_images:
            return GeneratedTokenResult(
                multimodal_not_supported=self._say(
                    "received images but model does not support multimodal input"
                )
            )
        request = job.request
        parses_calls = request.parse_tool_calls and bool(request.tools)
        if parses_calls and (why := self._checks.invalid_schema(request.tools)) is not None:
            return GeneratedTokenResult(tool_schema_invalid=why)
        return Prompt(text, grammar, images, tuple(request.tools), parses_calls)

    def begin_answer(self, prompt: Prompt) -> Answer:
        """What splits and checks the answer to a prompt."""
        return Answer(
            self._form,
            prompt.text,
            tools=prompt.tools,
            check_calls=self._checks.failed_checks if prompt.parses_calls else None,
            is_constrained=prompt.grammar is not None,
        )

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

    def _images_of(
        self, request: ContinueFromConversationHistory
    ) -> Sequence[RgbImage] | GeneratedTokenResult:
        urls = [
            part.image_url.url
            for message in request.conversation_history
            if not isinstance(message.content, str)
            for part in message.content
            if isinstance(part, ImagePart)
        ]
        if not urls:
            return ()
        try:
            return self._prepare_images(urls)
        except ImageRefused as error:
            return GeneratedTokenResult(
                image_decoding_failed=self._say(f"failed to decode images: {error}")
            )

    def _render(self, request: ContinueFromConversationHistory) -> str | GeneratedTokenResult:
        messages = [_template_message(message) for message in request.conversation_history]
        try:
            return self._template.render(
                self._form.history.messages(messages),
                add_generation_prompt=request.add_generation_prompt,
                enable_thinking=request.enable_thinking,
                tools=self._form.history.tools(msgspec.to_builtins(request.tools)),
            )
        except TemplateRenderError as error:
            return GeneratedTokenResult(
                chat_template_error=self._say(f"failed to render chat template: {error}")
            )

    def _say(self, text: str) -> str:
        return f"{self._agent_label}: {text}"


def _template_message(message: ConversationMessage) -> dict[str, Any]:
    """A message as templates know it: parts are plain objects, images texts with a marker."""
    content = message.content
    if not isinstance(content, str):
        content = [
            TextPart(IMAGE_MARKER) if isinstance(part, ImagePart) else part for part in content
        ]
    return {"role": message.role, "content": msgspec.to_builtins(content)}
