"""Tool calls as models write them, in any dialect.

Invariants: a stream tells the same calls as the whole text does, however the text is cut; calls
are numbered from 0, and have names; arguments that are called valid JSON are; nothing is raised.
"""

import msgspec

from paddler.agent.worker.tool_calls.dialects import (
    DIALECTS,
    Dialect,
    ToolCallStream,
    Unrecognized,
    parse,
)
from paddler.agent.worker.tool_calls.reading import NOT_JSON, CallStarted, decode_json
from paddler.messages.tools import ParsedToolCall, ToolCallArguments
from tests.agent.worker.tool_calls.samples import SAMPLES
from tests.fuzz.pieces import cut_text, drawn_from

SEEDS = tuple(text.encode() for text in SAMPLES.values())
DICTIONARY = (
    b"{",
    b"}",
    b'"',
    b"\\",
    b"[",
    b"]",
    b"(",
    b")",
    b",",
    b":",
    b"</parameter>",
    b"</function>",
    b'{"name": "f", "arguments": ',
    b"<tool_call>",
    b"</tool_call>",
    b"[ARGS]",
)

SCHEMAS = {"f": {"properties": {"text": {"type": "string"}, "n": {"type": "integer"}}}}

LONGEST_CHAR_BY_CHAR = 100


def check(data: bytes) -> None:
    """The invariants for ``data`` as a model's text."""
    text = data.decode(errors="replace")
    draw = drawn_from(data)
    own = draw.choice([None, *DIALECTS])
    schemas = draw.choice([None, SCHEMAS])
    whole = parse(text, own=own, schemas=schemas)
    calls = [] if isinstance(whole, Unrecognized) else whole
    assert isinstance(whole, Unrecognized) or calls
    for call in calls:
        assert call.name
        msgspec.json.encode(call)
    for pieces in (
        cut_text(text),
        [*text[:LONGEST_CHAR_BY_CHAR], text[LONGEST_CHAR_BY_CHAR:]],
    ):
        assert streamed(pieces, own, schemas) == calls


def streamed(
    pieces: list[str], own: Dialect | None, schemas: dict[str, dict[str, object]] | None
) -> list[ParsedToolCall]:
    """The calls of a stream, put together."""
    stream = ToolCallStream(own=own, schemas=schemas)
    events = [event for piece in pieces for event in stream.feed(piece)] + stream.finish()
    names: list[CallStarted] = []
    arguments: list[str] = []
    for event in events:
        if isinstance(event, CallStarted):
            assert event.index == len(names)
            names.append(event)
            arguments.append("")
        else:
            arguments[event.index] += event.json_text
    return [
        ParsedToolCall(call.id, call.name, as_told(text))
        for call, text in zip(names, arguments, strict=True)
    ]


def as_told(text: str) -> ToolCallArguments:
    """Arguments as they are told in the end."""
    value = decode_json(text)
    if value is NOT_JSON:
        return ToolCallArguments(invalid_json=text)
    return ToolCallArguments(valid_json=value)
