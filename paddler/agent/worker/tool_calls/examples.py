# ruff: noqa: RUF001 - DeepSeek's markers are written with a fullwidth bar.
"""Calls whose every word is known, as a chat template writes them.

They show how a model was taught to call tools: what stands around the words is the same for
any call. A template is asked for two calls, since what joins calls is part of it.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

FUNCTION: Final = "probe_function"
TEXT_KEY: Final = "probe_text"
NUMBER_KEY: Final = "probe_number"
TEXT: Final = "probe-value"
NUMBER: Final = 70707
ARGUMENTS: Final[dict[str, Any]] = {TEXT_KEY: TEXT, NUMBER_KEY: NUMBER}

# Short enough for the templates that demand nine letters or digits.
CALL_IDS: Final = ("probe0000", "probe0001")

FindArguments = Callable[[str, int], tuple[int, int] | None]
"""Where the next arguments stand in a text, from a position on; ``None``: nowhere."""


class CallText(NamedTuple):
    """What stands around the arguments of calls. ``FUNCTION`` in it stands for any name."""

    before: str
    between: str | None
    """From the arguments of one call to those of the next; ``None``: there is one call only."""
    after: str
    arguments: str
    """Those of the example."""


def call_text(example: str, find_arguments: FindArguments) -> CallText | None:
    """What an example of one or two calls shows; ``None`` if none is found in it."""
    places = list(_places(example, find_arguments))
    if not places:
        return None
    first, last = places[0], places[-1]
    return CallText(
        before=example[: first[0]],
        between=example[first[1] : last[0]] if len(places) > 1 else None,
        after=example[last[1] :],
        arguments=example[first[0] : first[1]],
    )


def has_sorted_keys(arguments: str) -> bool:
    """Whether an example has its keys in the order of the alphabet, which is not how they came."""
    return arguments.find(NUMBER_KEY) < arguments.find(TEXT_KEY)


def _places(example: str, find_arguments: FindArguments) -> Iterator[tuple[int, int]]:
    """Where the arguments of the calls stand, each behind the name of its call."""
    position = 0
    for _ in CALL_IDS:
        name = example.find(FUNCTION, position)
        place = None if name < 0 else find_arguments(example, name + len(FUNCTION))
        if place is None:
            return
        yield place
        position = place[1]


# --- of each dialect ---------------------------------------------------------------------------

_ARGUMENTS: Final = f'{{"{TEXT_KEY}": "{TEXT}", "{NUMBER_KEY}": {NUMBER}}}'
_OBJECT: Final = f'{{"name": "{FUNCTION}", "arguments": {_ARGUMENTS}}}'
_ARRAY: Final = f"[{_OBJECT}, {_OBJECT}]"

_QWEN_XML_CALL: Final = (
    f"<tool_call>\n<function={FUNCTION}>\n<parameter={TEXT_KEY}>\n{TEXT}\n</parameter>\n"
    f"<parameter={NUMBER_KEY}>\n{NUMBER}\n</parameter>\n</function>\n</tool_call>"
)
_GLM_CALL: Final = (
    f"<tool_call>{FUNCTION}\n<arg_key>{TEXT_KEY}</arg_key>\n<arg_value>{TEXT}</arg_value>\n"
    f"<arg_key>{NUMBER_KEY}</arg_key>\n<arg_value>{NUMBER}</arg_value>\n</tool_call>"
)
_MISTRAL_CALL: Final = f"[TOOL_CALLS]{FUNCTION}[ARGS]{_ARGUMENTS}"
_GEMMA_CALL: Final = (
    f'<|tool_call>call:{FUNCTION}{{{TEXT_KEY}:<|"|>{TEXT}<|"|>,{NUMBER_KEY}:{NUMBER}}}<tool_call|>'
)
_DEEPSEEK_CALL: Final = (
    f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{FUNCTION}\n```json\n{_ARGUMENTS}\n```"
    "<｜tool▁call▁end｜>"
)
_DEEPSEEK_V3_CALL: Final = (
    f"<｜tool▁call▁begin｜>{FUNCTION}<｜tool▁sep｜>{_ARGUMENTS}<｜tool▁call▁end｜>"
)
_INVOKE_CALL: Final = (
    f'<invoke name="{FUNCTION}">\n<parameter name="{TEXT_KEY}">{TEXT}</parameter>\n'
    f'<parameter name="{NUMBER_KEY}">{NUMBER}</parameter>\n</invoke>\n'
)
_MINIMAX_M3_CALL: Final = (
    f']<]minimax[>[<invoke name="{FUNCTION}">]<]minimax[>[<{TEXT_KEY}>{TEXT}]<]minimax[>['
    f"</{TEXT_KEY}>]<]minimax[>[<{NUMBER_KEY}>{NUMBER}]<]minimax[>[</{NUMBER_KEY}>"
    "]<]minimax[>[</invoke>\n"
)
_FUNCTIONARY_CALL: Final = f"<function={FUNCTION}>{_ARGUMENTS}</function>"

_PYTHONIC_CALL: Final = f"{FUNCTION}({TEXT_KEY}='{TEXT}', {NUMBER_KEY}={NUMBER})"


def _kimi_call(index: int) -> str:
    return (
        f"<|tool_call_begin|>functions.{FUNCTION}:{index}<|tool_call_argument_begin|>{_ARGUMENTS}"
        "<|tool_call_end|>"
    )


def _command_r_call(index: int) -> str:
    return f'{{"tool_call_id": "{index}", "tool_name": "{FUNCTION}", "parameters": {_ARGUMENTS}}}'


def _solar_call(index: int) -> str:
    return (
        f"<|tool_call:begin|>{CALL_IDS[index]}<|tool_call:name|>{FUNCTION}<|tool_call:args|>"
        f"{_ARGUMENTS}<|tool_call:end|>"
    )


def _kimi_k3_call(index: int) -> str:
    return (
        f'<|open|>call tool="{FUNCTION}" index="{index + 1}"<|sep|><|open|>argument '
        f'key="{TEXT_KEY}" type="string"<|sep|>{TEXT}<|close|>argument<|sep|><|open|>argument '
        f'key="{NUMBER_KEY}" type="number"<|sep|>{NUMBER}<|close|>argument<|sep|>'
        "<|close|>call<|sep|>"
    )


# Two calls by the name of their dialect, or one where there is never more: for models whose
# templates show none.
EXAMPLES: Final = {
    "hermes": f"<tool_call>\n{_OBJECT}\n</tool_call>\n<tool_call>\n{_OBJECT}\n</tool_call>",
    "qwen_xml": f"{_QWEN_XML_CALL}\n{_QWEN_XML_CALL}",
    "glm": f"{_GLM_CALL}\n{_GLM_CALL}",
    "mistral": _MISTRAL_CALL * 2,
    "gemma": _GEMMA_CALL * 2,
    "mistral_array": f"[TOOL_CALLS]{_ARRAY}",
    "deepseek": f"<｜tool▁calls▁begin｜>{_DEEPSEEK_CALL}\n{_DEEPSEEK_CALL}<｜tool▁calls▁end｜>",
    "deepseek_v3.1": f"<｜tool▁calls▁begin｜>{_DEEPSEEK_V3_CALL * 2}<｜tool▁calls▁end｜>",
    "kimi": f"<|tool_calls_section_begin|>{_kimi_call(0)}{_kimi_call(1)}<|tool_calls_section_end|>",
    "gpt_oss": (
        f"<|channel|>commentary to=functions.{FUNCTION} <|constrain|>json<|message|>{_ARGUMENTS}"
    ),
    "invoke": f"<minimax:tool_call>\n{_INVOKE_CALL * 2}</minimax:tool_call>",
    "minimax_m3": f"]<]minimax[>[<tool_call>\n{_MINIMAX_M3_CALL * 2}]<]minimax[>[</tool_call>",
    "command_r": (
        f"<|START_ACTION|>[\n    {_command_r_call(0)},\n    {_command_r_call(1)}\n]<|END_ACTION|>"
    ),
    "granite": f"<|tool_call|>{_ARRAY}",
    "tool_calls": f"<tool_calls>\n{_OBJECT}\n{_OBJECT}\n</tool_calls>",
    "toolcall": f"<TOOLCALL>{_ARRAY}</TOOLCALL>",
    "llama_python_tag": f"<|python_tag|>{_OBJECT}; {_OBJECT}",
    "llama_python_start": (
        f"<|python_start|>{_OBJECT}<|python_end|><|python_start|>{_OBJECT}<|python_end|>"
    ),
    "functools": f"functools{_ARRAY}",
    "function_call": f"<|function_call|>{_OBJECT}",
    "functionary_v3.1": _FUNCTIONARY_CALL * 2,
    "solar": f"<|tool_calls|>{_solar_call(0)}{_solar_call(1)}<|calls|>",
    "kimi_k3": f"<|open|>tools<|sep|>{_kimi_k3_call(0)}{_kimi_k3_call(1)}<|close|>tools<|sep|>",
    "apertus": (
        f'<|tools_prefix|>[{{"{FUNCTION}": {_ARGUMENTS}}}, {{"{FUNCTION}": {_ARGUMENTS}}}]'
        "<|tools_suffix|>"
    ),
    "bare_json": f"{_OBJECT}; {_OBJECT}",
    "pythonic": f"<|tool_call_start|>[{_PYTHONIC_CALL}, {_PYTHONIC_CALL}]<|tool_call_end|>",
    "functionary_v3.2": f">>>{FUNCTION}\n{_ARGUMENTS}>>>{FUNCTION}\n{_ARGUMENTS}",
}


def json_example(opening: str, closing: str) -> str:
    """Two JSON objects, each between two texts."""
    one = f"{opening}\n{_OBJECT}\n{closing}"
    return f"{one}\n{one}"
