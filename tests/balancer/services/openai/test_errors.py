"""Errors in OpenAI's shape."""

import json

import pytest

from paddler.balancer.link import Concluded
from paddler.balancer.services.openai.errors import Places, problem_in, problem_of, render_error
from paddler.messages.inference import Failure
from tests.balancer.test_pool import Pool, join

PLACES = Places(input="messages", format="response_format")


@pytest.mark.parametrize(
    ("status", "kind", "retry_after", "should_retry"),
    [
        (400, "invalid_request_error", None, None),
        (404, "invalid_request_error", None, None),
        (500, "server_error", None, None),
        (501, "server_error", None, "false"),
        (503, "server_error", "1", None),
    ],
)
def test_an_error_has_openais_shape(
    status: int, kind: str, retry_after: str | None, should_retry: str | None
) -> None:
    response = render_error(status, "some_code", "no", (("allow", "GET"),))
    assert response.status == status
    assert response.content_type == "application/json"
    assert json.loads(response.body) == {
        "error": {"message": "no", "type": kind, "param": None, "code": None}
    }
    headers = dict(response.headers)
    assert headers["allow"] == "GET"
    assert headers.get("retry-after") == retry_after
    assert headers.get("x-should-retry") == should_retry


@pytest.mark.parametrize(
    ("result", "status", "param", "message"),
    [
        (b'{"GrammarSyntaxError":"line 1"}', 400, "response_format", "line 1"),
        (b'{"ChatTemplateError":"no user"}', 400, "messages", "no user"),
        (b'{"ToolSchemaInvalid":"no schema"}', 400, "tools", "no schema"),
        (
            b'{"ImageExceedsBatchSize":{"image_tokens":9,"n_batch":8}}',
            400,
            "messages",
            "image required 9 tokens but agent n_batch is 8; rerun with a larger n_batch",
        ),
        (b'{"SamplerError":"no"}', 500, None, "no"),
        (b'{"TokenGenerationDisabled":"off"}', 501, None, "off"),
    ],
)
def test_an_agents_error_is_the_callers_or_the_servers(
    result: bytes, status: int, param: str | None, message: str
) -> None:
    problem = problem_of(Concluded(result, join(Pool(), "a", 1)), PLACES)
    assert (problem.status, problem.param, problem.message) == (status, param, message)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("no text follows the image", None),
        ("Request evicted due to KV cache pressure: too long", "context_length_exceeded"),
    ],
)
def test_a_request_that_would_fail_again_is_the_callers_fault(
    message: str, code: str | None
) -> None:
    result = json.dumps({"SamplerError": message}).encode()
    problem = problem_of(Concluded(result, join(Pool(), "a", 1), is_refusal=True), PLACES)
    assert (problem.status, problem.param, problem.code) == (400, "messages", code)


def test_a_failure_keeps_its_status() -> None:
    problem = problem_of(Failure(504, "too slow"), PLACES)
    assert (problem.status, problem.message) == (504, "too slow")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (b'{"ToolCallParsed":[]}', None),
        (b'{"ToolCallValidationFailed":["one","two"]}', "one"),
        (b'{"ToolCallValidationFailed":[]}', "tool call failed validation"),
        (b'{"ToolCallParseFailed":"bindings parse failed: x"}', "bindings parse failed: x"),
        (
            b'{"UnrecognizedToolCallFormat":{"text":"<x>","ffi_error_message":"why"}}',
            "model produced output the parser did not recognise as any registered tool-call "
            "format; FFI error: why; raw text: <x>",
        ),
    ],
)
def test_a_result_that_ends_nothing_may_tell_of_a_failure(
    result: bytes, message: str | None
) -> None:
    problem = problem_in(result)
    assert (None if problem is None else problem.message) == message
