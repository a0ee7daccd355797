"""``tool_choice``: which of the tools a model may call, and whether it must."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from paddler.balancer.services.openai.errors import ParameterError
from paddler.messages import chat


class NamedChoice(msgspec.Struct, frozen=True):
    """The one function that must be called."""

    name: str


class AllowedChoice(msgspec.Struct, frozen=True):
    """Some functions: no other may be called."""

    names: tuple[str, ...]
    must_call: bool


ToolChoice = Literal["none", "auto", "required"] | NamedChoice | AllowedChoice


class Offer(msgspec.Struct, frozen=True):
    """The tools that the model is told of, whether it must call one, and maybe which."""

    tools: list[chat.Tool]
    must_call: bool = False
    only: str | None = None


def offer_of(choice: ToolChoice, tools: list[chat.Tool]) -> Offer:
    """What a choice makes of the tools; :class:`ParameterError` if it cannot be followed."""
    match choice:
        case "none":
            return Offer([])
        case "auto":
            return Offer(tools)
        case "required":
            if not tools:
                raise ParameterError(
                    "tool_choice", "tool_choice is required, and there are no tools"
                )
            return Offer(tools, must_call=True)
        case NamedChoice(name):
            _require_known([name], tools)
            return Offer(tools, must_call=True, only=name)
        case AllowedChoice(names, must_call):
            _require_known(names, tools)
            allowed = [tool for tool in tools if tool.function.name in names]
            return offer_of("required" if must_call else "auto", allowed)


def _require_known(names: Sequence[str], tools: Sequence[chat.Tool]) -> None:
    known = [tool.function.name for tool in tools]
    for name in names:
        if name not in known:
            raise ParameterError(
                "tool_choice",
                f"tool_choice names {name!r}; the functions in tools are: "
                f"{', '.join(known) or 'none'}",
            )
