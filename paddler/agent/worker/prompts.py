"""From a request to the text of its prompt, or to the reason why there is none."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol, assert_never

import msgspec

from paddler.agent.worker.answer import Answer
from paddler.agent.worker.chat_template import TemplateRenderError
from paddler.agent.worker.grammar import Gbnf, SchemaNotSupported, gbnf_of
from paddler.agent.worker.images import IMAGE_MARKER, ImageRefused, RgbImage
from paddler.agent.worker.markers import ModelFormat, Renderer
from paddler.agent.worker.sections import REASONING, SectionSplitter
from paddler.agent.worker.tool_calls import schemas
from paddler.agent.worker.tool_calls.grammars import (
    behind_reasoning,
    calls_or_content,
    forced_calls,
    readable,
)
from paddler.messages.chat import Chat, Message, Tool, chat_of
from paddler.messages.inference import (
    ContinueFromRawPrompt,
    GeneratedTokenResult,
    Grammar,
    ImagePart,
    TextPart,
)
from paddler.messages.link import ChatJob, ConversationJob, Delivery, RawPromptJob, TextJob
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
    """What is decoded, and what its answer obeys.

    The text has a marker in the place of each image. ``is_constrained``: the grammar is the
    request's own, so that nothing in the answer is a tool call. ``rules_calls``: tool calls
    are written as the grammar says, not as the model likes.
    """

    text: str
    max_tokens: int
    grammar: Gbnf | None = None
    images: Sequence[RgbImage] = ()
    tools: Sequence[Tool] = ()
    parses_calls: bool = False
    is_constrained: bool = False
    rules_calls: bool = False


class Writing(NamedTuple):
    """A chat template, and how the model writes by it."""

    template: Renderer
    form: ModelFormat


class PromptMaker:
    """Renders prompts for one model.

    ``agent_label`` opens the texts of errors: the client may talk to many agents at once.
    ``prepare_images`` decodes the images at these addresses; images are decoded, so that
    errors in them are told, even where ``sees_images`` says that nothing can be done with
    them. ``form`` is how the model writes, ``with_tools`` what replaces it and the template
    in requests with tools, ``checks`` knows the schemas of tools.
    """

    def __init__(
        self,
        agent_label: str,
        template: Renderer,
        *,
        prepare_images: Callable[[Sequence[str]], Sequence[RgbImage]],
        sees_images: bool,
        form: ModelFormat | None = None,
        with_tools: Writing | None = None,
        checks: ToolChecks = schemas,
    ) -> None:
        self._agent_label = agent_label
        self._writing = Writing(template, form or ModelFormat())
        self._writing_with_tools = with_tools or self._writing
        self._checks = checks
        self._prepare_images = prepare_images
        self._sees_images = sees_images

    def make(self, job: TextJob) -> Prompt | GeneratedTokenResult:
        """The prompt, or the result that refuses the request. May wait for another process."""
        match job:
            case RawPromptJob(request):
                return self._make_raw(request)
            case ConversationJob(request):
                if request.grammar is not None and request.enable_thinking:
                    return GeneratedTokenResult(grammar_incompatible_with_thinking=INCOMPATIBLE)
                return self._make_chat(chat_of(request))
            case ChatJob(chat):
                return self._make_chat(chat)
            case _:
                assert_never(job)

    def check_calls(self, calls: Sequence[ParsedToolCall], tools: Sequence[Tool]) -> Sequence[str]:
        """What is wrong with calls by the schemas of the tools. May wait for another process."""
        return self._checks.failed_checks(calls, tools)

    def begin_answer(self, prompt: Prompt, *, delivery: Delivery, is_scored: bool) -> Answer:
        """What splits the answer to a prompt."""
        form = self._writing_for(prompt.tools).form
        return Answer(
            readable(form) if prompt.rules_calls else form,
            prompt.text,
            tools=prompt.tools,
            parses_calls=prompt.parses_calls,
            is_constrained=prompt.is_constrained,
            is_scored=is_scored,
            delivery=delivery,
        )

    def _writing_for(self, tools: Sequence[Tool]) -> Writing:
        return self._writing_with_tools if tools else self._writing

    def _make_raw(self, request: ContinueFromRawPrompt) -> Prompt | GeneratedTokenResult:
        grammar = _gbnf(request.grammar)
        if isinstance(grammar, GeneratedTokenResult):
            return grammar
        return Prompt(
            request.raw_prompt, request.max_tokens, grammar, is_constrained=grammar is not None
        )

    def _make_chat(self, chat: Chat) -> Prompt | GeneratedTokenResult:
        grammar = _gbnf(chat.grammar)
        if isinstance(grammar, GeneratedTokenResult):
            return grammar
        images = self._images_of(chat)
        if isinstance(images, GeneratedTokenResult):
            return images
        template, form = self._writing_for(chat.tools)
        text = self._render(chat, template, form)
        if isinstance(text, GeneratedTokenResult):
            return text
        if images and not self._sees_images:
            return GeneratedTokenResult(
                multimodal_not_supported=self._say(
                    "received images but model does not support multimodal input"
                )
            )
        parses_calls = chat.parses_calls and bool(chat.tools)
        if parses_calls and (why := self._checks.invalid_schema(chat.tools)) is not None:
            return GeneratedTokenResult(tool_schema_invalid=why)
        ruled = _rule(form, chat, grammar, text)
        if isinstance(ruled, GeneratedTokenResult):
            return ruled
        return Prompt(
            text,
            chat.max_tokens,
            ruled.grammar,
            images,
            tuple(chat.tools),
            parses_calls,
            is_constrained=ruled.grammar is not None and not ruled.has_calls,
            rules_calls=ruled.has_calls,
        )

    def _images_of(self, chat: Chat) -> Sequence[RgbImage] | GeneratedTokenResult:
        urls = [
            part.image_url.url
            for message in chat.messages
            if isinstance(message.content, list)
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

    def _render(
        self, chat: Chat, template: Renderer, form: ModelFormat
    ) -> str | GeneratedTokenResult:
        history = form.history
        tools = [_template_tool(tool) for tool in chat.tools]
        try:
            return template.render(
                history.messages([_template_message(m) for m in chat.messages], tools),
                add_generation_prompt=chat.add_generation_prompt,
                enable_thinking=chat.enable_thinking,
                tools=history.tools(tools),
                variables=chat.variables,
            )
        except TemplateRenderError as error:
            return GeneratedTokenResult(
                chat_template_error=self._say(f"failed to render chat template: {error}")
            )

    def _say(self, text: str) -> str:
        return f"{self._agent_label}: {text}"


class _Ruled(NamedTuple):
    """What an answer obeys. ``has_calls``: tool calls, if it makes any, do, too."""

    grammar: Gbnf | None
    has_calls: bool = False


def _rule(
    form: ModelFormat, chat: Chat, grammar: Gbnf | None, text: str
) -> _Ruled | GeneratedTokenResult:
    """What the answer to a prompt obeys, with the request's own ``grammar`` or without."""
    reasoning = {
        "starts_in_reasoning": _starts_in_reasoning(form, text),
        "thinks": chat.enable_thinking,
    }
    if grammar is not None and not chat.grammar_after_reasoning:
        return _Ruled(grammar)
    if grammar is not None:
        if chat.tools:
            try:
                both = calls_or_content(
                    form, chat.tools, grammar, may_repeat=chat.may_repeat_calls, **reasoning
                )
            except SchemaNotSupported:
                pass  # The tools cannot be called then, and the content is as it should be.
            else:
                return _Ruled(both, has_calls=True)
        return _Ruled(behind_reasoning(form, grammar, **reasoning))
    if not chat.must_call and not any(tool.function.strict for tool in chat.tools):
        return _Ruled(None)
    try:
        calls = _forced_calls(
            form,
            msgspec.json.encode(chat.tools),
            chat.only_tool,
            is_required=chat.must_call,
            may_repeat=chat.may_repeat_calls,
            **reasoning,
        )
    except SchemaNotSupported as error:
        if not chat.must_call:
            return _Ruled(None)  # Calls are checked at the end all the same.
        return GeneratedTokenResult(tool_schema_invalid=str(error))
    return _Ruled(calls, has_calls=True)


def _starts_in_reasoning(form: ModelFormat, text: str) -> bool:
    return SectionSplitter(form.markers, text, expects_calls=False).section is REASONING


# The same tools come again with every turn of a conversation.
@functools.lru_cache(maxsize=16)
def _forced_calls(form: ModelFormat, tools: bytes, only: str | None, **options: bool) -> Gbnf:
    """See :func:`forced_calls`; ``tools`` as JSON. What need not be called may be loose."""
    decoded = msgspec.json.decode(tools, type=list[Tool])
    names = [tool.function.name for tool in decoded if not tool.function.strict]
    loose = () if options["is_required"] else names
    return forced_calls(form, decoded, only=only, loose=loose, **options)


def _gbnf(grammar: Grammar | None) -> Gbnf | GeneratedTokenResult | None:
    if grammar is None:
        return None
    try:
        return gbnf_of(grammar)
    except SchemaNotSupported as error:
        return GeneratedTokenResult(
            grammar_syntax_error=f"Failed to create grammar sampler: {error}"
        )


def _template_message(message: Message) -> dict[str, Any]:
    """A message as templates know it: parts are plain objects, images texts with a marker.

    Keys that are absent stay absent: templates ask whether they are defined.
    """
    shaped: dict[str, Any] = msgspec.to_builtins(message)
    shaped.setdefault("content", None)
    if isinstance(message.content, list):
        shaped["content"] = [
            msgspec.to_builtins(TextPart(IMAGE_MARKER) if isinstance(part, ImagePart) else part)
            for part in message.content
        ]
    return shaped


def _template_tool(tool: Tool) -> dict[str, Any]:
    """A tool as templates know it. ``strict`` is for the sampler, not for the model."""
    function = msgspec.structs.replace(tool.function, strict=None)
    shaped: dict[str, Any] = msgspec.to_builtins(Tool(function))
    return shaped
