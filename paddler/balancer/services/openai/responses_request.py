"""What a request to the Responses API asks of an agent."""

from typing import Any, Final, TypeVar

import msgspec

from paddler.balancer.services.openai.chat_request import (
    AgentRequest,
    schema_grammar,
    tool_of,
)
from paddler.balancer.services.openai.errors import ParameterError
from paddler.balancer.services.openai.requests import (
    DEFAULT_MAX_TOKENS,
    refusal_of,
    sampling_of,
    shown,
)
from paddler.balancer.services.openai.tool_choice import (
    AllowedChoice,
    NamedChoice,
    ToolChoice,
    offer_of,
)
from paddler.messages import chat
from paddler.messages.inference import (
    Grammar,
    ImagePart,
    ImageUrl,
    JsonSchemaGrammar,
    TextPart,
)
from paddler.messages.link import ChatJob, Delivery
from paddler.messages.openai import responses as api

T = TypeVar("T")

ANY_OBJECT: Final = JsonSchemaGrammar('{"type":"object"}')
SCORES: Final = "message.output_text.logprobs"
ROLES: Final = {"developer": "system"}

# What needs a memory that outlives the request, which this service has not.
STATEFUL: Final = {
    "previous_response_id": "send the whole conversation as input",
    "conversation": "send the whole conversation as input",
    "store": "nothing is stored: leave it out, or set it to false",
    "background": "answers are not kept to be fetched later: leave it out, or set it to false",
    "prompt": "send the text itself as instructions or input",
}


def agent_request(request: api.ResponsesRequest) -> AgentRequest:
    """The request in our own form; :class:`ParameterError` where it cannot be served."""
    for name, advice in STATEFUL.items():
        if getattr(request, name):
            raise ParameterError(
                name, f"{name} is not supported, as requests are stateless: {advice}"
            )
    tools = [
        tool_of(
            f"tools[{index}]",
            tool.name or "",
            tool.description,
            tool.parameters,
            is_strict=tool.strict,
        )
        for index, tool in enumerate(request.tools or [])
        if tool.type == "function"
    ]
    offer = offer_of(tool_choice_of(request.tool_choice), tools)
    grammar = grammar_of(request.text)
    if offer.must_call and grammar is not None:
        raise ParameterError(
            "tool_choice",
            "tool_choice demands a tool call and text.format demands JSON: only one can be had",
        )
    effort = request.reasoning.effort if request.reasoning is not None else None
    is_parallel = request.parallel_tool_calls is not False
    limit = request.max_output_tokens
    return AgentRequest(
        job=ChatJob(
            chat.Chat(
                messages=messages_of(request),
                max_tokens=DEFAULT_MAX_TOKENS if limit is None else limit,
                enable_thinking=effort != "none",
                grammar=grammar,
                grammar_after_reasoning=grammar is not None,
                tools=offer.tools,
                parses_calls=bool(offer.tools),
                must_call=offer.must_call,
                only_tool=offer.only,
                may_repeat_calls=is_parallel,
                variables={} if effort in (None, "none") else {"reasoning_effort": effort},
            )
        ),
        sampling=sampling_of(request, top_logprobs=top_logprobs_of(request)),
        delivery=Delivery(
            call_deltas=bool(offer.tools),
            max_calls=None if is_parallel else 1,
            limits_calls=True,
            context_is_limit=True,
        ),
    )


def top_logprobs_of(request: api.ResponsesRequest) -> int | None:
    """How many alternatives are told for each token; ``None``: no log probabilities at all.

    Other things to ``include`` are of tools that are not here.
    """
    if request.top_logprobs is not None or SCORES in (request.include or ()):
        return request.top_logprobs or 0
    return None


def tool_choice_of(choice: str | dict[str, Any] | None) -> ToolChoice:
    """``tool_choice`` in our own form."""
    match choice:
        case None:
            return "auto"
        case "none" | "auto" | "required":
            return choice
        case {"type": "function", "name": str() as name}:
            return NamedChoice(name)
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": [*tools]}:
            names = tuple(
                tool_choice.name
                for tool in tools
                if isinstance(tool_choice := tool_choice_of(tool), NamedChoice)
            )
            return AllowedChoice(names, must_call=mode == "required")
        case _:
            raise ParameterError(
                "tool_choice",
                f"tool_choice is {shown(choice)}; it must be none, auto, required or "
                '{"type": "function", "name": …}',
            )


def grammar_of(text: api.TextOptions | None) -> Grammar | None:
    """What the answer has to obey."""
    wanted = text.format if text is not None else None
    match wanted.type if wanted is not None else None:
        case "json_schema":
            assert wanted is not None
            return schema_grammar("text.format.schema", wanted.schema)
        case "json_object":
            return ANY_OBJECT
        case _:
            return None


# --- input -------------------------------------------------------------------------------------


def messages_of(request: api.ResponsesRequest) -> list[chat.Message]:
    """Instructions and input as a conversation."""
    messages = []
    if request.instructions:
        messages.append(chat.Message(role="system", content=request.instructions))
    if isinstance(request.input, str):
        messages.append(chat.Message(role="user", content=request.input))
        return messages
    conversation = _Conversation(messages)
    for index, item in enumerate(request.input):
        conversation.add(f"input[{index}]", item)
    return conversation.finish()


class _Conversation:
    """Puts items together to turns: a thought and calls are part of the turn that they are in."""

    def __init__(self, messages: list[chat.Message]) -> None:
        self._messages = messages
        self._reasoning: str | None = None

    def add(self, place: str, item: dict[str, Any]) -> None:
        """Take the next item; unknown types say nothing to a model."""
        match item.get("type", "message"):
            case "message":
                self._add_message(place, _read(place, item, api.MessageItem))
            case "function_call":
                self._add_call(_read(place, item, api.FunctionCallItem))
            case "function_call_output":
                output = _read(place, item, api.FunctionOutputItem)
                self._messages.append(
                    chat.Message(
                        role="tool",
                        content=_content(f"{place}.output", output.output),
                        tool_call_id=output.call_id,
                    )
                )
            case "reasoning":
                parts = _read(place, item, api.ReasoningItem).content or []
                self._reasoning = "".join(
                    text for part in parts if isinstance(text := part.get("text"), str)
                )
            case "item_reference":
                raise ParameterError(
                    place,
                    f"{place} refers to a stored item, and nothing is stored: send the item itself",
                )
            case _:
                pass

    def finish(self) -> list[chat.Message]:
        """The whole conversation."""
        return self._messages

    def _add_message(self, place: str, item: api.MessageItem) -> None:
        self._messages.append(
            chat.Message(
                role=ROLES.get(item.role, item.role),
                content=_content(f"{place}.content", item.content),
                reasoning_content=self._take_reasoning() if item.role == "assistant" else None,
            )
        )

    def _add_call(self, item: api.FunctionCallItem) -> None:
        call = chat.ToolCall(chat.FunctionCall(item.name, item.arguments), item.call_id)
        last = self._messages[-1] if self._messages else None
        if last is not None and last.role == "assistant":
            calls = [*(last.tool_calls or []), call]
            self._messages[-1] = msgspec.structs.replace(last, tool_calls=calls)
        else:
            self._messages.append(
                chat.Message(
                    role="assistant", reasoning_content=self._take_reasoning(), tool_calls=[call]
                )
            )

    def _take_reasoning(self) -> str | None:
        reasoning, self._reasoning = self._reasoning, None
        return reasoning or None


def _content(place: str, parts: str | list[dict[str, Any]]) -> str | list[TextPart | ImagePart]:
    """Text and images; other parts say nothing to a model."""
    if isinstance(parts, str):
        return parts
    content: list[TextPart | ImagePart] = []
    for index, part in enumerate(parts):
        match part.get("type"):
            case "input_text" | "output_text" | "text":
                content.append(TextPart(_read(f"{place}[{index}]", part, api.InputText).text))
            case "input_image":
                image = _read(f"{place}[{index}]", part, api.InputImage)
                if image.image_url is not None:
                    content.append(ImagePart(ImageUrl(image.image_url)))
            case _:
                pass
    if any(isinstance(part, ImagePart) for part in content):
        return content
    return "\n".join(part.text for part in content if isinstance(part, TextPart))


def _read(place: str, item: dict[str, Any], form: type[T]) -> T:
    try:
        return msgspec.convert(item, form)
    except msgspec.ValidationError as error:
        raise refusal_of(error, place) from error
