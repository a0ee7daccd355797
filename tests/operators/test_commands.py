"""The operators' commands against a real balancer, its agents played by the test."""

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from paddler.cli import main
from paddler.messages import link as wire
from paddler.messages.agents import AgentDetails, AgentIssue, AgentStatus, ModelPath
from paddler.messages.link import FrameKind
from tests.balancer.services.running import DESIRED_STATE, Agent, Running, local, on_balancer

SERVING = AgentStatus(
    desired_slots_total=2,
    slots_total=2,
    model_path="/models/tiny.gguf",
    state_application_status="Applied",
)


async def run(running: Running, *words: str) -> int:
    """One command, as the shell would run it; its exit code."""
    service = "--inference-addr" if words[0] == "chat" else "--management-addr"
    port = running.inference if words[0] == "chat" else running.management
    return await asyncio.to_thread(main, [*words, service, local(port)])


async def desired(running: Running) -> Any:
    return json.loads((await running.get(running.management, DESIRED_STATE)).body)


async def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


# --- status -------------------------------------------------------------------------------------


def test_status_of_a_fleet_without_agents_says_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def test(running: Running) -> None:
        assert await run(running, "status") == 0
        assert "paddler agent --management-addr" in capsys.readouterr().out

    on_balancer(test)


def test_status_shows_slots_models_downloads_and_issues(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")

    async def test(running: Running) -> None:
        agent = await Agent.join(running, "id-1", "gpu-1")
        issue = AgentIssue(download_interrupted=ModelPath("http://x/m.gguf"))
        status = msgspec.structs.replace(
            SERVING,
            issues=(issue,),
            download_filename="next.gguf",
            download_current=25_000_000,
            download_total=100_000_000,
            download_indeterminate=False,
        )
        details = AgentDetails(host="h", started_at=0.0, seconds_left=30.0)
        agent.send(wire.DetailsReport(details))
        agent.send(wire.StatusReport(status))
        idle = await Agent.join(running, "id-2", None)
        idle.send(wire.DetailsReport(AgentDetails(host="h", started_at=0.0, phase="serving")))
        await wait_for(lambda: all(one.details for one in running.balancer.pool.agents))
        await wait_for(lambda: bool(running.balancer.pool.agents[0].status.issues))
        assert await run(running, "status") == 0
        out = capsys.readouterr().out
        assert "slots 0/3" in out
        (gpu,) = [line for line in out.splitlines() if line.startswith("gpu-1")]
        assert "tiny.gguf" in gpu
        assert "downloading next.gguf 25.0 MB of 100.0 MB (25%), 30 s left" in gpu
        (unnamed,) = [line for line in out.splitlines() if line.startswith("id-2")]
        assert "serving" in unnamed
        assert "! gpu-1: DownloadInterrupted: http://x/m.gguf; the download broke off" in out

    on_balancer(test)


def test_status_as_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    async def test(running: Running) -> None:
        await Agent.join(running)
        assert await run(running, "status", "--json") == 0
        document = json.loads(capsys.readouterr().out)
        assert document["agents"][0]["name"] == "gpu-1"
        assert document["buffered_requests_current"] == 0
        assert document["model"] == "None"

    on_balancer(test)


# --- model --------------------------------------------------------------------------------------


def test_a_model_is_set_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    async def test(running: Running) -> None:
        words = ["model", "set", "hf:o/r/q/f.gguf@v2", "--set", "context_size=4096"]
        words += ["--set", "k_cache_dtype=F16", "--projection", "/mm.gguf"]
        assert await run(running, *words) == 0
        state = await desired(running)
        assert state["model"] == {
            "HuggingFace": {"repo_id": "o/r", "filename": "q/f.gguf", "revision": "v2"}
        }
        assert state["multimodal_projection"] == {"LocalToAgent": "/mm.gguf"}
        parameters = state["inference_parameters"]
        assert (parameters["context_size"], parameters["k_cache_dtype"]) == (4096, "F16")
        capsys.readouterr()
        assert await run(running, "model", "show") == 0
        out = capsys.readouterr().out
        assert "hf:o/r/q/f.gguf@v2" in out
        assert "/mm.gguf" in out
        # What is not named stays as it is.
        assert await run(running, "model", "set", "none") == 0
        state = await desired(running)
        assert (state["model"], state["inference_parameters"]["context_size"]) == ("None", 4096)
        assert state["multimodal_projection"] == {"LocalToAgent": "/mm.gguf"}

    on_balancer(test)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--set", "heat=1"], 2, "there is no parameter 'heat'; there are: n_batch"),
        (["--set", "top_p=7"], 1, "the balancer answered 400: "),
        (["--set", "x"], 2, "expected NAME=VALUE"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, text: str
) -> None:
    async def test(running: Running) -> None:
        try:
            got: object = await run(running, "model", "set", "/m", *words)
        except SystemExit as stop:
            got = stop.code
        assert got == code
        assert text in capsys.readouterr().err
        assert (await desired(running))["model"] == "None"

    on_balancer(test)


def test_waiting_ends_when_every_agent_serves(capsys: pytest.CaptureFixture[str]) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        agent.send(wire.StatusReport(AgentStatus(desired_slots_total=2)))
        command = asyncio.create_task(run(running, "model", "set", "/m", "--wait"))
        assert isinstance(await agent.hear(), wire.SetState)
        agent.send(wire.StatusReport(SERVING))
        assert await command == 0
        assert "Applied on 1 agent." in capsys.readouterr().out

    on_balancer(test)


def test_waiting_ends_when_an_agent_says_that_it_cannot(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        agent.send(wire.StatusReport(AgentStatus(desired_slots_total=2)))
        command = asyncio.create_task(run(running, "model", "set", "/m", "--wait"))
        assert isinstance(await agent.hear(), wire.SetState)
        issue = AgentIssue(model_file_does_not_exist=ModelPath("/m"))
        agent.send(wire.StatusReport(AgentStatus(desired_slots_total=2, issues=(issue,))))
        assert await command == 1
        error = capsys.readouterr().err
        assert "gpu-1: ModelFileDoesNotExist" in error
        assert "put the file there" in error

    on_balancer(test)


# --- agents and events --------------------------------------------------------------------------


def test_agents_are_drained_and_resumed_by_name_or_id() -> None:
    async def test(running: Running) -> None:
        await Agent.join(running, "id-1", "gpu")
        await Agent.join(running, "id-2", "gpu")
        assert await run(running, "agents", "drain", "gpu") == 0
        assert running.balancer.pool.slots_total == 0
        assert await run(running, "agents", "resume", "id-2") == 0
        assert running.balancer.pool.slots_total == 1

    on_balancer(test)


def test_an_agent_that_is_not_there_is_told_with_those_that_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def test(running: Running) -> None:
        await Agent.join(running)
        assert await run(running, "agents", "drain", "nobody") == 2
        error = capsys.readouterr().err
        assert "no agent is named 'nobody'; connected are: gpu-1" in error

    on_balancer(test)


def test_events_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    async def test(running: Running) -> None:
        await Agent.join(running)
        assert await run(running, "events") == 0
        assert 'agent_joined        agent "gpu-1" joined' in capsys.readouterr().out
        assert await run(running, "events", "--json") == 0
        assert json.loads(capsys.readouterr().out)["kind"] == "agent_joined"

    on_balancer(test)


# --- chat ---------------------------------------------------------------------------------------


async def answer(agent: Agent) -> wire.ConversationJob:
    start = await agent.hear_start()
    assert isinstance(start.job, wire.ConversationJob)
    agent.say(start.stream_id, FrameKind.REASONING, b"hm")
    agent.say(start.stream_id, FrameKind.CONTENT, b"Par")
    agent.say(start.stream_id, FrameKind.CONTENT, b"is.")
    agent.finish(start.stream_id)
    return start.job


def test_a_question_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        words = ["chat", "Capital?", "--system", "Be brief.", "--max-tokens", "7", "--think"]
        command = asyncio.create_task(run(running, *words))
        job = await answer(agent)
        assert await command == 0
        request = job.request
        assert [m.role for m in request.conversation_history] == ["system", "user"]
        assert (request.max_tokens, request.enable_thinking) == (7, True)
        assert capsys.readouterr() == ("Paris.\n", "hm")

    on_balancer(test)


def test_a_question_may_come_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        monkeypatch.setattr("sys.stdin", io.StringIO("Capital?\n"))
        command = asyncio.create_task(run(running, "chat"))
        job = await answer(agent)
        assert await command == 0
        assert job.request.conversation_history[0].content == "Capital?\n"
        monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
        assert await run(running, "chat") == 1
        assert "the question is empty" in capsys.readouterr().err

    on_balancer(test)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"SamplerError": "no room"}, "SamplerError: no room"),
        ({"ImageExceedsBatchSize": {"n_batch": 1}}, 'ImageExceedsBatchSize: {"n_batch": 1}'),
    ],
)
def test_a_failure_is_one_line(
    capsys: pytest.CaptureFixture[str], result: dict[str, Any], text: str
) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        command = asyncio.create_task(run(running, "chat", "Hi"))
        agent.fail((await agent.hear_start()).stream_id, result)
        assert await command == 1
        assert capsys.readouterr().err == f"Error: {text}\n"

    on_balancer(test)


def test_a_full_buffer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    async def test(running: Running) -> None:
        assert await run(running, "chat", "Hi") == 1
        error = capsys.readouterr().err
        assert error == "Error: the balancer answered 503: Buffered requests overflow\n"

    on_balancer(test, "--max-buffered-requests", "0")


def test_a_balancer_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--management-addr", "127.0.0.1:1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: cannot reach the balancer at 127.0.0.1:1: ")
    assert error.count("\n") == 1
