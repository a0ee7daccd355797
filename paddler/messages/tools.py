"""Tool calls that a model made, as the inference service tells them."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from paddler.messages._base import OneOf


class ToolCallArguments(OneOf, frozen=True, rename="pascal"):
    """What a call passes: a JSON value, or the text that is none."""

    valid_json: Any = UNSET
    invalid_json: str | UnsetType = UNSET


class ParsedToolCall(Struct, frozen=True):
    """One call of an answer."""

    id: str
    name: str
    arguments: ToolCallArguments


class UnrecognizedToolCall(Struct, frozen=True, rename={"why": "ffi_error_message"}):
    """Text of a tool-call section in no known syntax. ``why`` is for people."""

    text: str
    why: str
