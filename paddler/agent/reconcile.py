"""From what the balancer asks for to what runs here.

    wanted state ─ find files ─► differs from what is loaded? ─ drain ─ swap worker ─► Applied
                      │ fails: the old model serves on,          │ fails: retried, ever slower,
                      │ an issue says why, looked at again       │ Retrying / Stuck in turns
                      └ every second                             └ at once for a new state

States are compared: asking again for what runs changes nothing. A newer state replaces
one in progress.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from paddler.agent.jobs import Jobs
from paddler.agent.model_files import ModelUnavailable, find_model, find_projection
from paddler.agent.status import StatusBoard
from paddler.agent.supervisor import Supervisor, WorkerGone
from paddler.messages import worker as wire
from paddler.messages.agents import AgentIssue, ModelPath
from paddler.messages.state import ApplicableState, InferenceParameters

log = logging.getLogger(__name__)

LOOK_AGAIN_S: Final = 1.0
FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 30.0
HEALTHY_AFTER_S: Final = 60.0
"""A worker that served this long did not die of its start: its failures are forgotten."""
KEEP_LOADED_S: Final = 300.0
"""How long a loaded model outlives a balancer that came back without any state."""


class Target(msgspec.Struct, frozen=True):
    """A state with its files found: what a worker is started with."""

    model_path: str
    projection_path: str | None
    chat_template: str | None
    parameters: InferenceParameters


class RetryPace:
    """How long to wait before the next try: not at all after the first failure, then doubling."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._serving_since: float | None = None

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._failures

    def on_serving(self) -> None:
        """A worker is up."""
        self._serving_since = self._clock()

    def on_failure(self, *, was_serving: bool) -> float:
        """Count a failure; seconds to wait before the next try.

        A load that failed will most likely fail again: it waits from the first time on. A
        worker that died while it served is replaced at once.
        """
        since = self._serving_since
        self._serving_since = None
        if since is not None and self._clock() - since >= HEALTHY_AFTER_S:
            self._failures = 0
        self._failures += 1
        tries = self._failures - (1 if was_serving else 0)
        return 0.0 if tries == 0 else min(FIRST_RETRY_S * 2 ** min(tries - 1, 10), MAX_RETRY_S)

    def reset(self) -> None:
        """A new state starts afresh."""
        self._failures = 0


class Reconciler:
    """Owns what is wanted and what is loaded. One task, :meth:`run`, does all the work."""

    def __init__(
        self,
        board: StatusBoard,
        jobs: Jobs,
        supervisor: Supervisor,
        *,
        agent_label: str,
        threads: int,
    ) -> None:
        self._board = board
        self._jobs = jobs
        self._supervisor = supervisor
        self._agent_label = agent_label
        self._threads = threads
        self._wanted: ApplicableState | None = None
        self._loaded: Target | None = None
        self._retry_at = 0.0
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pace = RetryPace(self._loop.time)
        self._unload_timer: asyncio.TimerHandle | None = None

    def want(self, state: ApplicableState, *, is_default: bool) -> None:
        """Take a state from the balancer; the newest counts.

        ``is_default``: nobody has told this balancer anything yet. A model that is loaded
        here then stays for a while, as the balancer may have lost its memory in a restart.
        """
        if self._unload_timer is not None:
            self._unload_timer.cancel()
            self._unload_timer = None
        if is_default and self._loaded is not None:
            log.warning(
                "the balancer has no state: keeping the loaded model for %d s", KEEP_LOADED_S
            )
            self._unload_timer = self._loop.call_later(KEEP_LOADED_S, self._want_now, state)
            return
        self._want_now(state)

    def on_worker_gone(self, reason: str) -> None:
        """A worker that served has died: report no slots at once, then start it again."""
        self._board.change(slots_total=0, state_application_status="AttemptedAndRetrying")
        self._jobs.close_intake(reason)
        self._loaded = None
        self._schedule_retry(was_serving=True)
        self._wake.set()

    async def run(self) -> None:
        """Reconcile until cancelled; the worker is ended then."""
        self._board.change(state_application_status="Applied")
        try:
            while True:
                self._wake.clear()
                await self._wait_for_news(await self._reconcile())
        finally:
            await self._supervisor.stop()

    def _want_now(self, state: ApplicableState) -> None:
        if state != self._wanted:
            self._wanted = state
            self._pace.reset()
            self._retry_at = 0.0
            self._wake.set()

    async def _wait_for_news(self, for_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), for_s)

    async def _reconcile(self) -> float | None:
        """Do what is to be done now; seconds until to look again, ``None`` for no date."""
        state = self._wanted
        if state is None:
            return None
        try:
            target = resolve(state)
        except ModelUnavailable as error:
            if error.issue not in self._board.status.issues:
                log.error("%s", error)
            self._board.change(issues=(error.issue,))
            return LOOK_AGAIN_S
        self._board.change(uses_chat_template_override=state.chat_template_override is not None)
        if target == self._loaded and (target is None or self._supervisor.is_running):
            self._resume(target)
            return None
        if (wait_s := self._retry_at - self._loop.time()) > 0:
            return wait_s
        if not await self._drain():
            return 0.0
        return await self._swap(target)

    def _resume(self, target: Target | None) -> None:
        """What is wanted runs already, maybe after a change of mind during a drain."""
        if target is None:
            self._board.change(issues=(), state_application_status="Applied")
            return
        self._board.change(
            issues=(),
            slots_total=self._board.status.desired_slots_total,
            state_application_status="Applied",
        )
        self._jobs.open_intake()

    async def _drain(self) -> bool:
        """Let running requests finish; ``False`` if a newer state came meanwhile."""
        if self._pace.failures == 0:
            self._board.change(slots_total=0, state_application_status="Fresh")
        self._jobs.close_intake("the agent is changing its model")
        idle = asyncio.ensure_future(self._jobs.wait_idle())
        news = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((idle, news), return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()
            news.cancel()
        return not self._wake.is_set()

    async def _swap(self, target: Target | None) -> float | None:
        await self._supervisor.stop()
        self._loaded = None
        self._board.change(model_path=None, slots_total=0)
        if target is None:
            self._board.change(issues=(), state_application_status="Applied")
            return None
        start = asyncio.ensure_future(self._supervisor.start(self._load_message(target)))
        news = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((start, news), return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
            if not start.done():  # a newer state, or the end of the agent
                start.cancel()
                await asyncio.wait((start,))  # unlike awaiting it, tells its end from ours
        if start.cancelled():
            return 0.0
        try:
            answer = start.result()
        except WorkerGone as error:
            issue = AgentIssue(model_cannot_be_loaded=ModelPath(target.model_path))
            return self._on_load_failed((issue,), str(error))
        if isinstance(answer, wire.LoadFailed):
            return self._on_load_failed(answer.issues, answer.reason)
        self._on_ready(target, answer)
        return None

    def _on_ready(self, target: Target, ready: wire.Ready) -> None:
        for note in ready.notes:
            log.warning("%s", note)
        log.info(
            "serving %s: %d slots, context %d, %d threads, on %s",
            target.model_path,
            ready.slots,
            ready.context_size,
            self._threads,
            ", ".join(ready.devices) or "CPU",
        )
        self._pace.on_serving()
        self._loaded = target
        self._jobs.open_intake()
        self._board.change(
            issues=(),
            model_path=target.model_path,
            slots_total=ready.slots,
            state_application_status="Applied",
        )

    def _on_load_failed(self, issues: tuple[AgentIssue, ...], reason: str) -> float:
        self._schedule_retry(was_serving=False)
        wait_s = max(0.0, self._retry_at - self._loop.time())
        log.error("cannot load the model: %s; trying again in %.0f s", reason, wait_s)
        status = "AttemptedAndRetrying" if self._pace.failures % 2 else "Stuck"
        self._board.change(issues=issues, state_application_status=status)
        return wait_s

    def _schedule_retry(self, *, was_serving: bool) -> None:
        self._retry_at = self._loop.time() + self._pace.on_failure(was_serving=was_serving)

    def _load_message(self, target: Target) -> wire.Load:
        return wire.Load(
            agent_label=self._agent_label,
            slots=self._board.status.desired_slots_total,
            threads=self._threads,
            model_path=target.model_path,
            projection_path=target.projection_path,
            chat_template=target.chat_template,
            parameters=target.parameters,
        )


def resolve(state: ApplicableState) -> Target | None:
    """``state`` with its files found, ``None`` for no model; :class:`ModelUnavailable`."""
    model_path = find_model(state.model)
    projection_path = find_projection(state.multimodal_projection)
    if model_path is None:
        return None
    override = state.chat_template_override
    return Target(
        model_path=model_path,
        projection_path=projection_path,
        chat_template=override.content if override is not None else None,
        parameters=state.inference_parameters,
    )
