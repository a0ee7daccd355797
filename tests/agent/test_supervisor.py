"""The supervisor with real worker processes and the real model."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paddler.agent.supervisor import Supervisor, WorkerGone
from paddler.messages import link
from paddler.messages import worker as wire
from paddler.messages.inference import ContinueFromRawPrompt
from paddler.messages.state import DEFAULT_INFERENCE_PARAMETERS


class Listener:
    """Remembers what the worker did."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.finished: list[int] = []
        self.progress: list[wire.Progress] = []
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.heard = asyncio.Event()

    def on_worker_data(self, data: bytes, finished: tuple[int, ...]) -> None:
        self.data.append(data)
        self.finished += finished
        self.heard.set()

    def on_worker_progress(self, progress: wire.Progress) -> None:
        self.progress.append(progress)

    def on_worker_opened(self, opened: wire.Opened) -> None:
        self.opened = opened

    def on_worker_gone(self, reason: str) -> None:
        self.gone.set_result(reason)


def load(path: Path) -> wire.Load:
    return wire.Load(
        agent_label="unnamed agent",
        slots=2,
        threads=1,
        model_path=str(path),
        projection_path=None,
        chat_template=None,
        parameters=msgspec.structs.replace(DEFAULT_INFERENCE_PARAMETERS, context_size=512),
    )


def start(stream_id: int, max_tokens: int) -> bytes:
    job = link.RawPromptJob(ContinueFromRawPrompt(raw_prompt="Once", max_tokens=max_tokens))
    return link.encode(link.StartStream(stream_id=stream_id, job=job))


def supervised(
    test: Callable[[Supervisor, Listener], Coroutine[Any, Any, None]], **options: Any
) -> None:
    async def body() -> None:
        listener = Listener()
        supervisor = Supervisor(listener, **options)
        descriptors = len(os.listdir("/proc/self/fd"))
        try:
            await test(supervisor, listener)
        finally:
            await supervisor.stop()
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # the child watcher's
        assert supervisor.pid is None

    asyncio.run(body())


def test_a_worker_loads_answers_and_stops(smollm2_path: Path) -> None:
    async def test(supervisor: Supervisor, listener: Listener) -> None:
        ready = await supervisor.start(load(smollm2_path))
        assert isinstance(ready, wire.Ready)
        assert (ready.slots, ready.context_size) == (2, 512)
        assert listener.opened.metadata["general.architecture"] == "llama"
        supervisor.send(start(7, 3))
        while not listener.finished:
            listener.heard.clear()
            await listener.heard.wait()
        assert listener.finished == [7]

    supervised(test)


def test_a_killed_worker_is_told_with_its_signal(smollm2_path: Path) -> None:
    async def test(supervisor: Supervisor, listener: Listener) -> None:
        await supervisor.start(load(smollm2_path))
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGKILL)
        assert await listener.gone == "worker killed by signal 9 (SIGKILL)"
        assert not supervisor.is_running
        assert isinstance(await supervisor.start(load(smollm2_path)), wire.Ready)

    supervised(test)


def test_a_stalled_worker_is_ended(smollm2_path: Path) -> None:
    async def test(supervisor: Supervisor, listener: Listener) -> None:
        await supervisor.start(load(smollm2_path))
        supervisor.send(start(1, 400))
        await listener.heard.wait()
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGSTOP)
        assert await listener.gone == "worker killed by signal 9 (SIGKILL)"

    supervised(test, stalled_after_s=2.0)


def test_a_worker_that_is_stuck_without_a_request_is_ended(smollm2_path: Path) -> None:
    async def test(supervisor: Supervisor, listener: Listener) -> None:
        await supervisor.start(load(smollm2_path))
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGSTOP)
        assert await listener.gone == "worker killed by signal 9 (SIGKILL)"

    supervised(test, stalled_after_s=1.0)


def test_a_held_worker_is_not_taken_for_a_stuck_one_and_its_death_is_noticed(
    smollm2_path: Path,
) -> None:
    async def test(supervisor: Supervisor, listener: Listener) -> None:
        await supervisor.start(load(smollm2_path))
        supervisor.hold(True)
        await asyncio.sleep(2.5)  # past the limit: time itself is what is tested
        assert supervisor.is_running
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGKILL)
        assert await listener.gone == "worker killed by signal 9 (SIGKILL)"

    supervised(test, stalled_after_s=1.0)


def test_loading_tells_how_far_it_is(smollm2_path: Path) -> None:
    async def test(supervisor: Supervisor, listener: Listener) -> None:
        await supervisor.start(load(smollm2_path))
        assert {progress.phase for progress in listener.progress} == {"loading", "warming"}
        assert listener.progress[-1].fraction == 1.0

    supervised(test)


def test_data_from_before_a_reset_is_dropped(smollm2_path: Path) -> None:
    async def test(supervisor: Supervisor, listener: Listener) -> None:
        await supervisor.start(load(smollm2_path))
        supervisor.send(start(1, 400))
        await listener.heard.wait()
        supervisor.reset()
        listener.data.clear()
        supervisor.send(start(2, 3))
        while 2 not in listener.finished:
            listener.heard.clear()
            await listener.heard.wait()
        assert 1 not in listener.finished
        heard_ids = {link.FRAME_HEADER.unpack_from(data)[0] for data in listener.data}
        assert heard_ids == {2}

    supervised(test)


def test_a_file_that_is_no_model_is_told_as_an_issue(tmp_path: Path) -> None:
    async def test(supervisor: Supervisor, listener: Listener) -> None:
        path = tmp_path / "broken.gguf"
        path.write_bytes(b"GGUF broken")
        answer = await supervisor.start(load(path))
        assert isinstance(answer, wire.LoadFailed)
        assert msgspec.to_builtins(answer.issues) == (
            {"ModelCannotBeLoaded": {"model_path": str(path)}},
        )

    supervised(test)


def test_a_worker_that_dies_while_loading_is_an_error(smollm2_path: Path) -> None:
    async def test(supervisor: Supervisor, listener: Listener) -> None:
        starting = asyncio.create_task(supervisor.start(load(smollm2_path)))
        while supervisor.pid is None:
            await asyncio.sleep(0)
        os.kill(supervisor.pid, signal.SIGKILL)
        with pytest.raises(WorkerGone, match="signal 9"):
            await starting
        assert not listener.gone.done()

    supervised(test)


def test_a_cancelled_start_leaves_no_process(smollm2_path: Path) -> None:
    async def test(supervisor: Supervisor, listener: Listener) -> None:
        starting = asyncio.create_task(supervisor.start(load(smollm2_path)))
        while supervisor.pid is None:
            await asyncio.sleep(0)
        pid = supervisor.pid
        starting.cancel()
        await asyncio.wait((starting,))
        assert not Path(f"/proc/{pid}").exists()

    supervised(test)
