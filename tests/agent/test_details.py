import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

from paddler.agent.activity import ActivityBoard, Phase
from paddler.agent.details import DetailsReporter, engine_version, resident_bytes
from paddler.messages import worker as wire
from paddler.messages.agents import AgentDetails
from paddler.messages.state import ApplicableState, fingerprint
from tests.agent.test_reconcile import NO_MODEL

READY = wire.Ready(
    slots=2, context_size=512, slot_context_size=256, devices=["CPU: x"], notes=["slow"]
)


class Stage:
    """A reporter whose reports are kept."""

    def __init__(self) -> None:
        self.activity = ActivityBoard()
        self.model: str | None = None
        self.wanted: ApplicableState | None = None
        self.is_applied = False
        self.reports: asyncio.Queue[AgentDetails] = asyncio.Queue()
        self.reporter = DetailsReporter(
            self.activity,
            threads=3,
            worker_pid=lambda: None,
            loaded_model=lambda: self.model,
            states=lambda: (self.wanted, self.is_applied),
            send=self.reports.put_nowait,
        )

    async def report(self) -> AgentDetails:
        async with asyncio.timeout(30):
            return await self.reports.get()


def played(test: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        stage = Stage()
        reporting = asyncio.create_task(stage.reporter.run())
        try:
            await test(stage)
        finally:
            reporting.cancel()

    asyncio.run(run())


def test_the_first_report_tells_what_is_known() -> None:
    async def test(stage: Stage) -> None:
        first = await stage.report()
        assert first.threads == 3
        assert first.phase == "idle"
        assert first.memory_bytes > 1_000_000
        assert first.started_at > 1_700_000_000
        assert (first.devices, first.context_size, first.worker_restarts) == ((), None, 0)
        assert first.slot_context_size is None

    played(test)


def test_what_changes_is_told_soon() -> None:
    async def test(stage: Stage) -> None:
        await stage.report()
        stage.model = "/m.gguf"
        stage.reporter.on_ready(READY)
        stage.activity.on_worker(Phase.SERVING)
        told = await stage.report()
        assert told.phase == "serving"
        assert told.loaded_model == "/m.gguf"
        assert (told.devices, told.notes) == (("CPU: x",), ("slow",))
        assert (told.context_size, told.slot_context_size) == (512, 256)
        stage.reporter.on_worker_gone()
        assert (await stage.report()).worker_restarts == 1

    played(test)


def test_a_state_is_told_when_it_is_wanted_and_when_it_runs() -> None:
    async def test(stage: Stage) -> None:
        first = await stage.report()
        assert (first.wanted_state, first.applied_state) == (None, None)
        stage.wanted = NO_MODEL
        stage.reporter.on_states()
        wanted = await stage.report()
        assert (wanted.wanted_state, wanted.applied_state) == (fingerprint(NO_MODEL), None)
        stage.is_applied = True
        stage.reporter.on_states()
        assert (await stage.report()).applied_state == fingerprint(NO_MODEL)

    played(test)


def test_every_welcome_but_the_first_is_a_reconnect() -> None:
    async def test(stage: Stage) -> None:
        stage.reporter.on_welcome()
        assert stage.reporter.details.reconnects == 0
        stage.reporter.on_welcome()
        assert stage.reporter.details.reconnects == 1

    played(test)


def test_the_engine_is_named_with_its_version() -> None:
    assert str(engine_version()).startswith("llama-cpp-python 0.")


def test_a_process_that_is_gone_holds_no_memory() -> None:
    assert resident_bytes(os.getpid()) > 1_000_000
    assert resident_bytes(2**22 + 1) == 0
