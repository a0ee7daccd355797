"""What a chat completion asks of an agent."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from paddler.balancer.services.openai.errors import ParameterError
from paddler.balancer.services.openai.requests import (
    DEFAULT_MAX_TOKENS,
    sampling_of,
    shown,
    stop_texts,
)
from paddler.balancer.services.openai.tool_choice import (
    AllowedChoice,
    NamedChoice,
    ToolChoice,
    offer_of,
)
from paddler.messages import chat
from paddler.messages.inference import Grammar, ImagePart, ImageUrl, JsonSchemaGrammar, TextPart
from paddler.messages.link import ChatJob, Delivery, Sampling
from paddler.messages.openai import chat as api
from paddler.messages.openai.common import (
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
)

ANY_OBJECT: Final = '{"type":"object"}'
# What the conversation itself is; a template variable of this name would replace it.
RESERVED_VARIABLES: Final = frozenset({"messages", "tools", "add_generation_prompt"})

encode = msgspec.json.Encoder().encode


class AgentRequest(msgspec.Struct, frozen=True):
    """All that the dispatcher needs of a request."""

    job: ChatJob
    sampling: Sampling
    delivery: Delivery


def agent_request(request: api.ChatCompletionRequest) -> AgentRequest:
    """The request in our own form; :class:`ParameterError` where it cannot be served."""
    for name, successor in (("functions", "tools"), ("function_call", "tool_choice")):
        if getattr(request, name):
            raise ParameterError(name, f"{name} is not supported: send {successor} instead")
    offer = offer_of(tool_choice_of(request.tool_choice), tools_of(request.tools or []))
    grammar = grammar_of(request.response_format)
    if offer.must_call and grammar is not None:
        raise ParameterError(
            "tool_choice",
            "tool_choice demands a tool call and response_format demands JSON: only one can be had",
        )
    variables = dict(request.chat_template_kwargs or {})
    if reserved := RESERVED_VARIABLES & variables.keys():
        name = min(reserved)
        raise ParameterError(
            "chat_template_kwargs",
            f"chat_template_kwargs has the key {name}, which the conversation itself sets",
        )
    is_parallel = request.parallel_tool_calls is not False
    limit = request.max_completion_tokens
    if limit is None:
        limit = request.max_tokens
    return AgentRequest(
        job=ChatJob(
            chat.Chat(
                messages=[message_of(message) for message in request.messages],
                max_tokens=DEFAULT_MAX_TOKENS if limit is None else limit,
                enable_thinking=thinks(request, variables),
                grammar=grammar,
                grammar_after_reasoning=grammar is not None,
                tools=offer.tools,
                parses_calls=bool(offer.tools),
                must_call=offer.must_call,
                only_tool=offer.only,
                may_repeat_calls=is_parallel,
                variables=variables,
            )
        ),
        sampling=sampling_of(request, top_logprobs=top_logprobs_of(request)),
        delivery=Delivery(
            stop=stop_texts(request.stop),
            call_deltas=bool(offer.tools),
            max_calls=None if is_parallel else 1,
            limits_calls=True,
            context_is_limit=True,
        ),
    )


def thinks(request: api.ChatCompletionRequest, variables: dict[str, Any]) -> bool:
    """Whether the model is to reason first; moves what says so out of ``variables``.

    Reasoning is on unless the request turns it off. An effort is the template's to weigh.
    """
    asked = variables.pop("enable_thinking", None)
    if asked is not None and not isinstance(asked, bool):
        raise ParameterError(
            "chat_template_kwargs",
            f"chat_template_kwargs.enable_thinking is {shown(asked)}; it must be true or false",
        )
    effort = request.reasoning_effort
    if effort is not None and effort != "none":
        variables.setdefault("reasoning_effort", effort)
    return effort != "none" if asked is None else asked


def top_logprobs_of(request: api.ChatCompletionRequest) -> int | None:
    """How many alternatives are told for each token; ``None``: no log probabilities at all."""
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs is not None:
        raise ParameterError("top_logprobs", "top_logprobs needs logprobs to be true")
    return None


# --- messages ----------------------------------------------------------------------------------


def message_of(message: api.ChatMessage) -> chat.Message:
    """One turn in our own form."""
    return chat.Message(
        role=message.role,
        content=content_of(message.content),
        reasoning_content=message.reasoning_content or message.reasoning,
        tool_calls=calls_of(message.tool_calls) if message.tool_calls else None,
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def content_of(
    parts: str | Sequence[api.TextPart | api.ImagePart | api.RefusalPart] | None,
) -> str | list[TextPart | ImagePart] | None:
    """Text parts alone are joined, since many chat templates take only a string."""
    if parts is None or isinstance(parts, str):
        return parts
    if not any(isinstance(part, api.ImagePart) for part in parts):
        return "\n".join(text_of(part) for part in parts if not isinstance(part, api.ImagePart))
    return [
        ImagePart(ImageUrl(part.image_url.url))
        if isinstance(part, api.ImagePart)
        else TextPart(text_of(part))
        for part in parts
    ]


def text_of(part: api.TextPart | api.RefusalPart) -> str:
    """The text of a part that has one."""
    return part.text if isinstance(part, api.TextPart) else part.refusal


def calls_of(calls: Sequence[api.ToolCall]) -> list[chat.ToolCall]:
    """The calls of an earlier turn."""
    return [
        chat.ToolCall(
            chat.FunctionCall(
                call.function.name,
                call.function.arguments
                if isinstance(call.function.arguments, str)
                else encode(call.function.arguments).decode(),
            ),
            call.id,
        )
        for call in calls
    ]


# --- tools -------------------------------------------------------------------------------------


def tools_of(tools: Sequence[api.ToolDefinition]) -> list[chat.Tool]:
    """The functions among the tools, their schemas as they are."""
    functions = []
    for index, tool in enumerate(tools):
        if tool.type != "function":
            continue
        if tool.function is None:
            raise ParameterError(
                f"tools[{index}]", f"tools[{index}] is of type function and lacks the key function"
            )
        function = tool.function
        functions.append(
            tool_of(
                f"tools[{index}].function",
                function.name,
                function.description,
                function.parameters,
                is_strict=function.strict,
            )
        )
    return functions


def tool_of(
    place: str,
    name: str,
    description: str | None,
    parameters: dict[str, Any] | None,
    *,
    is_strict: bool | None,
) -> chat.Tool:
    """A function in our own form; ``place`` is where the request has it."""
    if not name:
        raise ParameterError(f"{place}.name", f"{place}.name is empty")
    if parameters is not None:
        # Many templates read both keys without asking whether they are there.
        parameters = {"type": "object", "properties": {}} | parameters
        require_known_properties(parameters)
    return chat.Tool(chat.Function(name, description or "", parameters, is_strict))


def require_known_properties(schema: dict[str, Any]) -> None:
    """Refuse a schema that requires a property which it does not declare."""
    required, properties = schema.get("required"), schema.get("properties")
    if not isinstance(required, list) or not isinstance(properties, dict):
        return
    for name in required:
        if isinstance(name, str) and name not in properties:
            raise ParameterError("tools", f"Required field '{name}' not found in properties")


def tool_choice_of(choice: str | api.NamedTool | api.AllowedTools | None) -> ToolChoice:
    """``tool_choice`` in our own form."""
    match choice:
        case api.NamedTool(function):
            return NamedChoice(function.name)
        case api.AllowedTools(allowed):
            names = tuple(tool.function.name for tool in allowed.tools)
            return AllowedChoice(names, must_call=allowed.mode == "required")
        case "required" | "none":
            return choice
        case _:
            return "auto"


# --- structured output -------------------------------------------------------------------------


def grammar_of(wanted: ResponseFormat | None) -> Grammar | None:
    """What the answer has to obey."""
    match wanted:
        case JsonObjectFormat():
            return JsonSchemaGrammar(ANY_OBJECT)
        case JsonSchemaFormat(json_schema):
            return schema_grammar("response_format.json_schema.schema", json_schema.schema)
        case _:
            return None


def schema_grammar(place: str, schema: dict[str, Any] | None) -> Grammar:
    """The grammar of a JSON schema, which must be there."""
    if schema is None:
        raise ParameterError(place, f"{place} is missing")
    return JsonSchemaGrammar(encode(schema).decode())
