"""Odd requests to the OpenAI-compatible service: each is served, or refused with a reason.

All go over one connection, so that what follows an error is served as ever.
"""

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.clients.openai_tap import Tap
from tests.e2e.fleet import Fleet, request, wait_until

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
COMPLETIONS = "/v1/completions"
USER: dict[str, Any] = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}

SMALLEST: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [USER], "max_tokens": 2},
    RESPONSES: {"model": "m", "input": "Hi", "max_output_tokens": 2},
    COMPLETIONS: {"model": "m", "prompt": "Hi", "max_tokens": 2},
}
# Every field that OpenAI's API has and that may be left out.
OPTIONAL: dict[str, str] = {
    CHAT: "audio chat_template_kwargs frequency_penalty function_call functions include_reasoning "
    "logit_bias logprobs max_completion_tokens metadata min_p modalities n parallel_tool_calls "
    "prediction presence_penalty prompt_cache_key reasoning_effort response_format "
    "safety_identifier seed service_tier stop store stream stream_options temperature tool_choice "
    "tools top_k top_logprobs top_p user verbosity web_search_options",
    RESPONSES: "background conversation include instructions max_tool_calls metadata "
    "parallel_tool_calls previous_response_id prompt prompt_cache_key reasoning safety_identifier "
    "service_tier store stream stream_options temperature text tool_choice tools top_logprobs "
    "top_p truncation user",
    COMPLETIONS: "best_of echo frequency_penalty logit_bias logprobs n presence_penalty seed stop "
    "stream stream_options suffix temperature top_p user",
}


@pytest.fixture(scope="module")
def connection(shared_fleet: Fleet) -> Iterator[http.client.HTTPConnection]:
    """The one connection; what came over it leaves no slot taken, and nothing to be said."""
    assert shared_fleet.balancer is not None
    said_before = len(shared_fleet.balancer.log)
    with Tap(shared_fleet.openai) as tap:
        connection = http.client.HTTPConnection(urlsplit(tap.url).netloc, timeout=60)
        yield connection
        shared_fleet.wait_idle()
        connection.close()
    assert shared_fleet.balancer.log[said_before:] == ""


def post(
    connection: http.client.HTTPConnection, path: str, body: bytes, kind: str = "application/json"
) -> tuple[int, dict[str, Any]]:
    connection.request("POST", path, body, {"content-type": kind})
    response = connection.getresponse()
    answer = response.read()
    assert response.getheader("connection") != "close"
    return response.status, json.loads(answer)


@pytest.mark.parametrize("path", list(SMALLEST))
def test_null_is_as_good_as_nothing(connection: http.client.HTTPConnection, path: str) -> None:
    nulls = dict.fromkeys(OPTIONAL[path].split())
    status, answer = post(connection, path, json.dumps(nulls | SMALLEST[path]).encode())
    assert status == 200, answer


def said(content: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content, **more}]}


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        (CHAT, {"model": ""}),
        (CHAT, {"unknown": {"a": [1, {}]}, "stream_options": {"include_obfuscation": True}}),
        (CHAT, {"tools": [], "stop": [], "logit_bias": {}, "metadata": {}}),
        (CHAT, said(None)),
        (CHAT, said("")),
        (CHAT, said([])),
        (CHAT, said([{"type": "text", "text": "Hi"}, {"type": "refusal", "refusal": "no"}])),
        (CHAT, said("a\0b \u2028 🏳️‍🌈 \ufffd")),
        (CHAT, said("Hi", name="bob")),
        *((CHAT, said("Hi", role)) for role in ("developer", "system", "assistant", "tool", "x")),
        (CHAT, {"messages": [USER, {"role": "assistant", "tool_calls": []}, USER]}),
        (CHAT, {"messages": [USER, {"role": "assistant", "function_call": {"name": "f"}}, USER]}),
        (CHAT, {"max_tokens": 2**31 - 1, "stop": ["e", "o", "a", "i"]}),
        (CHAT, {"stop": ["", "\ud83c\udf1e", "中"]}),
        (CHAT, {"seed": -(2**63)}),
        (CHAT, {"tools": [{"type": "web_search"}], "tool_choice": "auto"}),
        (CHAT, {"tools": [TOOL, TOOL], "tool_choice": "none"}),
        (CHAT, {"reasoning_effort": "tremendous"}),
        (RESPONSES, {"input": []}),
        (RESPONSES, {"input": "", "instructions": ""}),
        (RESPONSES, {"input": [{"role": "user", "content": []}]}),
        (RESPONSES, {"input": [{"type": "reasoning", "id": "r", "summary": []}, USER]}),
        (RESPONSES, {"input": [{"type": "web_search_call", "id": "w"}, USER, {"type": 5}]}),
        (RESPONSES, {"input": [{"type": "function_call_output", "call_id": "c", "output": []}]}),
        (RESPONSES, {"tools": [{"type": "mcp"}, {"type": "web_search"}]}),
        (RESPONSES, {"text": {"format": {"type": "new"}, "verbosity": "low"}}),
        (RESPONSES, {"include": ["reasoning.encrypted_content"], "truncation": "auto"}),
        (COMPLETIONS, {"suffix": "", "best_of": 1}),
        (COMPLETIONS, {"prompt": ["a", "b"], "n": 2, "best_of": 2, "echo": True}),
    ],
)
def test_what_is_merely_odd_is_served(
    connection: http.client.HTTPConnection, path: str, changes: dict[str, Any]
) -> None:
    status, answer = post(connection, path, json.dumps(SMALLEST[path] | changes).encode())
    assert status == 200, answer


def nested(opening: str, closing: str, times: int) -> Any:
    """A value that is nested as deeply, which Python's own encoder would not write."""
    return opening * times + closing * times


@pytest.mark.parametrize(
    ("path", "changes", "param"),
    [
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": None}, "messages"),
        (CHAT, {"model": None}, "model"),
        (CHAT, {"model": "m" * 2000}, "model"),
        (CHAT, said(5), "messages[0].content"),
        (CHAT, said(["Hi"]), "messages[0].content[0]"),
        (CHAT, said([{"type": "text"}]), "messages[0].content[0].text"),
        (CHAT, said([{"type": "file", "file": {}}]), "messages[0].content[0].type"),
        (CHAT, {"messages": [{"content": "Hi"}]}, "messages[0].role"),
        *((CHAT, {"max_tokens": value}, "max_tokens") for value in (0, -1, 2**31, 1.5, "5", True)),
        *((CHAT, {"n": value}, "n") for value in (0, 129, "1")),
        *((CHAT, {"stop": value}, "stop") for value in (5, ["a"] * 17)),
        (CHAT, {"stream": 1}, "stream"),
        (CHAT, {"stream_options": []}, "stream_options"),
        (CHAT, {"tool_choice": "any"}, "tool_choice"),
        (CHAT, {"tool_choice": "required"}, "tool_choice"),
        (CHAT, {"tool_choice": {"type": "custom"}}, "tool_choice.type"),
        (CHAT, {"tools": [{"type": "function"}]}, "tools[0]"),
        (CHAT, {"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        (CHAT, {"response_format": "json"}, "response_format"),
        (CHAT, {"response_format": {"type": "grammar"}}, "response_format.type"),
        (CHAT, {"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (CHAT, {"logit_bias": {"5": "x"}}, "logit_bias"),
        (CHAT, {"top_logprobs": 1}, "top_logprobs"),
        (CHAT, {"functions": [{"name": "f"}]}, "functions"),
        (CHAT, {"function_call": "auto"}, "function_call"),
        (RESPONSES, {"top_logprobs": 21}, "top_logprobs"),
        (CHAT, {"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        (RESPONSES, {"input": None}, "input"),
        (RESPONSES, {"input": ["Hi"]}, "input[0]"),
        (RESPONSES, {"input": [{"role": "user"}]}, "input[0].content"),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "i"}]}, "input[0]"),
        (RESPONSES, {"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        (RESPONSES, {"tools": [TOOL]}, "tools[0].name"),
        (RESPONSES, {"tool_choice": {}}, "tool_choice"),
        (RESPONSES, {"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        (RESPONSES, {"conversation": "c"}, "conversation"),
        (RESPONSES, {"prompt": {"id": "p"}}, "prompt"),
        (RESPONSES, {"max_output_tokens": 0}, "max_output_tokens"),
        (COMPLETIONS, {"prompt": []}, "prompt"),
        (COMPLETIONS, {"prompt": [1, 2]}, "prompt"),
        (COMPLETIONS, {"prompt": None}, "prompt"),
        (COMPLETIONS, {"suffix": "x"}, "suffix"),
        (COMPLETIONS, {"echo": True, "logprobs": 1}, "echo"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    connection: http.client.HTTPConnection, path: str, changes: dict[str, Any], param: str
) -> None:
    status, answer = post(connection, path, json.dumps(SMALLEST[path] | changes).encode())
    assert (status, answer["error"]["param"]) == (400, param), answer


GOOD = json.dumps(SMALLEST[CHAT]).encode()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"null", 400),
        (b"[]", 400),
        (GOOD + b"x", 400),
        (GOOD[:-1], 400),
        (b"\xef\xbb\xbf" + GOOD, 400),
        (GOOD.decode().encode("utf-16"), 400),
        (GOOD.replace(b"Hi", b"\xff"), 400),
        (GOOD.replace(b"Hi", rb"\ud800"), 400),
        (GOOD[:-1] + b',"temperature":NaN}', 400),
        (GOOD[:-1] + b',"temperature":1e999}', 400),
        (GOOD[:-1] + b',"max_tokens":1,"model":"n"}', 200),
        (GOOD[:-1] + b',"x":%s}' % nested("[", "]", 100_000).encode(), 400),
        (GOOD[:-1] + b',"chat_template_kwargs":{"a":%s}}' % nested("[", "]", 500).encode(), 200),
        (
            GOOD[:-1]
            + b',"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":'
            + nested('{"type":"array","items":', "}", 900).replace(":}", ":{}}", 1).encode()
            + b"}}}",
            400,
        ),
    ],
)
def test_a_body_that_is_no_good_json_is_told_so(
    connection: http.client.HTTPConnection, body: bytes, status: int
) -> None:
    assert post(connection, CHAT, body)[0] == status


@pytest.mark.parametrize("depth", range(976, 1000, 3))
def test_no_depth_of_nesting_is_an_internal_error(fleet: Fleet, depth: int) -> None:
    body = json.dumps(SMALLEST[RESPONSES])[:-1]
    deep = f'{{"a":{nested("[", "]", depth)}}}'
    for field in (
        f'"tools":[{{"type":"function","name":"f","parameters":{deep}}}]',
        f'"tool_choice":{deep}',
        f'"text":{{"format":{{"type":"json_schema","schema":{deep}}}}}',
        f'"input":[{deep}]',
        f'"stream":true,"tools":[{{"type":"function","name":"f","parameters":{deep}}}]',
    ):
        status, answer = request(fleet.openai, "POST", RESPONSES, f"{body},{field}}}".encode())
        assert status in (200, 400), answer


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data; boundary=x"])
def test_a_body_that_does_not_call_itself_json_is_told_so(
    connection: http.client.HTTPConnection, kind: str
) -> None:
    status, answer = post(connection, CHAT, GOOD, kind)
    assert status == 400
    assert "content-type: application/json" in answer["error"]["message"]


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_a_client_that_leaves_before_the_first_token_frees_its_slot(
    fleet: Fleet, path: str
) -> None:
    body = SMALLEST[path] | {"stream": True}
    long = "one two three " * 1000
    body |= {"input": long} if path == RESPONSES else said(long)
    connection = http.client.HTTPConnection("127.0.0.1", fleet.openai, timeout=60)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    wait_until(lambda: fleet.slots_busy() == 1, "the prompt is read")
    connection.close()
    fleet.wait_idle()
