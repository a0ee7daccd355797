"""What the agent does to run what is wanted, with a supervisor played by the test."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from paddler.agent.activity import ActivityBoard, Phase
from paddler.agent.jobs import Jobs
from paddler.agent.reconcile import HEALTHY_AFTER_S, Reconciler, RetryPace
from paddler.agent.status import StatusBoard
from paddler.agent.supervisor import WorkerGone
from paddler.messages import link as link_wire
from paddler.messages import worker as wire
from paddler.messages.agents import AgentIssue, AgentStatus, ModelPath
from paddler.messages.state import (
    DEFAULT_INFERENCE_PARAMETERS,
    ApplicableState,
    ChatTemplate,
    ModelSource,
)
from tests.agent.test_jobs import Recorder, start

READY = wire.Ready(slots=2, context_size=512, slot_context_size=256, devices=[], notes=[])


class PlayedSupervisor:
    """Answers loads from a script; ``Ready`` when the script is used up."""

    def __init__(self) -> None:
        self.is_running = False
        self.loads: list[wire.Load] = []
        self.script: list[wire.LoadFailed | WorkerGone | asyncio.Event] = []

    async def start(self, load: wire.Load) -> wire.Ready | wire.LoadFailed:
        self.loads.append(load)
        step = self.script.pop(0) if self.script else READY
        if isinstance(step, asyncio.Event):
            await step.wait()
            step = READY
        if isinstance(step, WorkerGone):
            raise step
        self.is_running = isinstance(step, wire.Ready)
        return step

    async def stop(self) -> None:
        self.is_running = False


class Bench:
    """A reconciler at work, and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.board = StatusBoard(2)
        self.reports: list[AgentStatus] = []
        self.board.watch(self.reports.append)
        self.jobs = Jobs()
        self.recorder = Recorder()
        self.jobs.connect(self.recorder, self.recorder)
        self.supervisor = PlayedSupervisor()
        self.activity = ActivityBoard()
        self.phases: list[Phase] = []
        self.applied: list[ApplicableState | None] = []
        self.activity.watch(lambda: self.phases.append(self.activity.now.phase))
        self.reconciler = Reconciler(
            self.board,
            self.activity,
            self.jobs,
            self.supervisor,  # type: ignore[arg-type]
            agent_label='agent "a"',
            threads=1,
            kv_unified=False,
            on_applied=lambda: self.applied.append(self.reconciler.wanted),
            draw=lambda: 0.0,
        )
        self.model = folder / "model.gguf"
        self.model.touch()

    @property
    def status(self) -> AgentStatus:
        return self.board.status

    def want(self, path: Path | str | None = None, **changes: Any) -> None:
        self.reconciler.want(state(path or self.model, **changes), is_default=False)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)  # between two looks, for those that wait for a retry

    async def until_serving(self) -> None:
        await self.until(lambda: self.status.slots_total == 2)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


def state(path: Path | str, *, template: str | None = None) -> ApplicableState:
    return ApplicableState(
        chat_template_override=ChatTemplate(template) if template is not None else None,
        inference_parameters=DEFAULT_INFERENCE_PARAMETERS,
        model=ModelSource(local_to_agent=str(path)),
        multimodal_projection="None",
    )


NO_MODEL = ApplicableState(
    chat_template_override=None,
    inference_parameters=DEFAULT_INFERENCE_PARAMETERS,
    model="None",
    multimodal_projection="None",
)


@pytest.fixture
def on_bench(tmp_path: Path) -> Callable[[Callable[[Bench], Coroutine[Any, Any, None]]], None]:
    def run(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
        async def body() -> None:
            bench = Bench(tmp_path)
            task = asyncio.create_task(bench.reconciler.run())
            try:
                await test(bench)
            finally:
                assert not task.done(), task.result()
                task.cancel()
                await asyncio.wait((task,))
                assert not bench.supervisor.is_running

        asyncio.run(body())

    return run


OnBench = Callable[[Callable[[Bench], Coroutine[Any, Any, None]]], None]


def test_without_a_state_the_agent_is_applied_and_idle(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        await bench.until(lambda: bench.status.state_application_status == "Applied")
        assert bench.status.slots_total == 0
        assert bench.supervisor.loads == []

    on_bench(test)


def test_a_wanted_model_is_loaded_and_served(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.want(template="{{ messages }}")
        await bench.until_serving()
        (load,) = bench.supervisor.loads
        assert (load.model_path, load.chat_template) == (str(bench.model), "{{ messages }}")
        assert not load.kv_unified
        assert bench.status.model_path == str(bench.model)
        assert bench.status.state_application_status == "Applied"
        assert bench.status.uses_chat_template_override
        bench.jobs.start(start(1))
        assert len(bench.jobs) == 1

    on_bench(test)


def test_the_same_state_again_changes_nothing(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.want()
        await bench.until_serving()
        reports = len(bench.reports)
        bench.want()
        await bench.settle()
        assert len(bench.supervisor.loads) == 1
        assert len(bench.reports) == reports

    on_bench(test)


def test_a_state_is_applied_once_it_runs_and_not_before(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        loading = asyncio.Event()
        bench.supervisor.script = [loading]
        bench.want()
        await bench.until(lambda: bool(bench.supervisor.loads))
        assert not bench.reconciler.is_applied
        loading.set()
        await bench.until_serving()
        assert bench.reconciler.is_applied
        assert bench.applied[-1] == state(bench.model)
        other = bench.model.with_name("other.gguf")
        bench.want(other)  # it is not there yet, so the old model serves on
        await bench.until(lambda: bool(bench.status.issues))
        assert not bench.reconciler.is_applied
        bench.want()
        await bench.until(lambda: bench.reconciler.is_applied)
        assert len(bench.supervisor.loads) == 1
        assert bench.applied[-1] == state(bench.model)
        bench.reconciler.want(NO_MODEL, is_default=False)
        await bench.until(lambda: bench.reconciler.is_applied)
        assert (bench.applied[-1], bench.status.model_path) == (NO_MODEL, None)

    on_bench(test)


def test_a_swap_reports_no_slots_and_waits_for_running_requests(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.want()
        await bench.until_serving()
        bench.jobs.start(start(1))
        bench.want(template="other")
        await bench.until(lambda: bench.status.slots_total == 0)
        await bench.settle()
        assert bench.supervisor.is_running
        bench.jobs.start(start(2))
        assert len(bench.recorder.to_balancer) == 1  # handed back
        bench.jobs.on_worker_data(b"", (1,))
        await bench.until_serving()
        assert len(bench.supervisor.loads) == 2

    on_bench(test)


def test_a_change_of_mind_during_a_drain_resumes_what_runs(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.want()
        await bench.until_serving()
        bench.jobs.start(start(1))
        bench.want(template="other")
        await bench.until(lambda: bench.status.slots_total == 0)
        bench.want()
        await bench.until_serving()
        assert len(bench.supervisor.loads) == 1
        bench.jobs.start(start(2))
        assert len(bench.jobs) == 2

    on_bench(test)


def test_a_newer_state_replaces_a_load_in_progress(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.supervisor.script = [asyncio.Event()]  # never loads
        bench.want()
        await bench.until(lambda: len(bench.supervisor.loads) == 1)
        bench.want(template="other")
        await bench.until_serving()
        assert [load.chat_template for load in bench.supervisor.loads] == [None, "other"]

    on_bench(test)


def test_the_agents_end_during_a_load_is_not_mistaken_for_a_newer_state(tmp_path: Path) -> None:
    async def body() -> None:
        bench = Bench(tmp_path)
        bench.supervisor.script = [asyncio.Event()]  # never loads
        task = asyncio.create_task(bench.reconciler.run())
        bench.want()
        await bench.until(lambda: len(bench.supervisor.loads) == 1)
        bench.want(template="other")  # both at once
        task.cancel()
        await asyncio.wait((task,), timeout=10)
        assert task.cancelled()
        assert len(bench.supervisor.loads) == 1

    asyncio.run(body())


def test_the_agents_end_is_not_forgotten_when_news_come_as_well(tmp_path: Path) -> None:
    async def body() -> None:
        bench = Bench(tmp_path)
        bench.supervisor.script = [wire.LoadFailed((), "no GGUF")]
        task = asyncio.create_task(bench.reconciler.run())
        bench.want()
        await bench.until(lambda: bench.phases[-1:] == [Phase.RETRYING])
        bench.reconciler.freeze()  # both at once
        task.cancel()
        await asyncio.wait((task,), timeout=10)
        assert task.cancelled()

    asyncio.run(body())


def test_no_model_unloads(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.want()
        await bench.until_serving()
        bench.reconciler.want(NO_MODEL, is_default=False)
        await bench.until(lambda: not bench.supervisor.is_running)
        await bench.until(lambda: bench.status.state_application_status == "Applied")
        assert (bench.status.slots_total, bench.status.model_path) == (0, None)

    on_bench(test)


def test_a_balancer_that_lost_its_memory_does_not_unload(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.want()
        await bench.until_serving()
        bench.reconciler.want(NO_MODEL, is_default=True)
        await bench.settle()
        assert bench.supervisor.is_running
        bench.want()  # told again what it runs
        await bench.settle()
        assert len(bench.supervisor.loads) == 1

    on_bench(test)


def test_a_missing_file_is_an_issue_while_the_old_model_serves(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.want()
        await bench.until_serving()
        bench.want("/nowhere.gguf")
        issue = AgentIssue(model_file_does_not_exist=ModelPath("/nowhere.gguf"))
        await bench.until(lambda: bench.status.issues == (issue,))
        assert bench.status.slots_total == 2
        assert bench.status.state_application_status == "Applied"
        bench.want()
        await bench.until(lambda: bench.status.issues == ())
        assert len(bench.supervisor.loads) == 1

    on_bench(test)


@pytest.mark.parametrize("reason", ["reported", "died"])
def test_a_failed_load_keeps_its_issue_and_a_new_state_is_tried_at_once(
    on_bench: OnBench, reason: str
) -> None:
    async def test(bench: Bench) -> None:
        issue = AgentIssue(model_cannot_be_loaded=ModelPath(str(bench.model)))
        failure = wire.LoadFailed((issue,), "no GGUF") if reason == "reported" else WorkerGone("x")
        bench.supervisor.script = [failure]
        bench.want()
        await bench.until(lambda: bench.status.issues == (issue,))
        assert bench.status.state_application_status == "AttemptedAndRetrying"
        assert bench.status.slots_total == 0
        bench.want(template="other")
        await bench.until_serving()
        assert bench.status.issues == ()

    on_bench(test)


def test_what_never_loaded_is_given_up_while_the_new_files_are_not_there(
    on_bench: OnBench, tmp_path: Path
) -> None:
    async def test(bench: Bench) -> None:
        broken = AgentIssue(model_cannot_be_loaded=ModelPath(str(bench.model)))
        bench.supervisor.script = [wire.LoadFailed((broken,), "no GGUF")] * 9
        bench.want()
        await bench.until(lambda: bench.status.issues == (broken,))
        late = tmp_path / "late.gguf"
        bench.want(late)
        missing = AgentIssue(model_file_does_not_exist=ModelPath(str(late)))
        await bench.until(lambda: bench.status.issues == (missing,))
        loads = len(bench.supervisor.loads)
        bench.supervisor.script = []
        late.touch()
        await bench.until_serving()
        assert [load.model_path for load in bench.supervisor.loads[loads:]] == [str(late)]
        assert bench.status.issues == ()

    on_bench(test)


def test_a_worker_that_dies_in_service_is_replaced_at_once(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.want()
        await bench.until_serving()
        bench.supervisor.is_running = False
        bench.reconciler.on_worker_gone("killed")
        assert bench.status.slots_total == 0  # before anything else is sent
        assert bench.status.state_application_status == "AttemptedAndRetrying"
        await bench.until_serving()
        assert len(bench.supervisor.loads) == 2
        assert bench.status.state_application_status == "Applied"

    on_bench(test)


def test_a_worker_that_keeps_dying_in_service_is_replaced_ever_later(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.want()
        for _ in range(2):
            await bench.until_serving()
            bench.supervisor.is_running = False
            bench.reconciler.on_worker_gone("killed")
        await bench.settle()
        assert len(bench.supervisor.loads) == 2
        assert bench.activity.now.phase is Phase.RETRYING
        await bench.until_serving()

    on_bench(test)


def test_requests_are_handed_back_while_a_dead_worker_is_replaced(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.want()
        await bench.until_serving()
        bench.reconciler.on_worker_gone("killed")
        bench.jobs.start(start(5))
        (message,) = bench.recorder.to_balancer
        assert message.startswith(link_wire.FRAME_HEADER.pack(5, 11, 1, 0, 19))

    on_bench(test)


def test_retries_wait_longer_and_longer_and_forget_after_healthy_service() -> None:
    now = 0.0
    pace = RetryPace(lambda: now, lambda: 1.0)
    assert [pace.on_failure(was_serving=False) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    pace.reset()
    assert [pace.on_failure(was_serving=True) for _ in range(4)] == [0, 1, 2, 4]
    pace.on_serving()
    now = HEALTHY_AFTER_S
    assert pace.on_failure(was_serving=True) == 0


def test_retries_of_a_fleet_do_not_come_in_step() -> None:
    draws = iter((0.0, 0.5))
    pace = RetryPace(lambda: 0.0, lambda: next(draws))
    assert [pace.on_failure(was_serving=False) for _ in range(2)] == [0.5, 1.5]


def test_each_phase_is_seen(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        failure = wire.LoadFailed((), "no GGUF")
        bench.supervisor.script = [failure]
        bench.want()
        await bench.until(lambda: bench.phases[-1:] == [Phase.RETRYING])
        bench.want(template="other")
        await bench.until_serving()
        bench.reconciler.want(NO_MODEL, is_default=False)
        await bench.until(lambda: bench.phases[-1] is Phase.IDLE)
        swap = [Phase.DRAINING, Phase.LOADING]
        assert bench.phases == [
            *swap,
            Phase.RETRYING,
            *swap,
            Phase.SERVING,
            Phase.DRAINING,
            Phase.IDLE,
        ]

    on_bench(test)


def test_a_load_that_keeps_failing_passes_through_the_statuses_with_a_steady_issue(
    on_bench: OnBench,
) -> None:
    async def test(bench: Bench) -> None:
        issue = AgentIssue(model_cannot_be_loaded=ModelPath(str(bench.model)))
        bench.supervisor.script = [wire.LoadFailed((issue,), "no GGUF")] * 2
        bench.want()
        await bench.until_serving()  # after two retries, 0.5 and 1 s later
        statuses = [report.state_application_status for report in bench.reports]
        assert list(dict.fromkeys(statuses)) == [
            "Applied",
            "Fresh",
            "AttemptedAndRetrying",
            "Stuck",
        ]
        assert statuses[-1] == "Applied"
        first = next(n for n, report in enumerate(bench.reports) if report.issues)
        assert {report.issues for report in bench.reports[first:-1]} == {(issue,)}
        assert bench.status.issues == ()

    on_bench(test)


def test_the_old_model_is_restarted_while_the_new_one_is_not_there(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.want()
        await bench.until_serving()
        bench.want("/nowhere.gguf")
        await bench.until(lambda: bench.status.issues != ())
        bench.supervisor.is_running = False
        bench.reconciler.on_worker_gone("killed")
        assert bench.status.slots_total == 0
        await bench.until_serving()
        assert [load.model_path for load in bench.supervisor.loads] == [str(bench.model)] * 2
        assert len(bench.status.issues) == 1

    on_bench(test)


def test_a_file_that_is_gone_when_its_worker_is_to_be_replaced_is_looked_for(
    on_bench: OnBench,
) -> None:
    async def test(bench: Bench) -> None:
        bench.want()
        await bench.until_serving()
        bench.model.unlink()
        bench.supervisor.is_running = False
        bench.reconciler.on_worker_gone("killed")
        issue = AgentIssue(model_file_does_not_exist=ModelPath(str(bench.model)))
        await bench.until(lambda: bench.status.issues == (issue,))
        bench.model.touch()
        await bench.until_serving()
        assert bench.status.issues == ()
        assert len(bench.supervisor.loads) == 2

    on_bench(test)


def test_a_frozen_reconciler_begins_nothing(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.want()
        await bench.until_serving()
        bench.reconciler.freeze()
        bench.want(template="other")
        await bench.settle()
        assert bench.supervisor.is_running
        bench.supervisor.is_running = False
        bench.reconciler.on_worker_gone("killed")
        await bench.settle()
        assert len(bench.supervisor.loads) == 1

    on_bench(test)


def test_freezing_gives_up_a_load_in_progress(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.supervisor.script = [asyncio.Event()]  # never loads
        bench.want()
        await bench.until(lambda: len(bench.supervisor.loads) == 1)
        bench.reconciler.freeze()
        await bench.settle()
        assert bench.status.slots_total == 0
        assert len(bench.supervisor.loads) == 1

    on_bench(test)


def test_a_balancer_that_lost_its_memory_does_not_end_a_search(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        missing = bench.model.with_name("later.gguf")
        bench.want(missing)
        await bench.until(lambda: bench.status.issues != ())
        bench.reconciler.want(NO_MODEL, is_default=True)
        missing.touch()
        await bench.until_serving()
        bench.reconciler.freeze()  # and with it the date at which it would be unloaded

    on_bench(test)
