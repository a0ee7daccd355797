"""The oracles themselves: what they let pass, and that they let nothing else pass."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.openai_document import SHAPES, require_event, require_shape
from tests.clients.openai_streams import require_chunks, require_events

HEAD = {"id": "x", "created": 1, "model": "m"}
USAGE = {
    "prompt_tokens": 1,
    "completion_tokens": 1,
    "total_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SCORE = {"token": "a", "bytes": [97], "logprob": -1.0}
MESSAGE = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "model": "m",
    "tools": [
        {"type": "function", "name": "f", "description": None, "parameters": {}, "strict": None}
    ],
    "output": [
        {
            "type": "message",
            "id": "msg_0",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "c",
            "name": "f",
            "arguments": "{}",
            "status": "completed",
        },
    ],
    "parallel_tool_calls": True,
    "metadata": {},
    "tool_choice": "auto",
    "temperature": 1,
    "top_p": 1,
    "text": {"format": {"type": "text"}},
    "usage": {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 2,
    },
}
GOOD: dict[str, dict[str, Any]] = {
    "chat": {
        **HEAD,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {**MESSAGE, "reasoning_content": "hm", "tool_calls": [CALL]},
                "logprobs": {"content": [{**SCORE, "top_logprobs": [SCORE]}], "refusal": None},
                "finish_reason": "tool_calls",
            }
        ],
        "usage": USAGE,
    },
    "chat chunk": {
        **HEAD,
        "object": "chat.completion.chunk",
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "reasoning_content": "hm"},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
    },
    "completion": {
        **HEAD,
        "object": "text_completion",
        "choices": [{"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"}],
    },
    "completion chunk": {
        **HEAD,
        "object": "text_completion",
        "choices": [{"index": 0, "text": "a", "logprobs": None, "finish_reason": None}],
    },
    "embeddings": {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    },
    "error": {"error": {"message": "no", "type": "server_error", "param": None, "code": None}},
    "model": {"id": "m", "object": "model", "created": 1, "owned_by": "o"},
    "models": {
        "object": "list",
        "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "o"}],
    },
    "response": RESPONSE,
}
# Where any key is good, since what stands there is the caller's own.
FREE = ("metadata", "parameters")


def objects_in(value: Any, name: str = "") -> Iterator[dict[str, Any]]:
    """Every object within ``value`` whose keys are OpenAI's."""
    if isinstance(value, dict) and name not in FREE:
        yield value
        for key, child in value.items():
            yield from objects_in(child, key)
    elif isinstance(value, list):
        for child in value:
            yield from objects_in(child, name)


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_key_too_many_fails_at_every_level(name: str) -> None:
    require_shape(name, GOOD[name])
    for place in range(len(list(objects_in(GOOD[name])))):
        changed = copy.deepcopy(GOOD[name])
        list(objects_in(changed))[place]["unknown"] = 1
        with pytest.raises(AssertionError):
            require_shape(name, changed)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("chat", ("id",)),
        ("chat", ("choices", 0, "logprobs")),
        ("chat", ("choices", 0, "message", "refusal")),
        ("chat", ("usage", "total_tokens")),
        ("chat chunk", ("choices", 0, "finish_reason")),
        ("completion", ("choices", 0, "logprobs")),
        ("error", ("error", "param")),
        ("response", ("error",)),
        ("response", ("metadata",)),
        ("response", ("output", 0, "status")),
        ("response", ("output", 0, "content", 0, "annotations")),
        ("response", ("output", 1, "call_id")),
        ("response", ("usage", "input_tokens_details", "cache_write_tokens")),
        ("response", ("usage", "output_tokens_details", "reasoning_tokens")),
    ],
)
def test_a_key_too_few_fails(name: str, path: tuple[str | int, ...]) -> None:
    changed: Any = copy.deepcopy(GOOD[name])
    *parents, last = path
    holder = changed
    for step in parents:
        holder = holder[step]
    del holder[last]
    with pytest.raises(AssertionError):
        require_shape(name, changed)


# --- events and their order ---------------------------------------------------------------------


def event(number: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "sequence_number": number, **fields}


def item(status: str, arguments: str) -> dict[str, Any]:
    return {**RESPONSE["output"][1], "id": "fc_0", "status": status, "arguments": arguments}  # type: ignore[index]


PLACE = {"item_id": "fc_0", "output_index": 0}
BEGUN = {**RESPONSE, "status": "in_progress", "output": []}
EVENTS = [
    event(0, "created", response=BEGUN),
    event(1, "in_progress", response=BEGUN),
    event(2, "output_item.added", output_index=0, item=item("in_progress", "")),
    event(3, "function_call_arguments.delta", **PLACE, delta="{}"),
    event(4, "function_call_arguments.done", **PLACE, name="f", arguments="{}"),
    event(5, "output_item.done", output_index=0, item=item("completed", "{}")),
    event(6, "completed", response={**RESPONSE, "output": [item("completed", "{}")]}),
]


def renumbered(events: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(one | {"sequence_number": n}) for n, one in enumerate(events)]


def test_events_that_tell_all_pass() -> None:
    require_events(renumbered(EVENTS), is_whole=True)
    require_events(renumbered(EVENTS[:4]), is_whole=False)


@pytest.mark.parametrize("missing", range(len(EVENTS)))
def test_no_event_may_be_missing(missing: int) -> None:
    events = [one for number, one in enumerate(EVENTS) if number != missing]
    with pytest.raises(AssertionError):
        require_events(renumbered(events), is_whole=True)
    if missing + 1 < len(EVENTS):
        with pytest.raises(AssertionError):
            require_events([json.dumps(one) for one in events], is_whole=False)


def test_an_event_has_no_key_too_many_and_a_name_that_openai_knows() -> None:
    with pytest.raises(AssertionError):
        require_event(EVENTS[3] | {"unknown": 1})
    with pytest.raises(AssertionError, match=r"no event of OpenAI's: response\.new"):
        require_event(event(0, "new"))


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return json.dumps({**GOOD["chat chunk"], "choices": [choice], **more})


FIRST, MORE, LAST = chunk({"role": "assistant"}), chunk({"content": "a"}), chunk({}, "stop")
COUNTED = json.dumps({**GOOD["chat chunk"], "choices": [], "usage": USAGE})


@pytest.mark.parametrize("data", [[FIRST, MORE, LAST], [FIRST, LAST, COUNTED]])
def test_chunks_that_begin_and_end_once_pass(data: list[str]) -> None:
    require_chunks("chat chunk", [*data, "[DONE]"], is_whole=True)


@pytest.mark.parametrize(
    "data",
    [
        [FIRST, MORE, LAST],
        [MORE, LAST, "[DONE]"],
        [FIRST, MORE, "[DONE]"],
        [FIRST, FIRST, LAST, "[DONE]"],
        [FIRST, LAST, MORE, "[DONE]"],
        [FIRST, COUNTED, LAST, "[DONE]"],
        [FIRST, chunk({}, "stop", id="y"), "[DONE]"],
        [FIRST, chunk({}, "stop", usage=USAGE), "[DONE]"],
    ],
)
def test_chunks_in_another_order_fail(data: list[str]) -> None:
    with pytest.raises(AssertionError):
        require_chunks("chat chunk", data, is_whole=True)
