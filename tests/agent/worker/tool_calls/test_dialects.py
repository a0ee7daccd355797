# ruff: noqa: RUF001 - DeepSeek's markers are written with a fullwidth bar.
import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.agent.worker.sections import SectionSplitter
from paddler.agent.worker.tool_calls.dialects import (
    DIALECTS,
    Dialect,
    ToolCallStream,
    Unrecognized,
    parse,
    parse_in,
)
from paddler.agent.worker.tool_calls.reading import ArgumentsFragment, CallStarted, Event
from paddler.messages.link import FrameKind
from paddler.messages.tools import ParsedToolCall, ToolCallArguments
from tests.agent.worker.tool_calls import samples

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
NAMES = sorted(BY_NAME)


def streamed(pieces: list[str], own: Dialect | None = None) -> list[ParsedToolCall] | None:
    """The calls that a stream tells, put together."""
    stream = ToolCallStream(own=own)
    events: list[Event] = [event for piece in pieces for event in stream.feed(piece)]
    return told(events + stream.finish())


def told(events: list[Event]) -> list[ParsedToolCall] | None:
    """The calls that events tell."""
    started = [event for event in events if isinstance(event, CallStarted)]
    assert [call.index for call in started] == list(range(len(started)))
    calls = []
    for call in started:
        text = "".join(
            event.json_text
            for event in events
            if isinstance(event, ArgumentsFragment) and event.index == call.index
        )
        try:
            arguments = ToolCallArguments(valid_json=msgspec.json.decode(text))
        except msgspec.DecodeError:
            arguments = ToolCallArguments(invalid_json=text)
        calls.append(ParsedToolCall(call.id, call.name, arguments))
    return calls or None


def cut(text: str, at: list[int]) -> list[str]:
    bounds = [0, *sorted(min(position, len(text)) for position in at), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(bounds)]


def test_every_dialect_has_a_sample() -> None:
    assert set(samples.SAMPLES) == set(BY_NAME)


@pytest.mark.parametrize("name", NAMES)
def test_dialect_reads_its_calls(name: str) -> None:
    assert parse_in(BY_NAME[name], samples.SAMPLES[name]) == samples.calls(name)


@pytest.mark.parametrize("name", NAMES)
def test_dialect_is_recognised_among_all(name: str) -> None:
    assert parse(samples.SAMPLES[name]) == samples.calls(name)


@pytest.mark.parametrize("own", NAMES)
def test_any_dialect_is_read_from_a_model_of_another(own: str) -> None:
    for name, text in samples.SAMPLES.items():
        assert parse(text, own=BY_NAME[own]) == samples.calls(name), name


@given(name=st.sampled_from(NAMES), at=st.lists(st.integers(0, 500), max_size=30))
def test_stream_tells_what_parse_does_however_the_text_is_cut(name: str, at: list[int]) -> None:
    text = samples.SAMPLES[name]
    assert streamed(cut(text, at)) == samples.calls(name)
    assert streamed(cut(text, at), own=BY_NAME[name]) == samples.calls(name)


@pytest.mark.parametrize("name", NAMES)
def test_stream_tells_what_parse_does_char_by_char(name: str) -> None:
    assert streamed(list(samples.SAMPLES[name])) == samples.calls(name)


@given(name=st.sampled_from(NAMES), length=st.integers(0, 500), at=st.lists(st.integers(0, 500)))
def test_stream_and_parse_agree_on_a_text_that_ends_early(
    name: str, length: int, at: list[int]
) -> None:
    text = samples.SAMPLES[name][:length]
    calls = parse_in(BY_NAME[name], text)
    whole = None if isinstance(calls, Unrecognized) else calls
    stream = streamed(cut(text, at), own=BY_NAME[name])
    if whole is not None:
        assert stream == whole
        assert whole[0].name == "f"


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A sample from which a piece is missing, or in which one comes twice."""
    text = samples.SAMPLES[draw(st.sampled_from(NAMES))]
    for _ in range(draw(st.integers(0, 2))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.integers(0, 30)))
        middle = draw(st.sampled_from(["", text[begin:end] * 2]))
        text = text[:begin] + middle + text[end:]
    return text


@given(
    text=damaged(),
    own=st.sampled_from([None, *NAMES]),
    at=st.lists(st.integers(0, 500), max_size=30),
)
def test_stream_and_parse_agree_on_a_damaged_text(
    text: str, own: str | None, at: list[int]
) -> None:
    dialect = None if own is None else BY_NAME[own]
    calls = parse(text, own=dialect)
    whole = None if isinstance(calls, Unrecognized) else calls
    assert streamed(cut(text, at), own=dialect) == whole
    assert streamed(list(text), own=dialect) == whole


def sectioned(name: str, tokens: list[str]) -> tuple[list[tuple[FrameKind, str]], str, list[Event]]:
    """The sections of an answer, its raw calls, and what a stream tells of them."""
    splitter = SectionSplitter(samples.markers(name), "", expects_calls=True)
    stream = ToolCallStream(own=BY_NAME[name])
    pieces, raw, events = [], "", []
    for token in tokens:
        pieces += splitter.feed(token)
        if text := splitter.take_call_text():
            raw += text
            events += stream.feed(text)
    pieces += splitter.finish()
    text = splitter.take_call_text()
    events += stream.feed(text) + stream.finish()
    sections = [
        (section, "".join(piece.text for piece in of_section))
        for section, of_section in itertools.groupby(pieces, lambda piece: piece.section)
    ]
    return sections, raw + text, events


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_answer_has_the_same_sections_and_calls_however_tokens_cut_it(
    name: str, data: st.DataObject
) -> None:
    answer = f"Let me see.\n{samples.SAMPLES[name]}"
    at = data.draw(st.lists(st.integers(0, len(answer)), max_size=30))
    whole_sections, raw, whole_events = sectioned(name, [answer])
    assert whole_sections[0] == (FrameKind.UNDETERMINABLE, "Let me see.\n")
    assert parse(raw, own=BY_NAME[name]) == samples.calls(name)
    assert told(whole_events) == samples.calls(name)
    for tokens in (cut(answer, at), list(answer)):
        sections, same_raw, events = sectioned(name, tokens)
        assert (sections, same_raw) == (whole_sections, raw)
        assert told(events) == samples.calls(name)


@given(text=st.text(st.sampled_from('<>|[]{}":,; \n\\/=()abft_'), max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    calls = parse(text)
    assert isinstance(calls, Unrecognized) or calls
    streamed(list(text))


def test_arguments_are_streamed_as_they_are_generated() -> None:
    stream = ToolCallStream(own=BY_NAME["hermes"])
    assert stream.feed('<tool_call>\n{"name": "f", "arguments": ') == []
    assert stream.feed('{"a":  ') == [
        CallStarted(0, "call_0", "f"),
        ArgumentsFragment(0, '{"a":  '),
    ]
    assert stream.feed('"b}') == [ArgumentsFragment(0, '"b}')]
    assert stream.feed('"}}\n</tool_call>') == [ArgumentsFragment(0, '"}')]
    assert stream.finish() == []


def test_tagged_arguments_are_streamed_key_by_key() -> None:
    stream = ToolCallStream(own=BY_NAME["qwen_xml"])
    assert stream.feed("<function=f>\n<parameter=a>") == [CallStarted(0, "call_0", "f")]
    assert stream.feed("\n1\n</parameter>\n") == [ArgumentsFragment(0, '{"a":1')]
    assert stream.feed("</function>") == [ArgumentsFragment(0, "}")]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('<tool_call>{"name": "f", "arguments": {"a": 1', '{"a": 1'),
        ('<tool_call>{"name": "f", "arguments": {"a": oops}}</tool_call>', '{"a": oops}'),
        ("[TOOL_CALLS]f[ARGS]not json[TOOL_CALLS]", "not json"),
        ("<function=f><parameter=a>1</parameter><parameter=b>2", '{"a":1'),
        ("call:f{a:1,b:" + "[" * 100 + "]" * 100 + "}", '{"a":1'),
        ("call:f{a", ""),
        ("<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{'a': 1}\n```", "{'a': 1}"),
    ],
)
def test_arguments_that_are_no_json_are_told_as_text(text: str, arguments: str) -> None:
    calls = parse(text)
    assert calls == [ParsedToolCall("call_0", "f", ToolCallArguments(invalid_json=arguments))]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"arguments": {"a": 1}, "name": "f"}', {"a": 1}),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', {"a": 1}),
        ('{"name": "f", "parameters": null}', {}),
        ('{"type": "function", "function": {"name": "f", "arguments": {}}}', {}),
        ('{"type": "function", "function": "f", "parameters": {}}', {}),
        ('<tool_call>{"name": "f"}</tool_call>', {}),
        ("<|python_tag|>f.call(a=1)", {"a": 1}),
        ("<|python_start|>[f(a=1)]<|python_end|>", {"a": 1}),
        ("<code>\nf(a=1)\n</code>", {"a": 1}),
        ("```tool_code\nf(a=1)\n```", {"a": 1}),
        ('<|tool_call|>[{"name": "f", "arguments": {}}]<|/tool_call|>', {}),
        ('{"id": null, "name": "f", "arguments": {}}', {}),
        ("<｜tool_calls_begin｜><｜tool call begin｜>function<｜tool_sep｜>f\n```json\n{}\n```"
         "<｜tool_call_end｜><｜tool▁calls｜>", {}),
        ('call:f{l:[1,<|"|>x<|"|>],o:{k:true,m:null},s:bare text}',
         {"l": [1, "x"], "o": {"k": True, "m": None}, "s": "bare text"}),
    ],
)  # fmt: skip
def test_variations_are_understood(text: str, arguments: object) -> None:
    assert parse(text) == [ParsedToolCall("call_0", "f", ToolCallArguments(valid_json=arguments))]


@pytest.mark.parametrize(
    ("text", "call_id"),
    [
        ('[TOOL_CALLS][{"id": "abc123def", "name": "f", "arguments": {}}]', "abc123def"),
        ("[TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{}", "abc123def"),
        ('{"id": 7, "name": "f", "arguments": {}}', "7"),
    ],
)
def test_id_of_the_model_is_kept(text: str, call_id: str) -> None:
    calls = parse(text)
    assert isinstance(calls, list)
    assert calls[0].id == call_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello",
        '{"name": "f"}',
        '{"name": "", "arguments": {}}',
        '{"name": "f", "color": "red", "arguments": {}}',
        '{"name": "' + "f" * 300 + '", "arguments": {}}',
        '<tool_call>{"name": "f", "argum',
        "[]",
        "[f(1)]",
        "[f(**x)]",
        "[f(a=b)]",
        "[f(a=" + "(" * 5000 + "]",
    ],
)
def test_text_that_calls_nothing_is_not_recognised(text: str) -> None:
    calls = parse(text)
    assert isinstance(calls, Unrecognized), calls
    assert calls.text == text


def test_first_complaint_is_that_of_the_models_own_dialect() -> None:
    found = parse("Hello", own=BY_NAME["gemma"])
    assert found == Unrecognized("Hello", "gemma: found 'Hello'")


SCHEMAS = {
    "f": {
        "text": {"type": "string"},
        "both": {"type": ["string", "integer"]},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "kind": {"enum": ["1", "2"]},
        "fixed": {"const": 1},
        "flag": {"type": "boolean"},
        "odd": True,
    }
}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("text", "7", "7"),
        ("both", "7", 7),
        ("both", "[7]", "[7]"),
        ("maybe", "null", None),
        ("maybe", "7", "7"),
        ("kind", "1", "1"),
        ("fixed", "1", 1),
        ("flag", "True", True),
        ("flag", "maybe", "maybe"),
        ("odd", "1.5", 1.5),
        ("other", '{"a": [1]}', {"a": [1]}),
        ("other", "two words", "two words"),
        ("other", "", ""),
    ],
)
def test_tagged_values_have_the_types_of_the_schema(key: str, text: str, value: object) -> None:
    calls = parse(
        f"<function=f>\n<parameter={key}>\n{text}\n</parameter>\n</function>", schemas=SCHEMAS
    )
    assert calls == [ParsedToolCall("call_0", "f", ToolCallArguments(valid_json={key: value}))]


def test_model_may_say_that_a_value_is_a_string() -> None:
    text = '<invoke name="f"><parameter name="a" string="true">7</parameter></invoke>'
    assert parse(text) == [ParsedToolCall("call_0", "f", ToolCallArguments(valid_json={"a": "7"}))]
