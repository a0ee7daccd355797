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
from paddler.agent.worker.tool_calls.examples import EXAMPLES, json_example
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

    ``example``: two calls of the probe, or one where there is never more.
    """

    name: str
    read: Callable[[Source, ParameterSchemas], Reader]
    arguments: Arguments
    example: str


def json_dialect(name: str, opening: str, closing: str) -> Dialect:
    """JSON objects between two texts."""
    example = EXAMPLES.get(name) or json_example(opening, closing)
    return Dialect(name, JsonCalls(opening, closing).read, JSON_ARGUMENTS, example)


def _named(name: str, *, head: str, stop: str, blank: str) -> Dialect:
    """A name, then JSON."""
    syntax = named_json(head=head, stop=stop, blank=blank)
    return Dialect(name, syntax.read, JSON_ARGUMENTS, EXAMPLES[name])


def _tagged(name: str, *, head: str, key: str, value_end: str, end: str, blank: str) -> Dialect:
    """Arguments that are tagged one by one."""
    syntax = tagged(head=head, key=key, value_end=value_end, end=end, blank=blank)
    return Dialect(name, syntax.read, TaggedArguments(syntax), EXAMPLES[name])


BARE_JSON: Final = json_dialect("bare_json", "", "")
PYTHONIC: Final = Dialect("pythonic", read_pythonic, PYTHON_ARGUMENTS, EXAMPLES["pythonic"])

# In the order of trying: what is seen most comes first, what could be taken for
# something else comes last. No two read the same text, but for plain JSON.
DIALECTS: Final = (
    json_dialect("hermes", "<tool_call>", "</tool_call>"),
    _tagged(
        "qwen_xml",
        head=r"<function=(?P<name>[^>\s]+)>(?=\s*<(?:parameter=|/function>))",
        key=r"<parameter=(?P<key>[^>]+)>",
        value_end=r"</parameter>",
        end=r"</function>",
        blank=r"</?(?:\w+:)?tool_call>",
    ),
    _tagged(
        "glm",
        head=r"<tool_call(?::\w+)?>\s*(?P<name>[^\s<>{}\[\]]+)(?:<tool_sep(?::\w+)?>)?"
        r"(?=\s*<(?:arg_key|/tool_call))",
        key=r"<arg_key(?::\w+)?>(?P<key>[^<]+)</arg_key(?::\w+)?>\s*<arg_value(?::\w+)?>",
        value_end=r"</arg_value(?::\w+)?>",
        end=r"</tool_call(?::\w+)?>",
        blank=r"</?tool_calls(?::\w+)?>",
    ),
    _named(
        "mistral",
        head=r"(?P<name>[^\s\[\]{}<>\"]+)(?:\[CALL_ID\](?P<id>[^\s\[]+))?\[ARGS\]",
        stop=r"(?=\[TOOL_CALLS\])|</s>",
        blank=r"\[TOOL_CALLS\](?!\s*\[)|</s>",
    ),
    Dialect("gemma", read_gemma, GEMMA_ARGUMENTS, EXAMPLES["gemma"]),
    json_dialect("mistral_array", "[TOOL_CALLS]", ""),
    _named(
        "deepseek",
        # R1 is not firm in the low blocks between the words, nor in the words.
        head=r"<[｜|]tool[▁_ ]call[▁_ ]begin[｜|]>(?:function)?<[｜|]tool[▁_ ]sep[｜|]>"
        r"(?P<name>[^\s<]+)\s*```(?:json\s|\s*(?=\{))",
        stop=r"```",
        blank=r"<[｜|]tool[▁_ ](?:calls(?:[▁_ ](?:begin|end))?|call[▁_ ]end)[｜|]>|```",
    ),
    _named(
        "deepseek_v3.1",
        head=r"<｜tool▁call▁begin｜>(?P<name>[^\s<]+)<｜tool▁sep｜>(?=\s*[{\[])",
        stop=r"<｜tool▁call▁end｜>",
        blank=r"<｜tool▁(?:calls▁begin|calls▁end|call▁end)｜>",
    ),
    _named(
        "kimi",
        head=r"<\|tool_call_begin\|>\s*(?P<id>(?:functions\.)?(?P<name>[^\s:<]+)(?::\d+)?)"
        r"\s*<\|tool_call_argument_begin\|>",
        stop=r"<\|tool_call_end\|>",
        blank=r"<\|tool_call(?:s_section_begin|s_section_end|_end)\|>",
    ),
    _named(
        "gpt_oss",
        head=r"(?:<\|start\|>assistant)?(?:<\|channel\|>[^<]*?)?\s*"
        r"to=(?:functions\.)?(?P<name>[^\s<]+)[^{]*?<\|message\|>(?=\s*[^\s<])",
        stop=r"(?=<\|(?:call|end|start|channel|eot)\|>)",
        blank=r"<\|(?:call|end|eom|eot)\|>",
    ),
    _tagged(
        "invoke",  # MiniMax, DeepSeek V3.2 and later, MiniCPM
        head=r"(?:<\|start\|>assistant)?(?:\s*to=[^\s<]+<\|message\|>)?"
        r"(?:<[^<>\s]*(?:tool_calls?|function_calls)>\s*)?"
        r"<(?:[^<>\s]*invoke|function) name=\"(?P<name>[^\"<>]+)\">",
        key=r"<(?:[^<>\s]*parameter|param) name=\"(?P<key>[^\"<>]+)\""
        r"(?: string=\"(?P<kind>\w+)\")?>",
        value_end=r"</(?:[^<>\s]*parameter|param)>",
        end=r"</(?:[^<>\s]*invoke|function)>",
        blank=r"</?[^<>\s/]*(?:tool_calls?|function_calls)>|<\|eot\|>",
    ),
    _tagged(
        "minimax_m3",
        head=r"\]<\]minimax\[>\[<invoke name=\"(?P<name>[^\"<>]+)\">",
        key=r"\]<\]minimax\[>\[<(?P<key>[^/<>]+)>",
        value_end=r"\]<\]minimax\[>\[</[^<>]+>",
        end=r"\]<\]minimax\[>\[</invoke>",
        blank=r"\]<\]minimax\[>\[</?tool_call>",
    ),
    json_dialect("command_r", "<|START_ACTION|>", "<|END_ACTION|>"),
    json_dialect("granite", "<|tool_call|>", "<|/tool_call|>"),  # and Phi-4-mini
    json_dialect("tool_calls", "<tool_calls>", "</tool_calls>"),
    json_dialect("toolcall", "<TOOLCALL>", "</TOOLCALL>"),
    json_dialect("llama_python_tag", "<|python_tag|>", ""),
    json_dialect("llama_python_start", "<|python_start|>", "<|python_end|>"),
    json_dialect("functools", "functools", ""),
    json_dialect("function_call", "<|function_call|>", ""),
    _named(
        "functionary_v3.1",
        head=r"<function=(?P<name>[^>\s]+)>(?=\s*\{)",
        stop=r"</function>",
        blank=r"</function>",
    ),
    _named(
        "solar",
        head=r"<\|tool_call:begin\|>(?P<id>[^\s<]+)<\|tool_call:name\|>(?P<name>[^\s<]+)"
        r"<\|tool_call:args\|>",
        stop=r"<\|tool_call:end\|>",
        blank=r"<\|tool_calls\|>|<\|tool_call:end\|>|<\|calls\|>",
    ),
    _tagged(
        "kimi_k3",
        head=r"<\|open\|>call tool=\"(?P<name>[^\"]+)\"[^<]*<\|sep\|>",
        key=r"<\|open\|>argument key=\"(?P<key>[^\"]+)\"(?: type=\"(?P<kind>\w+)\")?<\|sep\|>",
        value_end=r"<\|close\|>argument<\|sep\|>",
        end=r"<\|close\|>call<\|sep\|>",
        blank=r"<\|(?:open|close)\|>tools<\|sep\|>",
    ),
    _named(
        "apertus",
        head=r"(?:<\|tools_prefix\|>\s*\[|,)\s*\{\s*\"(?P<name>[^\"]+)\"\s*:(?=\s*\{)",
        stop=r"\}",
        blank=r"[}\]]|<\|tools_suffix\|>",
    ),
    BARE_JSON,
    PYTHONIC,
    _named(
        "functionary_v3.2",
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
