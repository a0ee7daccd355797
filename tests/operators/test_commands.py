"""The operators' commands against a real balancer, its agents played by the test."""

import asyncio
import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from paddler.cli import main
from paddler.messages import link as wire
from paddler.messages.agents import AgentDetails, AgentIssue, AgentStatus, ModelPath
from paddler.messages.link import FrameKind
from paddler.messages.state import DEFAULT_DESIRED_STATE, fingerprint
from paddler.operators import issues, model, status
from paddler.operators.client import Client
from tests.balancer.services.running import (
    DESIRED_STATE,
    Agent,
    Running,
    hello,
    local,
    on_balancer,
)

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
        downloading = msgspec.structs.replace(
            SERVING,
            issues=(issue,),
            download_filename="next.gguf",
            download_current=25_000_000,
            download_total=100_000_000,
            download_indeterminate=False,
        )
        details = AgentDetails(host="h", started_at=0.0, seconds_left=30.0)
        agent.send(wire.DetailsReport(details))
        agent.send(wire.StatusReport(downloading))
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


def tell(agent: Agent, status: AgentStatus, wanted: str | None, applied: str | None) -> None:
    """Have an agent report: its status first, then which states it wants and has applied."""
    details = AgentDetails(host="h", started_at=0.0, wanted_state=wanted, applied_state=applied)
    agent.send(wire.StatusReport(status))
    agent.send(wire.DetailsReport(details))


async def hear_state(agent: Agent) -> str:
    """The fingerprint of the state that an agent is told next."""
    message = await agent.hear()
    assert isinstance(message, wire.SetState)
    return fingerprint(message.state)


def test_waiting_ends_when_every_agent_serves(capsys: pytest.CaptureFixture[str]) -> None:
    async def test(running: Running) -> None:
        agents = [await Agent.join(running, agent_id) for agent_id in ("id-1", "id-2")]
        command = asyncio.create_task(run(running, "model", "set", "/m", "--wait"))
        for agent in agents:
            state = await hear_state(agent)
            tell(agent, SERVING, state, state)
        assert await command == 0
        assert "Applied on 2 agents." in capsys.readouterr().out

    on_balancer(test)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each look at the fleet of a command that waits; it looks often."""
    seen: list[object] = []

    def counted(management: Client) -> dict[str, Any]:
        found = status.fetch(management)
        seen.append(found)
        return found

    monkeypatch.setattr(model, "fetch", counted)
    monkeypatch.setattr(model, "LOOK_EVERY_S", 0.01)
    return seen


async def look_again(looks: list[object]) -> None:
    """Wait until the command has looked at all that was there when this began."""
    count = len(looks)
    await wait_for(lambda: len(looks) >= count + 2)


def test_waiting_is_not_fooled_by_what_was_there_before(looks: list[object]) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        issue = AgentIssue(model_file_does_not_exist=ModelPath("/typo"))
        broken = msgspec.structs.replace(SERVING, issues=(issue,))
        # The model before serves still, beside the issue of a state that nobody wants any more.
        tell(agent, broken, "before", "before")
        await wait_for(lambda: bool(running.balancer.pool.agents[0].details))
        command = asyncio.create_task(run(running, "model", "set", "/m", "--wait"))
        state = await hear_state(agent)
        await look_again(looks)
        tell(agent, SERVING, state, None)  # it has heard, and brings the files here
        await look_again(looks)
        assert not command.done()
        tell(agent, SERVING, state, state)
        assert await command == 0

    on_balancer(test)


@pytest.mark.parametrize("name", AgentIssue.__struct_encode_fields__)
def test_waiting_ends_when_an_agent_says_that_it_cannot(
    name: str, looks: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    path = {"model_path": "/m"}
    payload = {"error": "no", "slot_index": 0, "lock_path": "/l", "template_content": ""}
    nested = name in ("ChatTemplateDoesNotCompile", "HuggingFaceCannotAcquireLock")
    payload |= {"model_path": path} if nested else path
    issue = msgspec.convert({name: payload}, AgentIssue)

    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        command = asyncio.create_task(run(running, "model", "set", "/m", "--wait"))
        state = await hear_state(agent)
        tell(agent, msgspec.structs.replace(SERVING, issues=(issue,)), state, None)
        if name in issues.PASSING:
            await look_again(looks)
            assert not command.done()
            tell(agent, SERVING, state, state)
            assert await command == 0
        else:
            assert await command == 1
            error = capsys.readouterr().err
            assert error.startswith(f"Error: gpu-1: {name}: ")
            assert error.endswith(f"; {issues.ADVICE[name]}\n")

    on_balancer(test)


def test_waiting_ends_when_somebody_asks_for_another_state(
    looks: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        command = asyncio.create_task(run(running, "model", "set", "/m", "--wait"))
        await hear_state(agent)
        await look_again(looks)
        assert await run(running, "model", "set", "/other") == 0
        assert await command == 1
        error = capsys.readouterr().err
        assert error == (
            "Error: somebody asked for another state meanwhile, with the model /other\n"
        )

    on_balancer(test)


def test_waiting_without_an_agent_says_so_and_waits_for_one(
    looks: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(running: Running) -> None:
        command = asyncio.create_task(run(running, "model", "set", "/m", "--wait"))
        await look_again(looks)
        assert "No agent is connected yet: waiting for one." in capsys.readouterr().err
        agent = await Agent.dial(running)
        agent.send(hello())
        assert isinstance(await agent.hear(), wire.Welcome)
        state = await hear_state(agent)
        tell(agent, SERVING, state, state)
        assert await command == 0

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


# --- as processes -------------------------------------------------------------------------------


async def start_command(
    running: Running, *words: str, shell: str = "", **variables: str
) -> asyncio.subprocess.Process:
    """A command in a process of its own; ``shell``: what a shell adds, as redirections."""
    addresses = {
        "PADDLER_MANAGEMENT_ADDR": local(running.management),
        "PADDLER_INFERENCE_ADDR": local(running.inference),
    }
    command = shlex.join([sys.executable, "-P", "-m", "paddler", *words])
    return await asyncio.create_subprocess_exec(
        *("sh", "-c", f"exec {command} {shell}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | addresses | variables,
    )


@pytest.mark.parametrize(
    ("words", "shell", "code", "err"),
    [
        (["events"], "> /dev/full", 1, "Error: cannot write the output: No space left on device\n"),
        (["status"], "> /dev/full", 1, "Error: cannot write the output: No space left on device\n"),
        (["status"], ">&-", 0, ""),
        (["status", "--json"], ">&-", 0, ""),
        (["chat"], "<&-", 1, "Error: there is nothing to ask: the question is empty\n"),
        (["chat", "--system", "\udcff", "Hi"], "", 2, "Error: what is asked holds bytes that are "),
        (["model", "set", "/m", "--set", "top_k=["], "", 1, "Error: the balancer answered 400"),
        (["model", "set", "/m", "--set", f"top_k={'[' * 9999}"], "", 1, "Error: the balancer "),
        (["model", "set", "/m", "--set", f"top_k={'9' * 9999}"], "", 1, "Error: the balancer "),
        (["model", "set", "/m", "--set", "top_p=NaN"], "", 1, "Error: the balancer answered 400"),
    ],
)
def test_odd_input_and_output_is_one_line_at_most(
    words: list[str], shell: str, code: int, err: str
) -> None:
    async def test(running: Running) -> None:
        await Agent.join(running)
        command = await start_command(running, *words, shell=shell)
        _, said = await command.communicate()
        text = said.decode()
        assert (command.returncode, text[: len(err)]) == (code, err)
        assert text.count("\n") == (1 if err else 0)

    on_balancer(test)


def test_a_terminal_that_knows_no_emoji_gets_something_else() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        command = await start_command(running, "chat", "Hi", PYTHONIOENCODING="ascii")
        start = await agent.hear_start()
        agent.say(start.stream_id, FrameKind.CONTENT, "é🎉.".encode())
        agent.finish(start.stream_id)
        out, err = await command.communicate()
        assert (out, err, command.returncode) == (b"\\xe9\\U0001f389.\n", b"", 0)

    on_balancer(test)


def test_an_interrupted_answer_frees_its_slot_and_is_told_by_the_exit_code() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        command = await start_command(running, "chat", "Hi")
        start = await agent.hear_start()
        agent.say(start.stream_id, FrameKind.CONTENT, b"Once")
        assert command.stdout is not None
        assert await command.stdout.readexactly(4) == b"Once"
        command.send_signal(signal.SIGINT)
        assert await agent.hear() == wire.StopStream(start.stream_id)
        agent.finish(start.stream_id, "cancelled")
        out, err = await command.communicate()
        assert (out, err, command.returncode) == (b"\n", b"", 130)
        await wait_for(lambda: running.balancer.pool.slots_busy == 0)

    on_balancer(test)


@pytest.mark.parametrize(
    ("words", "number", "code"),
    [
        (["events", "--follow"], signal.SIGINT, 0),
        (["status", "--watch", "--json"], signal.SIGTERM, 0),
        (["model", "set", "/m", "--wait"], signal.SIGTERM, 143),
    ],
)
def test_a_signal_is_the_usual_end_of_what_has_no_other(
    words: list[str], number: signal.Signals, code: int
) -> None:
    async def test(running: Running) -> None:
        await Agent.join(running)
        command = await start_command(running, *words)
        assert command.stdout is not None
        assert await command.stdout.readline()
        command.send_signal(number)
        _, err = await command.communicate()
        assert (command.returncode, err) == (code, b"")

    on_balancer(test)


def test_whoever_has_read_enough_ends_an_answer() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        command = await start_command(running, "chat", "Hi", shell="| head -c 4")
        start = await agent.hear_start()
        agent.say(start.stream_id, FrameKind.CONTENT, b"Once upon")
        stopped = asyncio.create_task(agent.hear())
        while not stopped.done():  # one of the next words finds nobody, and ends the command
            agent.say(start.stream_id, FrameKind.CONTENT, b" and then")
            await asyncio.sleep(0.01)
        assert await stopped == wire.StopStream(start.stream_id)
        agent.finish(start.stream_id, "cancelled")
        assert await command.communicate() == (b"Once", b"")

    on_balancer(test)


def test_embeddings_mode_is_told() -> None:
    async def test(running: Running) -> None:
        state = msgspec.to_builtins(DEFAULT_DESIRED_STATE)
        state["inference_parameters"]["enable_embeddings"] = True
        await running.put_state(state)
        command = await start_command(running, "chat", "Hi")
        _, err = await command.communicate()
        assert command.returncode == 1
        assert err.startswith(b"Error: the balancer answered 501: Token generation is disabled")

    on_balancer(test)
