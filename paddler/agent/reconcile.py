"""From files that are here to a worker that serves them.

    resolved target ── differs from what runs? ── drain ── swap worker ──► Applied
                                                              │ fails: tried again, ever later,
                                                              │ Retrying / Stuck in turns,
                                                              └ at once for a new state

What is wanted comes from the balancer, its files from the resolver, side by side with this:
while a new model is on its way the old one serves, and is started again if its worker dies.
Targets are compared: asking again for what runs changes nothing.
"""

import asyncio
import contextlib
import logging
import math
import os
import random
from collections.abc import Callable
from typing import Final

from paddler.agent.activity import ActivityBoard, Phase
from paddler.agent.jobs import Jobs
from paddler.agent.resolve import Resolver, Target
from paddler.agent.status import StatusBoard
from paddler.agent.supervisor import Supervisor, WorkerGone
from paddler.messages import worker as wire
from paddler.messages.agents import AgentIssue, ModelPath
from paddler.messages.state import ApplicableState
from paddler.race import race

log = logging.getLogger(__name__)

FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 30.0
HEALTHY_AFTER_S: Final = 60.0
"""A worker that served this long did not die of its start: its failures are forgotten."""
KEEP_LOADED_S: Final = 300.0
"""How long a loaded model outlives a balancer that came back without any state."""


class RetryPace:
    """How long to wait before the next try: doubling, drawn from the upper half of each span.

    ``clock`` in seconds; ``draw`` gives values in [0, 1).
    """

    def __init__(self, clock: Callable[[], float], draw: Callable[[], float]) -> None:
        self._clock = clock
        self._draw = draw
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
        if tries == 0:
            return 0.0
        span_s = min(FIRST_RETRY_S * 2.0 ** min(tries - 1, 10), MAX_RETRY_S)
        return span_s * (0.5 + 0.5 * self._draw())

    def reset(self) -> None:
        """A new state starts afresh."""
        self._failures = 0


class Reconciler:
    """Owns what is to run and what is loaded. One task, :meth:`run`, does all the work."""

    def __init__(
        self,
        board: StatusBoard,
        activity: ActivityBoard,
        jobs: Jobs,
        supervisor: Supervisor,
        *,
        agent_label: str,
        threads: int,
        kv_unified: bool = True,
        on_ready: Callable[[wire.Ready], object] = lambda _: None,
        on_applied: Callable[[], object] = lambda: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """``on_ready`` is told of each worker that serves, ``on_applied`` of each state that
        runs, be it by a worker that is there already. ``draw`` is for tests.
        """
        self._board = board
        self._on_ready_told = on_ready
        self._on_applied = on_applied
        self._activity = activity
        self._jobs = jobs
        self._supervisor = supervisor
        self._agent_label = agent_label
        self._threads = threads
        self._kv_unified = kv_unified
        self._resolver = Resolver(board, activity, self._take, draw=draw)
        self._target: Target | None = None
        self._loaded: Target | None = None
        self._served: Target | None = None  # the last that was loaded once
        self._retry_at = 0.0
        self._is_frozen = False
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pace = RetryPace(self._loop.time, draw)
        self._unload_timer: asyncio.TimerHandle | None = None

    @property
    def wanted(self) -> ApplicableState | None:
        """The state that is to run here; ``None``: nobody has said."""
        return self._resolver.wanted

    @property
    def is_applied(self) -> bool:
        """Whether what runs here is what the wanted state asks for."""
        return not self._resolver.is_at_work and self._is_up

    def want(self, state: ApplicableState, *, is_default: bool) -> None:
        """Take a state from the balancer; the newest counts.

        ``is_default``: nobody has told this balancer anything yet. What is loaded here, or on
        its way, then stays for a while, as the balancer may have lost its memory in a restart.
        """
        if self._is_frozen:
            return
        if self._unload_timer is not None:
            self._unload_timer.cancel()
            self._unload_timer = None
        if is_default and (self._loaded is not None or self._resolver.is_at_work):
            log.warning(
                "the balancer has no state: keeping this agent's model for %d s", KEEP_LOADED_S
            )
            self._unload_timer = self._loop.call_later(KEEP_LOADED_S, self._resolver.want, state)
            return
        if state != self._resolver.wanted:
            self._give_up_failing()
        self._resolver.want(state)

    def freeze(self) -> None:
        """The agent is about to end: begin nothing, give up what has begun; who serves, serves."""
        self._is_frozen = True
        if self._unload_timer is not None:
            self._unload_timer.cancel()
        self._resolver.want(None)
        self._wake.set()

    def on_worker_gone(self, reason: str) -> None:
        """A worker that served has died: report no slots at once, then start it again."""
        self._board.change(slots_total=0, state_application_status="AttemptedAndRetrying")
        self._activity.on_worker(Phase.RETRYING)
        self._jobs.close_intake(reason)
        self._loaded = None
        self._schedule_retry(was_serving=True)
        self._wake.set()

    async def run(self) -> None:
        """Reconcile until cancelled; the worker is ended then."""
        self._board.change(state_application_status="Applied")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._resolver.run(), name="resolve")
                while True:
                    self._wake.clear()
                    await self._wait_for_news(await self._apply())
        finally:
            await self._supervisor.stop()

    @property
    def _is_up(self) -> bool:
        """Whether the newest target is what runs."""
        target = self._target
        return target == self._loaded and (target is None or self._supervisor.is_running)

    def _give_up_failing(self) -> None:
        """Another state is wanted: try no more what never could be loaded, nor complain of it.

        Until the files of that state are here, its issue would be taken for theirs.
        """
        if self._pace.failures and self._target not in (None, self._served):
            self._board.change_issues("worker", ())
            self._retry_at = math.inf
            self._wake.set()

    def _take(self, target: Target | None) -> None:
        """The wanted state's files are here: run them, and try it at once."""
        if target != self._target:
            self._board.change_issues("worker", ())
        self._target = target
        self._pace.reset()
        self._retry_at = 0.0
        self._wake.set()

    async def _wait_for_news(self, for_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            # Not wait_for: in Python 3.11 it forgets being cancelled when news come as well.
            async with asyncio.timeout(for_s):
                await self._wake.wait()

    async def _apply(self) -> float | None:
        """Do what is to be done now; seconds until to look again, ``None`` for no date."""
        target = self._target
        if self._is_frozen:
            return None
        if self._is_up:
            self._resume(target)
            self._on_applied()
            return None
        if (wait_s := self._retry_at - self._loop.time()) > 0:
            return wait_s if wait_s < math.inf else None
        if target is not None and not is_here(target):
            self._resolver.look_again()
            return None
        if not await self._drain():
            return 0.0
        return await self._swap(target)

    def _resume(self, target: Target | None) -> None:
        """What is to run runs already, maybe after a change of mind during a drain."""
        if target is None:
            self._activity.on_worker(Phase.IDLE)
            self._board.change_issues("worker", (), state_application_status="Applied")
            return
        self._activity.on_worker(Phase.SERVING)
        self._board.change_issues(
            "worker",
            (),
            slots_total=self._board.status.desired_slots_total,
            state_application_status="Applied",
        )
        self._jobs.open_intake()

    async def _drain(self) -> bool:
        """Let running requests finish; ``False`` if there is something newer to do."""
        if self._pace.failures == 0:
            self._board.change(slots_total=0, state_application_status="Fresh")
        self._activity.on_worker(Phase.DRAINING)
        self._jobs.close_intake("the agent is changing its model")
        await race(self._jobs.wait_idle(), self._wake.wait())
        return not self._wake.is_set()

    async def _swap(self, target: Target | None) -> float | None:
        await self._supervisor.stop()
        self._loaded = None
        self._board.change(model_path=None, slots_total=0)
        if target is None:
            self._resume(None)
            self._on_applied()
            return None
        self._activity.on_worker(Phase.LOADING)
        start, _ = await race(self._supervisor.start(self._load_message(target)), self._wake.wait())
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
            "serving %s: %d slots, context %d, at most %d for a slot, %d threads, on %s",
            target.model_path,
            ready.slots,
            ready.context_size,
            ready.slot_context_size,
            self._threads,
            ", ".join(ready.devices) or "CPU",
        )
        self._pace.on_serving()
        self._on_ready_told(ready)
        self._loaded = self._served = target
        if self._is_frozen:
            return
        self._activity.on_worker(Phase.SERVING)
        self._jobs.open_intake()
        self._board.change_issues(
            "worker",
            (),
            model_path=target.model_path,
            slots_total=ready.slots,
            state_application_status="Applied",
        )
        self._on_applied()

    def _on_load_failed(self, issues: tuple[AgentIssue, ...], reason: str) -> float:
        self._schedule_retry(was_serving=False)
        wait_s = max(0.0, self._retry_at - self._loop.time())
        log.error("cannot load the model: %s; trying again in %.1f s", reason, wait_s)
        status = "AttemptedAndRetrying" if self._pace.failures % 2 else "Stuck"
        self._activity.on_worker(Phase.RETRYING)
        self._board.change_issues("worker", issues, state_application_status=status)
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
            kv_unified=self._kv_unified,
        )


def is_here(target: Target) -> bool:
    """Whether its files exist; somebody may have tidied up since they were found."""
    paths = filter(None, (target.model_path, target.projection_path))
    return all(os.path.exists(path) for path in paths)
