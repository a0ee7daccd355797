# ruff: noqa: RUF001 - DeepSeek's markers are written with a fullwidth bar.
"""The known syntaxes of tool calls, and how to tell which one a text is in.

A model is asked in the syntax of its chat template, but may answer in another: first the
model's own is tried, then all others in the order of the table.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from paddler.agent.worker.tool_calls.arguments import (
    GEMMA_ARGUMENTS,
    JSON_ARGUMENTS,
    PYTHON_ARGUMENTS,
    Arguments,
)
from paddler.agent.worker.tool_calls.examples import (
    CALL_IDS,
    FUNCTION,
    NUMBER,
    NUMBER_KEY,
    TEXT,
    TEXT_KEY,
)
from paddler.agent.worker.tool_calls.gemma import read_gemma
from paddler.agent.worker.tool_calls.json_calls import JsonCalls
from paddler.agent.worker.tool_calls.named_json import named_json
from paddler.agent.worker.tool_calls.pythonic import read_pythonic
from paddler.agent.worker.tool_calls.reading import (
    NOT_JSON,
    ArgumentsFragment,
    CallStarted,
    Event,
    Mismatch,
    ParameterSchemas,
    Reader,
    Source,
    decode_json,
)
from paddler.agent.worker.tool_calls.tagged import tagged
from paddler.agent.worker.tool_calls.tagged_arguments import TaggedArguments
from paddler.messages.tools import ParsedToolCall, ToolCallArguments


class Dialect(NamedTuple):
    """A syntax of tool calls.

    ``example``: two calls of the probe (see ``examples``), or one where there is never more,
    for models whose template shows none.
    """

    name: str
    read: Callable[[Source, ParameterSchemas], Reader]
    arguments: Arguments
    example: str


_ARGUMENTS: Final = f'{{"{TEXT_KEY}": "{TEXT}", "{NUMBER_KEY}": {NUMBER}}}'
_OBJECT: Final = f'{{"name": "{FUNCTION}", "arguments": {_ARGUMENTS}}}'


def json_dialect(name: str, opening: str, closing: str, example: str = "") -> Dialect:
    """JSON objects between two texts."""
    one = f"{opening}\n{_OBJECT}\n{closing}".strip()
    return Dialect(
        name, JsonCalls(opening, closing).read, JSON_ARGUMENTS, example or f"{one}\n{one}"
    )


def _json_array(name: str, opening: str, closing: str) -> Dialect:
    """JSON objects in an array between two texts."""
    return json_dialect(name, opening, closing, f"{opening}[{_OBJECT}, {_OBJECT}]{closing}")


def _named_dialect(name: str, example: str, *, head: str, stop: str, blank: str) -> Dialect:
    """A name, then JSON."""
    reader = named_json(head=head, stop=stop, blank=blank)
    return Dialect(name, reader.read, JSON_ARGUMENTS, example)


def _tagged_dialect(
    name: str, example: str, *, head: str, key: str, value_end: str, end: str, blank: str
) -> Dialect:
    """Arguments that are tagged one by one."""
    syntax = tagged(head=head, key=key, value_end=value_end, end=end, blank=blank)
    return Dialect(name, syntax.read, TaggedArguments(syntax), example)


BARE_JSON: Final = json_dialect("bare_json", "", "", f"{_OBJECT}; {_OBJECT}")

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


# In the order of trying: what is seen most comes first, what could be taken for
# something else comes last. No two read the same text, but for plain JSON.
DIALECTS: Final = (
    json_dialect("hermes", "<tool_call>", "</tool_call>"),
    _tagged_dialect(
        "qwen_xml",
        f"{_QWEN_XML_CALL}\n{_QWEN_XML_CALL}",
        head=r"<function=(?P<name>[^>\s]+)>(?=\s*<(?:parameter=|/function>))",
        key=r"<parameter=(?P<key>[^>]+)>",
        value_end=r"</parameter>",
        end=r"</function>",
        blank=r"</?(?:\w+:)?tool_call>",
    ),
    _tagged_dialect(
        "glm",
        f"{_GLM_CALL}\n{_GLM_CALL}",
        head=r"<tool_call(?::\w+)?>\s*(?P<name>[^\s<>{}\[\]]+)(?:<tool_sep(?::\w+)?>)?"
        r"(?=\s*<(?:arg_key|/tool_call))",
        key=r"<arg_key(?::\w+)?>(?P<key>[^<]+)</arg_key(?::\w+)?>\s*<arg_value(?::\w+)?>",
        value_end=r"</arg_value(?::\w+)?>",
        end=r"</tool_call(?::\w+)?>",
        blank=r"</?tool_calls(?::\w+)?>",
    ),
    _named_dialect(
        "mistral",
        _MISTRAL_CALL + _MISTRAL_CALL,
        head=r"(?P<name>[^\s\[\]{}<>\"]+)(?:\[CALL_ID\](?P<id>[^\s\[]+))?\[ARGS\]",
        stop=r"(?=\[TOOL_CALLS\])|</s>",
        blank=r"\[TOOL_CALLS\](?!\s*\[)|</s>",
    ),
    Dialect("gemma", read_gemma, GEMMA_ARGUMENTS, _GEMMA_CALL + _GEMMA_CALL),
    _json_array("mistral_array", "[TOOL_CALLS]", ""),
    _named_dialect(
        "deepseek",
        f"<｜tool▁calls▁begin｜>{_DEEPSEEK_CALL}\n{_DEEPSEEK_CALL}<｜tool▁calls▁end｜>",
        head=r"<｜tool▁call▁begin｜>(?:function)?<｜tool▁sep｜>(?P<name>[^\s<]+)\s*"
        r"```(?:json\s|\s*(?=\{))",
        stop=r"```",
        blank=r"<｜tool▁(?:calls▁begin|calls▁end|call▁end)｜>|```",
    ),
    _named_dialect(
        "deepseek_v3.1",
        f"<｜tool▁calls▁begin｜>{_DEEPSEEK_V3_CALL}{_DEEPSEEK_V3_CALL}<｜tool▁calls▁end｜>",
        head=r"<｜tool▁call▁begin｜>(?P<name>[^\s<]+)<｜tool▁sep｜>(?=\s*[{\[])",
        stop=r"<｜tool▁call▁end｜>",
        blank=r"<｜tool▁(?:calls▁begin|calls▁end|call▁end)｜>",
    ),
    _named_dialect(
        "kimi",
        f"<|tool_calls_section_begin|>{_kimi_call(0)}{_kimi_call(1)}<|tool_calls_section_end|>",
        head=r"<\|tool_call_begin\|>\s*(?P<id>(?:functions\.)?(?P<name>[^\s:<]+)(?::\d+)?)"
        r"\s*<\|tool_call_argument_begin\|>",
        stop=r"<\|tool_call_end\|>",
        blank=r"<\|tool_call(?:s_section_begin|s_section_end|_end)\|>",
    ),
    _named_dialect(
        "gpt_oss",
        f"<|channel|>commentary to=functions.{FUNCTION} <|constrain|>json<|message|>{_ARGUMENTS}",
        head=r"(?:<\|start\|>assistant)?(?:<\|channel\|>[^<]*?)?\s*"
        r"to=(?:functions\.)?(?P<name>[^\s<]+)[^{]*?<\|message\|>(?=\s*[^\s<])",
        stop=r"(?=<\|(?:call|end|start|channel|eot)\|>)",
        blank=r"<\|(?:call|end|eom|eot)\|>",
    ),
    _tagged_dialect(
        "invoke",  # MiniMax, DeepSeek V3.2 and later, MiniCPM
        f"<minimax:tool_call>\n{_INVOKE_CALL}{_INVOKE_CALL}</minimax:tool_call>",
        head=r"(?:<\|start\|>assistant)?(?:\s*to=[^\s<]+<\|message\|>)?"
        r"(?:<[^<>\s]*(?:tool_calls?|function_calls)>\s*)?"
        r"<(?:[^<>\s]*invoke|function) name=\"(?P<name>[^\"<>]+)\">",
        key=r"<(?:[^<>\s]*parameter|param) name=\"(?P<key>[^\"<>]+)\""
        r"(?: string=\"(?P<kind>\w+)\")?>",
        value_end=r"</(?:[^<>\s]*parameter|param)>",
        end=r"</(?:[^<>\s]*invoke|function)>",
        blank=r"</?[^<>\s/]*(?:tool_calls?|function_calls)>|<\|eot\|>",
    ),
    _tagged_dialect(
        "minimax_m3",
        f"]<]minimax[>[<tool_call>\n{_MINIMAX_M3_CALL}{_MINIMAX_M3_CALL}]<]minimax[>[</tool_call>",
        head=r"\]<\]minimax\[>\[<invoke name=\"(?P<name>[^\"<>]+)\">",
        key=r"\]<\]minimax\[>\[<(?P<key>[^/<>]+)>",
        value_end=r"\]<\]minimax\[>\[</[^<>]+>",
        end=r"\]<\]minimax\[>\[</invoke>",
        blank=r"\]<\]minimax\[>\[</?tool_call>",
    ),
    json_dialect(
        "command_r",
        "<|START_ACTION|>",
        "<|END_ACTION|>",
        f"<|START_ACTION|>[\n    {_command_r_call(0)},\n    {_command_r_call(1)}\n]<|END_ACTION|>",
    ),
    _json_array("granite", "<|tool_call|>", ""),
    json_dialect(
        "tool_calls",
        "<tool_calls>",
        "</tool_calls>",
        f"<tool_calls>\n{_OBJECT}\n{_OBJECT}\n</tool_calls>",
    ),
    _json_array("toolcall", "<TOOLCALL>", "</TOOLCALL>"),
    json_dialect("llama_python_tag", "<|python_tag|>", "", f"<|python_tag|>{_OBJECT}; {_OBJECT}"),
    _json_array("functools", "functools", ""),
    json_dialect("function_call", "<|function_call|>", "", f"<|function_call|>{_OBJECT}"),
    _named_dialect(
        "functionary_v3.1",
        _FUNCTIONARY_CALL + _FUNCTIONARY_CALL,
        head=r"<function=(?P<name>[^>\s]+)>(?=\s*\{)",
        stop=r"</function>",
        blank=r"</function>",
    ),
    _named_dialect(
        "solar",
        f"<|tool_calls|>{_solar_call(0)}{_solar_call(1)}<|calls|>",
        head=r"<\|tool_call:begin\|>(?P<id>[^\s<]+)<\|tool_call:name\|>(?P<name>[^\s<]+)"
        r"<\|tool_call:args\|>",
        stop=r"<\|tool_call:end\|>",
        blank=r"<\|tool_calls\|>|<\|tool_call:end\|>|<\|calls\|>",
    ),
    _tagged_dialect(
        "kimi_k3",
        f"<|open|>tools<|sep|>{_kimi_k3_call(0)}{_kimi_k3_call(1)}<|close|>tools<|sep|>",
        head=r"<\|open\|>call tool=\"(?P<name>[^\"]+)\"[^<]*<\|sep\|>",
        key=r"<\|open\|>argument key=\"(?P<key>[^\"]+)\"(?: type=\"(?P<kind>\w+)\")?<\|sep\|>",
        value_end=r"<\|close\|>argument<\|sep\|>",
        end=r"<\|close\|>call<\|sep\|>",
        blank=r"<\|(?:open|close)\|>tools<\|sep\|>",
    ),
    _named_dialect(
        "apertus",
        f'<|tools_prefix|>[{{"{FUNCTION}": {_ARGUMENTS}}}, {{"{FUNCTION}": {_ARGUMENTS}}}]'
        "<|tools_suffix|>",
        head=r"(?:<\|tools_prefix\|>\s*\[|,)\s*\{\s*\"(?P<name>[^\"]+)\"\s*:(?=\s*\{)",
        stop=r"\}",
        blank=r"[}\]]|<\|tools_suffix\|>",
    ),
    BARE_JSON,
    Dialect(
        "pythonic",
        read_pythonic,
        PYTHON_ARGUMENTS,
        f"<|tool_call_start|>[{FUNCTION}({TEXT_KEY}='{TEXT}', {NUMBER_KEY}={NUMBER}), "
        f"{FUNCTION}({TEXT_KEY}='{TEXT}', {NUMBER_KEY}={NUMBER})]<|tool_call_end|>",
    ),
    _named_dialect(
        "functionary_v3.2",
        f">>>{FUNCTION}\n{_ARGUMENTS}>>>{FUNCTION}\n{_ARGUMENTS}",
        head=r"(?:>>>)?(?P<name>[A-Za-z_][\w.\-]*)\s*\n(?=\s*\{)",
        stop=r"(?=>>>)",
        blank=r">>>all\n[^>]*",
    ),
)


class Unrecognized(NamedTuple):
    """Text in no known syntax. ``why`` tells what the first one tried did not like."""

    text: str
    why: str


def parse(
    text: str, *, own: Dialect | None = None, schemas: ParameterSchemas | None = None
) -> list[ParsedToolCall] | Unrecognized:
    """The calls of a whole text, read by the first syntax that finds any.

    A call that the end of the text cuts off within its arguments is told with what came
    of them.
    """
    complaints: list[str] = []
    for dialect in _in_order(own):
        calls = parse_in(dialect, text, schemas)
        if not isinstance(calls, Unrecognized):
            return calls
        complaints.append(calls.why)
    return Unrecognized(text, complaints[0])


def parse_in(
    dialect: Dialect, text: str, schemas: ParameterSchemas | None = None
) -> list[ParsedToolCall] | Unrecognized:
    """The calls of a whole text in one syntax, at least one."""
    attempt = _Attempt(dialect, schemas)
    events = attempt.feed(text) + attempt.finish()
    if not events:
        return Unrecognized(text, f"{dialect.name}: {attempt.mismatch or 'found no call'}")
    return _parsed(events)


class ToolCallStream:
    """Tells calls while they are generated; the first syntax that finds one is kept.

    The fragments of a call, joined, are its arguments as :func:`parse` has them.
    """

    __slots__ = ("_attempts",)

    def __init__(
        self, *, own: Dialect | None = None, schemas: ParameterSchemas | None = None
    ) -> None:
        self._attempts = [_Attempt(dialect, schemas) for dialect in _in_order(own)]

    def feed(self, text: str) -> list[Event]:
        """What ``text``, the next piece of the raw tool-call text, tells."""
        return self._first(lambda attempt: attempt.feed(text))

    def finish(self) -> list[Event]:
        """What the end of the text tells."""
        return self._first(_Attempt.finish)

    def _first(self, move: Callable[["_Attempt"], list[Event]]) -> list[Event]:
        for attempt in self._attempts:
            events = move(attempt)
            if events:
                self._attempts = [attempt]
                return events
        self._attempts = [attempt for attempt in self._attempts if not attempt.mismatch]
        return []


class _Attempt:
    """One dialect on one text."""

    __slots__ = ("_reader", "_source", "mismatch")

    def __init__(self, dialect: Dialect, schemas: ParameterSchemas | None) -> None:
        self._source = Source()
        self._reader = dialect.read(self._source, schemas or {})
        self.mismatch = ""

    def feed(self, text: str) -> list[Event]:
        self._source.feed(text)
        return self._run()

    def finish(self) -> list[Event]:
        self._source.is_complete = True
        return self._run()

    def _run(self) -> list[Event]:
        """Let the reader go on until it waits, ends or gives up; after that it says nothing."""
        events: list[Event] = []
        try:
            for event in self._reader:
                if event is None:
                    break
                events.append(event)
        except Mismatch as mismatch:
            self.mismatch = str(mismatch)
        return events


def _in_order(own: Dialect | None) -> Sequence[Dialect]:
    return DIALECTS if own is None else (own, *(other for other in DIALECTS if other != own))


def _parsed(events: Sequence[Event]) -> list[ParsedToolCall]:
    started = [event for event in events if isinstance(event, CallStarted)]
    arguments = [""] * len(started)
    for event in events:
        if isinstance(event, ArgumentsFragment):
            arguments[event.index] += event.json_text
    return [
        ParsedToolCall(id=call.id, name=call.name, arguments=_arguments(arguments[call.index]))
        for call in started
    ]


def _arguments(text: str) -> ToolCallArguments:
    value = decode_json(text)
    if value is NOT_JSON:
        return ToolCallArguments(invalid_json=text)
    return ToolCallArguments(valid_json=value)
