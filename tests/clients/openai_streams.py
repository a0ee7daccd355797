"""Order within streamed answers: what OpenAI's clients rely on beyond the shape of each event."""

import itertools
import json
from collections.abc import Sequence
from typing import Any, Final

from tests.clients.openai_document import require_event, require_shape

# The end of a response, and of the status that its last object then has.
ENDINGS: Final = ("response.completed", "response.incomplete", "response.failed")

# What an item of this type is told by, between its "added" and its "done".
TOLD_BY: Final = {
    "message": ("response.output_text.delta", "response.output_text.done", "text"),
    "reasoning": ("response.reasoning_text.delta", "response.reasoning_text.done", "text"),
    "function_call": (
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "arguments",
    ),
}


def data_of(body: bytes, *, is_whole: bool) -> list[str]:
    """The data of each event of an event stream; a stream that was cut may end within one."""
    blocks = body.decode(errors="strict" if is_whole else "ignore").split("\n\n")
    rest = blocks.pop()
    assert not is_whole or rest == "", f"the stream ends within an event: {rest!r}"
    found = []
    for block in blocks:
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        assert set(lines) <= {"event", "data"}
        if "event" in lines:
            assert json.loads(lines["data"])["type"] == lines["event"]
        found.append(lines["data"])
    return found


def require_chunks(name: str, data: Sequence[str], *, is_whole: bool) -> None:
    """Chunks of one answer, each of shape ``name``: it begins once, ends once, then says so."""
    assert not is_whole or data[-1] == "[DONE]"
    chunks = [json.loads(text) for text in data if text != "[DONE]"]
    errors = [chunk for chunk in chunks if "error" in chunk]
    for error in errors:
        require_shape("error", error)
    chunks = [chunk for chunk in chunks if "error" not in chunk]
    for chunk in chunks:
        require_shape(name, chunk)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) <= 1
    assert all("usage" not in chunk for chunk in chunks if chunk["choices"])
    assert all(chunk["choices"] for chunk in chunks[:-1]), "usage comes last"
    by_index: dict[int, list[dict[str, Any]]] = {}
    for choice in itertools.chain.from_iterable(chunk["choices"] for chunk in chunks):
        by_index.setdefault(choice["index"], []).append(choice)
    for choices in by_index.values():
        reasons = [choice["finish_reason"] for choice in choices]
        assert not any(reasons[:-1])
        assert reasons[-1] or errors or not is_whole
        if name == "chat chunk":
            assert [choice["delta"].get("role") for choice in choices] == [
                "assistant",
                *[None] * (len(choices) - 1),
            ]


def require_events(data: Sequence[str], *, is_whole: bool) -> None:
    """Events of one response, without a gap; each item is told from its beginning to its end."""
    events = [json.loads(text) for text in data]
    for number, event in enumerate(events):
        require_event(event)
        assert event["sequence_number"] == number
    types = [event["type"] for event in events]
    assert types[:2] == ["response.created", "response.in_progress"][: len(types)]
    assert not set(types[2:-1]) & {"response.created", "response.in_progress", *ENDINGS}
    if not is_whole:
        return
    assert types[-1] in ENDINGS
    final = events[-1]["response"]
    assert final["status"] == types[-1].removeprefix("response.")
    assert final["id"] == events[0]["response"]["id"]
    if final["status"] == "failed":
        assert final["error"] is not None
        return
    told = [
        list(one)
        for _, one in itertools.groupby(events[2:-1], key=lambda event: event.get("output_index"))
    ]
    assert final["output"] == [
        _told_item(index, item_events) for index, item_events in enumerate(told)
    ]


def _told_item(index: int, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The item that these events tell; they must be all of them, in order."""
    assert [events[0]["type"], events[-1]["type"]] == [
        "response.output_item.added",
        "response.output_item.done",
    ]
    added, done = events[0]["item"], events[-1]["item"]
    delta_type, done_type, field = TOLD_BY[done["type"]]
    expected = [
        "response.output_item.added",
        *["response.content_part.added"] * (done["type"] == "message"),
        *[delta_type] * sum(event["type"] == delta_type for event in events),
        done_type,
        *["response.content_part.done"] * (done["type"] == "message"),
        "response.output_item.done",
    ]
    assert [event["type"] for event in events] == expected
    assert {event["output_index"] for event in events} == {index}
    assert {event.get("item_id", done["id"]) for event in events} == {added["id"]} == {done["id"]}
    assert added["status"] == "in_progress"
    text = "".join(event["delta"] for event in events if event["type"] == delta_type)
    whole = done["arguments"] if field == "arguments" else done["content"][0]["text"]
    (ended,) = (event for event in events if event["type"] == done_type)
    assert text == ended[field] == whole
    return done
