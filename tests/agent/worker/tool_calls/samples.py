# ruff: noqa: RUF001 - DeepSeek's markers are written with a fullwidth bar.
"""The same two calls in every dialect: ``f`` with a text and a number, ``g`` with nothing."""

from paddler.agent.worker.sections import CHANNEL_HEADERS, RECIPIENT_HEADERS, Markers
from paddler.messages.tools import ParsedToolCall, ToolCallArguments

TEXT = 'a "b" {c}, [d]: é\\'
ARGUMENTS = {"text": TEXT, "n": 7}
JSON = '{"text": "a \\"b\\" {c}, [d]: é\\\\", "n": 7}'
F_JSON = f'{{"name": "f", "arguments": {JSON}}}'
G_JSON = '{"name": "g", "arguments": {}}'
INVOKED = (
    f'<invoke name="f">\n<parameter name="text">{TEXT}</parameter>\n'
    '<parameter name="n">7</parameter>\n</invoke>\n<invoke name="g">\n</invoke>'
)

SAMPLES = {
    "hermes": f"<tool_call>\n{F_JSON}\n</tool_call>\n<tool_call>\n{G_JSON}\n</tool_call>",
    "qwen_xml": (
        f"<tool_call>\n<function=f>\n<parameter=text>\n{TEXT}\n</parameter>\n"
        "<parameter=n>\n7\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=g>\n</function>\n</tool_call>"
    ),
    "glm": (
        f"<tool_call>f\n<arg_key>text</arg_key>\n<arg_value>{TEXT}</arg_value>\n"
        "<arg_key>n</arg_key>\n<arg_value>7</arg_value>\n</tool_call>\n<tool_call>g\n</tool_call>"
    ),
    "mistral": f"[TOOL_CALLS]f[ARGS]{JSON}[TOOL_CALLS]g[ARGS]{{}}",
    "mistral_array": f"[TOOL_CALLS][{F_JSON}, {G_JSON}]",
    "gemma": (
        f'<|tool_call>call:f{{text:<|"|>{TEXT}<|"|>,n:7}}<tool_call|><|tool_call>call:g{{}}'
        "<tool_call|>"
    ),
    "deepseek": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
        f"{JSON}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n"
        "{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek_v3.1": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{JSON}<｜tool▁call▁end｜>"
        "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "kimi": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
        f"{JSON}<|tool_call_end|><|tool_call_begin|>functions.g:1<|tool_call_argument_begin|>"
        "{}<|tool_call_end|><|tool_calls_section_end|>"
    ),
    "gpt_oss": (
        f"<|channel|>commentary to=functions.f <|constrain|>json<|message|>{JSON}<|call|>"
        "<|start|>assistant to=functions.g<|channel|>commentary json<|message|>{}<|call|>"
    ),
    "invoke": f"<minimax:tool_call>\n{INVOKED}\n</minimax:tool_call>",
    "minimax_m3": (
        f']<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name="f">]<]minimax[>[<text>{TEXT}'
        "]<]minimax[>[</text>]<]minimax[>[<n>7]<]minimax[>[</n>]<]minimax[>[</invoke>\n"
        ']<]minimax[>[<invoke name="g">]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>'
    ),
    "command_r": (
        '<|START_ACTION|>[\n  {"tool_call_id": "0", "tool_name": "f", "parameters": '
        f'{JSON}}},\n  {{"tool_call_id": "1", "tool_name": "g", "parameters": {{}}}}\n]'
        "<|END_ACTION|>"
    ),
    "granite": f"<|tool_call|>[{F_JSON}, {G_JSON}]",
    "tool_calls": f"<tool_calls>\n{F_JSON}\n{G_JSON}\n</tool_calls>",
    "toolcall": f"<TOOLCALL>[{F_JSON}, {G_JSON}]</TOOLCALL>",
    "llama_python_tag": f"<|python_tag|>{F_JSON}; {G_JSON}",
    "llama_python_start": f"<|python_start|>{F_JSON}<|python_end|><|python_start|>{G_JSON}",
    "functools": f"functools[{F_JSON}, {G_JSON}]",
    "function_call": f"<|function_call|>{F_JSON}<|function_call|>{G_JSON}",
    "functionary_v3.1": f"<function=f>{JSON}</function><function=g>{{}}</function>",
    "solar": (
        f"<|tool_calls|><|tool_call:begin|>c1<|tool_call:name|>f<|tool_call:args|>{JSON}"
        "<|tool_call:end|><|tool_call:begin|>c2<|tool_call:name|>g<|tool_call:args|>{}"
        "<|tool_call:end|><|calls|>"
    ),
    "kimi_k3": (
        '<|open|>tools<|sep|><|open|>call tool="f" index="1"<|sep|><|open|>argument key="text" '
        f'type="string"<|sep|>{TEXT}<|close|>argument<|sep|><|open|>argument key="n" '
        'type="number"<|sep|>7<|close|>argument<|sep|><|close|>call<|sep|><|open|>call tool="g" '
        'index="2"<|sep|><|close|>call<|sep|><|close|>tools<|sep|>'
    ),
    "apertus": f'<|tools_prefix|>[{{"f": {JSON}}}, {{"g": {{}}}}]<|tools_suffix|>',
    "bare_json": f"{F_JSON}; {G_JSON}",
    "pythonic": (
        "<|tool_call_start|>[f(text='a \"b\" {c}, [d]: é\\\\', n=7), g()]<|tool_call_end|>"
    ),
    "functionary_v3.2": f">>>f\n{JSON}>>>g\n{{}}",
}

# What stands around the calls of a sample, as its models' templates show it.
AROUND = {
    "hermes": ("<tool_call>", "</tool_call>"),
    "qwen_xml": ("<tool_call>", "</tool_call>"),
    "glm": ("<tool_call>", "</tool_call>"),
    "mistral": ("[TOOL_CALLS]", ""),
    "mistral_array": ("[TOOL_CALLS]", ""),
    "gemma": ("<|tool_call>", "<tool_call|>"),
    "deepseek": ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    "deepseek_v3.1": ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    "kimi": ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    "invoke": ("<minimax:tool_call>", "</minimax:tool_call>"),
    "minimax_m3": ("]<]minimax[>[<tool_call>", "]<]minimax[>[</tool_call>"),
    "command_r": ("<|START_ACTION|>", "<|END_ACTION|>"),
    "granite": ("<|tool_call|>", "<|/tool_call|>"),
    "tool_calls": ("<tool_calls>", "</tool_calls>"),
    "toolcall": ("<TOOLCALL>", "</TOOLCALL>"),
    "llama_python_tag": ("<|python_tag|>", ""),
    "llama_python_start": ("<|python_start|>", "<|python_end|>"),
    "functools": ("functools", ""),
    "function_call": ("<|function_call|>", ""),
    "functionary_v3.1": ("<function=", "</function>"),
    "solar": ("<|tool_calls|>", "<|calls|>"),
    "kimi_k3": ("<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
    "apertus": ("<|tools_prefix|>", "<|tools_suffix|>"),
    "pythonic": ("<|tool_call_start|>", "<|tool_call_end|>"),
}
_WITHOUT_MARKERS = {
    "gpt_oss": Markers(headers=CHANNEL_HEADERS),
    "functionary_v3.2": Markers(headers=RECIPIENT_HEADERS),
    "bare_json": Markers(has_bare_calls=True),
}


def markers(dialect: str) -> Markers:
    """The markers of a model that writes a dialect."""
    if dialect in _WITHOUT_MARKERS:
        return _WITHOUT_MARKERS[dialect]
    opening, closing = AROUND[dialect]
    return Markers(tool_calls=(opening,), closings=(closing,) if closing else ())


IDS = {
    "kimi": ("functions.f:0", "functions.g:1"),
    "command_r": ("0", "1"),
    "solar": ("c1", "c2"),
}


def calls(dialect: str) -> list[ParsedToolCall]:
    """What a sample says."""
    first, second = IDS.get(dialect, ("call_0", "call_1"))
    return [
        ParsedToolCall(first, "f", ToolCallArguments(valid_json=ARGUMENTS)),
        ParsedToolCall(second, "g", ToolCallArguments(valid_json={})),
    ]
