"""The loop over a real pipe: in a thread with a scripted engine, and as the real process."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from paddler.agent.slot_table import SharedSlotTable, SlotState, create_slot_memory
from paddler.agent.worker.aside import Aside
from paddler.agent.worker.channel import Channel, ParentLeft
from paddler.agent.worker.chat_template import ChatTemplate
from paddler.agent.worker.engine import ScriptedEngine
from paddler.agent.worker.main import serve
from paddler.agent.worker.prompts import PromptMaker
from paddler.agent.worker.streams import Streams
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ContinueFromRawPrompt,
    ConversationMessage,
)
from paddler.messages.link import ConversationJob, RawPromptJob, Sampling, StartStream, StopStream
from paddler.messages.state import DEFAULT_INFERENCE_PARAMETERS
from paddler.messages.worker import (
    Load,
    LoadFailed,
    Opened,
    Progress,
    Ready,
    Reset,
    ResetDone,
    Stop,
)
from tests.agent.worker.frames import Data, WorkerEnd
from tests.tiny_gguf import write_tiny_gguf

GREEDY = Sampling(temperature=0.0, presence_penalty=0.0)
SEEDED_GREEDY = Sampling(temperature=0.0, presence_penalty=0.0, seed=1)


def start(
    stream_id: int, prompt: str, max_tokens: int = 100, sampling: Sampling | None = None
) -> StartStream:
    request = ContinueFromRawPrompt(raw_prompt=prompt, max_tokens=max_tokens)
    job = RawPromptJob(request)
    return StartStream(stream_id=stream_id, job=job, sampling=sampling or Sampling())


def ask(stream_id: int, question: str, max_tokens: int, sampling: Sampling) -> StartStream:
    request = ContinueFromConversationHistory(
        add_generation_prompt=True,
        conversation_history=[ConversationMessage("user", question)],
        enable_thinking=False,
        max_tokens=max_tokens,
    )
    return StartStream(stream_id=stream_id, job=ConversationJob(request), sampling=sampling)


# --- in a thread, with a scripted engine --------------------------------------------------------


@contextmanager
def serving(engine: ScriptedEngine, slots: int) -> Iterator[WorkerEnd]:
    ours, theirs = socket.socketpair()
    fd = create_slot_memory(slots)
    table = SharedSlotTable(fd, slots)
    os.close(fd)
    prompts = PromptMaker(
        "unnamed agent",
        ChatTemplate("", bos_token="", eos_token="", nl_token=""),
        prepare_images=lambda _: [],
        sees_images=False,
    )
    streams = Streams(engine, prompts, table, agent_label="unnamed agent")

    def run() -> None:
        with suppress(ParentLeft), Aside() as aside:
            serve(Channel(ours), streams, aside)

    worker = threading.Thread(target=run)
    worker.start()
    with ours:
        with theirs:
            yield WorkerEnd(theirs)
        worker.join(30)
        assert not worker.is_alive()
    table.close()


def test_one_packet_per_step_carries_all_streams() -> None:
    engine = ScriptedEngine(slots=2, answers={"a": b"12", "b": b"34"})
    with serving(engine, 2) as parent:
        parent.send(start(1, "a"), start(2, "b"))
        packets = [parent.receive_data() for _ in range(3)]
    assert [[frame.stream_id for frame in packet.frames] for packet in packets] == [[1, 2]] * 3
    assert [packet.finished for packet in packets] == [(), (), (1, 2)]


def test_refusal_comes_while_nothing_runs() -> None:
    with serving(ScriptedEngine(), 4) as parent:
        parent.send(start(1, ""))
        assert "is empty" in parent.answers(1)[1].error["SamplerError"]


def test_streams_come_and_go_on_one_pipe() -> None:
    with serving(ScriptedEngine(slots=2), 2) as parent:
        for round_number in range(20):
            first, second = 2 * round_number, 2 * round_number + 1
            parent.send(start(first, "hello"), start(second, "world"))
            answers = parent.answers(first, second)
            assert (answers[first].text, answers[second].text) == ("hello", "world")


def test_stop_stream_ends_it_while_others_go_on() -> None:
    engine = ScriptedEngine(slots=2, context_size=10**6, answers={"a": b"x" * 10**5, "b": b"ok"})
    with serving(engine, 2) as parent:
        parent.send(start(1, "a", 10**6))
        parent.receive_data()
        parent.send(StopStream(1), StopStream(77), start(2, "b"))
        answers = parent.answers(1, 2)
    assert answers[1].reason == "cancelled"
    assert answers[2].text == "ok"


def test_nothing_of_old_streams_follows_a_reset() -> None:
    engine = ScriptedEngine(slots=2, context_size=10**6, answers={"a": b"x" * 10**5, "b": b"ok"})
    with serving(engine, 2) as parent:
        parent.send(start(1, "a"), start(2, "a"))
        parent.receive_data()
        parent.send(Reset(5), start(3, "b"))
        while isinstance(received := parent.receive(), Data):
            assert {frame.stream_id for frame in received.frames} == {1, 2}
        assert received == ResetDone(5)
        assert parent.answers(3)[3].text == "ok"


# --- the process --------------------------------------------------------------------------------


def load_command(path: Path, *, slots: int, kv_unified: bool = True, **parameters: Any) -> Load:
    return Load(
        agent_label='agent "a"',
        slots=slots,
        threads=2,
        model_path=str(path),
        projection_path=None,
        chat_template=None,
        parameters=msgspec.structs.replace(
            DEFAULT_INFERENCE_PARAMETERS, **{"context_size": 2048} | parameters
        ),
        kv_unified=kv_unified,
    )


class Process:
    def __init__(self, slots: int, **environ: str) -> None:
        ours, theirs = socket.socketpair()
        fd = create_slot_memory(slots)
        self.table = SharedSlotTable(fd, slots)
        command = [sys.executable, "-m", "paddler.agent.worker.main"]
        command += ["--socket-fd", str(theirs.fileno())]
        command += ["--slots-fd", str(fd), "--slots", str(slots)]
        self.popen = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno(), fd],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environ,
        )
        theirs.close()
        os.close(fd)
        self.parent = WorkerEnd(ours)

    def load(self, path: Path, **changes: Any) -> Ready | LoadFailed:
        self.parent.send(load_command(path, slots=self.table.slots, **changes))
        while isinstance(received := self.parent.receive(), Progress | Opened):
            pass
        assert isinstance(received, Ready | LoadFailed)
        return received

    def wait(self) -> tuple[int, str]:
        """Exit code and log, once the process has ended."""
        _, log = self.popen.communicate(timeout=30)
        return self.popen.returncode, log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.parent.sock.close()
        with suppress(ValueError):  # communicate() was called: its pipes are closed
            self.wait()
        self.table.close()


@pytest.fixture
def process() -> Iterator[Process]:
    with Process(2, PADDLER_LOG="debug") as process:
        yield process


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf")


@pytest.fixture(scope="module", params=[True, False], ids=["unified", "divided"])
def smollm2(request: pytest.FixtureRequest, smollm2_path: Path) -> Iterator[Process]:
    with Process(4) as process:
        ready = process.load(smollm2_path, penalty_repeat=1.0, kv_unified=request.param)
        assert isinstance(ready, Ready)
        assert ready.slot_context_size == (2048 if request.param else 512)
        yield process


def test_closed_pipe_ends_the_process(process: Process) -> None:
    process.parent.sock.close()
    assert process.wait()[0] == 0


def test_stop_ends_the_process_while_streams_run(process: Process, tiny: Path) -> None:
    process.load(tiny)
    process.parent.send(start(1, "x", 10**6))
    process.parent.receive_data()
    process.parent.send(Stop())
    assert process.wait()[0] == 0


def test_load_failure_is_told_and_ends_the_process(process: Process, tmp_path: Path) -> None:
    failed = process.load(tmp_path / "missing.gguf")
    assert isinstance(failed, LoadFailed)
    assert "missing.gguf" in failed.reason
    assert process.wait()[0] == 0


def test_what_stops_the_agents_process_group_leaves_its_end_to_the_agent(
    process: Process, tiny: Path
) -> None:
    process.load(tiny)
    process.popen.send_signal(signal.SIGINT)
    process.popen.send_signal(signal.SIGTERM)
    process.parent.send(start(1, "x", 3))
    assert process.parent.answers(1)[1].usage.completion_tokens <= 3
    process.parent.send(Stop())
    assert process.wait()[0] == 0


def test_command_before_load_breaks_the_protocol(process: Process) -> None:
    process.parent.send(Reset(1))
    code, log = process.wait()
    assert code == 1
    assert "it must be a Load" in log


def test_log_lines_have_time_level_and_module(process: Process, tiny: Path) -> None:
    process.load(tiny)
    process.parent.send(Stop())
    lines = process.wait()[1].splitlines()
    shape = re.compile(r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (DEBUG|INFO|WARN) [\w.]+\] .+")
    assert [line for line in lines if not shape.fullmatch(line)] == []
    assert any("DEBUG llama.cpp]" in line for line in lines)


def test_parents_death_ends_the_process_though_its_pipe_is_open(tiny: Path) -> None:
    """The parent here is a process between; we hold the pipe, so only its death can tell."""
    ours, theirs = socket.socketpair()
    fd = create_slot_memory(1)
    fds = [theirs.fileno(), fd]
    script = f"""import subprocess, sys
subprocess.Popen([sys.executable, "-m", "paddler.agent.worker.main", "--slots", "1",
                  "--socket-fd", "{fds[0]}", "--slots-fd", "{fds[1]}"], pass_fds={fds})
sys.stdin.read(1)"""
    between = subprocess.Popen([sys.executable, "-c", script], pass_fds=fds, stdin=subprocess.PIPE)
    theirs.close()
    os.close(fd)
    with ours, between:
        parent = WorkerEnd(ours)
        parent.send(load_command(tiny, slots=1))
        while not isinstance(parent.receive(), Ready):
            pass
        between.kill()
        with pytest.raises(EOFError):
            parent.receive()


# --- the process, with the real model -----------------------------------------------------------


def test_real_model_answers_a_question(smollm2: Process) -> None:
    smollm2.parent.send(ask(1, "Say hello.", 100, GREEDY))
    answer = smollm2.parent.answers(1)[1]
    assert "Hello" in answer.text
    assert answer.reason == "stop"
    assert answer.usage.completion_tokens == len(answer.texts) + 1
    assert {row.state for row in smollm2.table.rows()} == {SlotState.IDLE}


def test_real_model_yields_exactly_max_tokens(smollm2: Process) -> None:
    smollm2.parent.send(ask(2, "Tell me a very long story.", 5, GREEDY))
    answer = smollm2.parent.answers(2)[2]
    assert (len(answer.texts), answer.reason) == (5, "length")


def test_real_model_reuses_the_prefix_of_a_repeated_question(smollm2: Process) -> None:
    answers = []
    for stream_id in (3, 4):
        smollm2.parent.send(ask(stream_id, "Name three colours of the rainbow.", 8, GREEDY))
        answers.append(smollm2.parent.answers(stream_id)[stream_id])
    assert answers[0].text == answers[1].text
    assert answers[1].usage.cached_prompt_tokens == answers[1].usage.prompt_tokens - 1


def test_real_model_says_the_same_behind_a_beginning_of_another_slot(smollm2: Process) -> None:
    # Longer than what is worth a copy; the first tokens are no other test's.
    common = "Here is the story of a cat, a dog and a bird. " * 8
    alone = []
    for name in ("cat", "dog"):
        # With a seed, all of it is computed.
        smollm2.parent.send(ask(1, f"{common}Who is the {name}?", 12, SEEDED_GREEDY))
        alone.append(smollm2.parent.answers(1)[1])
    smollm2.parent.send(
        *(
            ask(at, f"{common}Who is the {name}?", 12, GREEDY)
            for at, name in ((2, "cat"), (3, "dog"))
        )
    )
    together = smollm2.parent.answers(2, 3)
    assert [together[at].text for at in (2, 3)] == [answer.text for answer in alone]
    assert [answer.usage.cached_prompt_tokens for answer in alone] == [0, 0]
    assert all(together[at].usage.cached_prompt_tokens > 90 for at in (2, 3))


def test_real_model_repeats_what_it_said_for_a_seed(smollm2: Process) -> None:
    seeded = Sampling(seed=5, temperature=1.5)
    said = []
    for noise in range(3):
        smollm2.parent.send(ask(1, "Tell me something.", 20, seeded))
        said.append(smollm2.parent.answers(1)[1].text)
        smollm2.parent.send(
            *(ask(at, f"Noise {noise}, {at}. " * 5 * noise, 5, Sampling()) for at in (2, 3))
        )
        smollm2.parent.answers(2, 3)
    assert said[0] == said[1] == said[2]


def test_real_model_serves_streams_at_once_and_refuses_one_too_many(smollm2: Process) -> None:
    smollm2.parent.send(
        *(ask(stream_id, "Count to ten.", 8, Sampling()) for stream_id in range(10, 15))
    )
    answers = smollm2.parent.answers(*range(10, 15))
    assert answers.pop(14).error == {
        "SamplerError": 'agent "a": no available sequence slots, all slots are busy'
    }
    assert all(answer.usage.completion_tokens <= 8 for answer in answers.values())


def test_real_model_ends_who_fills_its_own_part_and_no_other(smollm2_path: Path) -> None:
    for_ever = Sampling(temperature=0.0, logit_bias={38634: 100.0})
    with Process(2) as process:
        process.load(smollm2_path, context_size=512, penalty_repeat=1.0, kv_unified=False)
        process.parent.send(ask(1, "one two three four " * 75, 5, GREEDY))
        error = process.parent.answers(1)[1].error["SamplerError"]
        assert error.startswith("Request evicted due to KV cache pressure: the prompt has ")
        assert error.endswith(" tokens or more, the context of a slot 256")
        process.parent.send(
            start(2, "one two three four " * 55, 1000, for_ever), start(3, "Say", 200, for_ever)
        )
        answers = process.parent.answers(2, 3)
        process.parent.send(ask(4, "Say hello.", 5, GREEDY))
        after = process.parent.answers(4)[4]
    assert answers[2].error == {"SamplerError": "Request evicted due to KV cache pressure"}
    assert (answers[3].reason, answers[3].usage.completion_tokens) == ("length", 200)
    assert after.usage.completion_tokens <= 5


def test_real_model_with_a_full_context_evicts_the_longest(smollm2_path: Path) -> None:
    long = "one two three four " * 55
    with Process(2) as process:
        process.load(smollm2_path, context_size=256, penalty_repeat=1.0)
        process.parent.send(
            # One token for ever: what the model itself goes on with may come to an end before.
            start(1, long, 1000, Sampling(temperature=0.0, logit_bias={38634: 100.0})),
            ask(2, "Say hello.", 5, GREEDY),
        )
        answers = process.parent.answers(1, 2)
    assert answers[1].error == {"SamplerError": "Request evicted due to KV cache pressure"}
    assert answers[2].usage.completion_tokens <= 5
