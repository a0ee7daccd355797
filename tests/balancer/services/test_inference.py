"""Native answers on a real balancer, whose agents are played by the test."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from paddler.messages import link as wire
from paddler.messages.link import FRAME_FINAL, FrameKind
from paddler.messages.state import DEFAULT_DESIRED_STATE
from tests.balancer.services.running import Agent, Running, on_balancer
from tests.net.peers import Answer

RAW_PROMPT = "/api/v1/continue_from_raw_prompt"
CONVERSATION = "/api/v1/continue_from_conversation_history"
RAW: dict[str, Any] = {"raw_prompt": "Once", "max_tokens": 5}
TALK: dict[str, Any] = {
    "add_generation_prompt": True,
    "conversation_history": [{"role": "user", "content": "Hi"}],
    "enable_thinking": False,
    "max_tokens": 5,
}
EMBEDDING = msgspec.structs.replace(
    DEFAULT_DESIRED_STATE,
    inference_parameters=msgspec.structs.replace(
        DEFAULT_DESIRED_STATE.inference_parameters, enable_embeddings=True
    ),
)


def lines_of(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200
    assert answer.headers.get("content-type") == "application/json"
    assert answer.body.endswith(b"\n")
    return [json.loads(line) for line in answer.body.splitlines()]


def error_of(answer: Answer) -> tuple[int, str]:
    """The error that a whole answer consists of."""
    (line,) = lines_of(answer)
    error = line["Error"]["error"]
    return error["code"], error["description"]


@pytest.mark.parametrize("name", ["gpu-1", None, 'a "quoted" näme'])
def test_an_answer_is_a_line_for_each_token_and_one_for_the_end(name: str | None) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running, name=name)
        asked = asyncio.create_task(running.post(running.inference, RAW_PROMPT, RAW))
        start = await agent.hear_start()
        assert isinstance(start.job, wire.RawPromptJob)
        assert msgspec.to_builtins(start.job.request) == RAW | {"grammar": None}
        agent.say(start.stream_id, FrameKind.CONTENT, rb"a \"b\"")
        agent.say(start.stream_id, FrameKind.REASONING, rb"\n")
        agent.say(start.stream_id, FrameKind.TOOL_CALL, b"{}")
        agent.say(start.stream_id, FrameKind.UNDETERMINABLE, "ß".encode())
        agent.say(start.stream_id, FrameKind.RESULT, b'{"ToolCallParsed":[]}')
        agent.finish(start.stream_id)
        responses = [line["Response"] for line in lines_of(await asked)]
        assert {response["generated_by"] for response in responses} == {name}
        assert len({response["request_id"] for response in responses}) == 1
        *results, done = [response["response"]["GeneratedToken"] for response in responses]
        assert results == [
            {"ContentToken": 'a "b"'},
            {"ReasoningToken": "\n"},
            {"ToolCallToken": "{}"},
            {"UndeterminableToken": "ß"},
            {"ToolCallParsed": []},
        ]
        assert done["Done"]["usage"]["cached_prompt_tokens"] == 3

    on_balancer(test)


def test_a_conversation_reaches_the_agent_whole() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.inference, CONVERSATION, TALK))
        start = await agent.hear_start()
        assert isinstance(start.job, wire.ConversationJob)
        assert start.job.request.conversation_history[0].content == "Hi"
        agent.finish(start.stream_id)
        assert len(lines_of(await asked)) == 1

    on_balancer(test)


def test_an_error_of_the_agent_is_the_last_line() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.inference, RAW_PROMPT, RAW))
        start = await agent.hear_start()
        agent.fail(start.stream_id, {"SamplerError": "no"})
        (line,) = lines_of(await asked)
        assert line["Response"]["response"] == {"GeneratedToken": {"SamplerError": "no"}}

    on_balancer(test)


def test_without_a_slot_in_time_the_answer_is_504() -> None:
    async def test(running: Running) -> None:
        answer = await running.post(running.inference, RAW_PROMPT, RAW)
        assert error_of(answer) == (504, "Waiting for available slot timed out")

    on_balancer(test, "--buffered-request-timeout", "1ms")


def test_past_the_buffer_the_answer_is_503() -> None:
    async def test(running: Running) -> None:
        answer = await running.post(running.inference, RAW_PROMPT, RAW)
        assert error_of(answer) == (503, "Buffered requests overflow")

    on_balancer(test, "--max-buffered-requests", "0")


def test_without_a_token_in_time_the_answer_is_504() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.inference, RAW_PROMPT, RAW))
        start = await agent.hear_start()
        code, description = error_of(await asked)
        assert code == 504
        assert description.startswith("Inference timed out after 1ms waiting for next token.")
        assert await agent.hear() == wire.StopStream(start.stream_id)

    on_balancer(test, "--inference-item-timeout", "1ms")


def test_a_request_that_lost_its_agent_moves_to_another_unseen() -> None:
    async def test(running: Running) -> None:
        first = await Agent.join(running, "id-1", "first")
        asked = asyncio.create_task(running.post(running.inference, RAW_PROMPT, RAW))
        await first.hear_start()
        second = await Agent.join(running, "id-2", "second")
        first.leave()
        start = await second.hear_start()
        second.say(start.stream_id, FrameKind.CONTENT, b"x")
        second.finish(start.stream_id)
        token, done = lines_of(await asked)
        assert token["Response"]["generated_by"] == "second"
        assert "Done" in done["Response"]["response"]["GeneratedToken"]

    on_balancer(test)


def test_an_answer_that_lost_its_agent_in_the_middle_ends_with_502() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.inference, RAW_PROMPT, RAW))
        start = await agent.hear_start()
        agent.say(start.stream_id, FrameKind.CONTENT, b"x")
        agent.leave()
        _, error = lines_of(await asked)
        assert error["Error"]["error"] == {
            "code": 502,
            "description": "Agent controller connection closed",
        }

    on_balancer(test)


def test_a_client_that_leaves_frees_its_slot() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.inference, RAW_PROMPT, RAW))
        start = await agent.hear_start()
        asked.cancel()
        assert await agent.hear() == wire.StopStream(start.stream_id)
        agent.say(start.stream_id, FrameKind.RETURNED, b'{"reason":"stopped"}', FRAME_FINAL)
        while (await running.agents())[0]["slots_processing"]:
            pass  # the confirmation is on its way

    on_balancer(test)


def test_draining_ends_what_waits_and_what_runs_by_name() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = [
            asyncio.create_task(running.post(running.inference, RAW_PROMPT, RAW)) for _ in range(2)
        ]
        await agent.hear_start()
        while json.loads(
            (await running.get(running.management, "/api/v1/buffered_requests")).body
        ) != {"buffered_requests_current": 1}:
            pass  # the second is on its way
        await running.balancer.drain()
        for one in asked:
            assert error_of(await one) == (503, "balancer is shutting down")

    on_balancer(test, "--drain-timeout", "1ms")


@pytest.mark.parametrize(("path", "body"), [(RAW_PROMPT, RAW), (CONVERSATION, TALK)])
def test_a_fleet_for_embeddings_makes_no_tokens(path: str, body: dict[str, Any]) -> None:
    async def test(running: Running) -> None:
        await running.put_state(EMBEDDING)
        answer = await running.post(running.inference, path, body)
        assert answer.status == 501
        assert answer.body.startswith(b"Token generation is disabled")

    on_balancer(test)


@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        (RAW_PROMPT, {"raw_prompt": "x"}, b"max_tokens"),
        (RAW_PROMPT, RAW | {"extra": 1}, b"unknown field `extra`"),
        (CONVERSATION, TALK | {"max_tokens": "5"}, b"$.max_tokens"),
    ],
)
def test_a_request_that_cannot_be_is_400_and_names_the_field(
    path: str, body: dict[str, Any], names: bytes
) -> None:
    async def test(running: Running) -> None:
        answer = await running.post(running.inference, path, body)
        assert answer.status == 400
        assert names in answer.body

    on_balancer(test)


def tool(parameters: dict[str, Any] | None) -> dict[str, Any]:
    function = {"name": "f", "description": "does it", "parameters": parameters}
    return {"type": "function", "function": function}


def test_a_tool_that_requires_what_it_does_not_declare_is_400() -> None:
    async def test(running: Running) -> None:
        parameters = {"type": "object", "properties": {"a": {}}, "required": ["a", "b"]}
        answer = await running.post(
            running.inference, CONVERSATION, TALK | {"tools": [tool(parameters)]}
        )
        assert answer.status == 400
        assert b"Required field 'b' not found in properties" in answer.body

    on_balancer(test)


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}, "required": []},
        {"type": "object", "properties": {"a": {}}, "required": ["a"]},
    ],
)
def test_other_tools_reach_the_agent(parameters: dict[str, Any] | None) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        body = TALK | {"tools": [tool(parameters)]}
        asked = asyncio.create_task(running.post(running.inference, CONVERSATION, body))
        start = await agent.hear_start()
        assert isinstance(start.job, wire.ConversationJob)
        assert [one.function.name for one in start.job.request.tools] == ["f"]
        agent.finish(start.stream_id)
        await asked

    on_balancer(test)
