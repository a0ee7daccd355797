"""Composition root of the agent: builds the parts, wires them, runs them until it is stopped."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import uvloop

from paddler import __version__
from paddler.agent.activity import ActivityBoard
from paddler.agent.cpu import engine_threads
from paddler.agent.details import DetailsReporter
from paddler.agent.jobs import Jobs
from paddler.agent.link import Link
from paddler.agent.own_memory import keep_own_memory
from paddler.agent.questions import Questions
from paddler.agent.reconcile import Reconciler
from paddler.agent.status import StatusBoard
from paddler.agent.supervisor import Supervisor
from paddler.config import AgentConfig
from paddler.descriptors import Descriptors, raise_limit
from paddler.ids import new_id
from paddler.messages import link as wire
from paddler.messages.agents import agent_label
from paddler.messages.worker import Opened, Progress
from paddler.signals import StopSignals

log = logging.getLogger(__name__)


def agent_id() -> str:
    """A fresh one that no command takes for a flag."""
    while (drawn := new_id()).startswith("-"):
        pass
    return drawn


def run(config: AgentConfig) -> int:
    """Run an agent until SIGTERM, SIGINT or SIGHUP; the process's exit code."""
    raise_limit()
    keep_own_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_until_stopped(config))
    return 0


async def serve_until_stopped(config: AgentConfig) -> None:
    """Serve until the process is told to stop, then drain."""
    async with (
        StopSignals() as signals,
        Agent(config).running() as agent,
        asyncio.TaskGroup() as tasks,
    ):
        watch = tasks.create_task(Descriptors().run(), name="descriptors")
        await signals.wait()
        watch.cancel()
        log.info("stopping: running requests have %d ms to finish", config.drain_timeout_ms)
        await signals.unless_again(agent.drain())


class Agent:
    """Everything in one agent process, and the wiring between link, worker and reconciler.

    ``activity`` tells what it is doing right now.
    """

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self.activity = ActivityBoard()
        self._board = StatusBoard(config.slots)
        self._questions = Questions()
        self._tasks: asyncio.TaskGroup | None = None
        self._jobs = Jobs()
        self._supervisor = Supervisor(self)
        threads = engine_threads()
        self._details = DetailsReporter(
            self.activity,
            threads=threads,
            worker_pid=lambda: self._supervisor.pid,
            loaded_model=lambda: self._board.status.model_path,
            states=lambda: (self._reconciler.wanted, self._reconciler.is_applied),
            send=lambda details: self._link.send_details(details),
        )
        self._reconciler = Reconciler(
            self._board,
            self.activity,
            self._jobs,
            self._supervisor,
            agent_label=agent_label(config.name),
            threads=threads,
            kv_unified=config.kv_unified,
            on_ready=self._details.on_ready,
            on_applied=self._details.on_states,
        )
        self._link = Link(
            config.management,
            agent_id(),
            config.name,
            lambda: self._board.status,
            self,
            config.dialling,
        )
        self._jobs.connect(self._supervisor, self._link)
        self._board.watch(self._link.send_status)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Agent"]:
        """Connected, or trying to, within the block."""
        config = self._config
        log.info(
            "paddler agent %s: %d slots for %s", __version__, config.slots, config.management.text
        )
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            running = [
                tasks.create_task(self._reconciler.run(), name="reconcile"),
                tasks.create_task(self._link.run(), name="link"),
                tasks.create_task(self._details.run(), name="details"),
            ]
            try:
                yield self
            finally:
                self._tasks = None
                for task in running:
                    task.cancel()

    async def drain(self) -> None:
        """Report no slots, let running requests finish within the drain timeout, say goodbye."""
        self._reconciler.freeze()
        self._jobs.close_intake("the agent is stopping")
        self._board.change(slots_total=0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_timeout_ms / 1000):
                await self._jobs.wait_idle()
        self._link.say_goodbye()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._link.wait_closed()

    # --- from the link -------------------------------------------------------------------------

    def on_welcome(self) -> None:
        """The balancer took this agent in."""
        self._details.on_welcome()

    def on_state(self, message: wire.SetState) -> None:
        """Run this state."""
        self._questions.on_state(message.state)
        self._reconciler.want(message.state, is_default=message.is_default)
        self._details.on_states()

    def on_start(self, message: wire.StartStream) -> None:
        """Run a request."""
        self._jobs.start(message)

    def on_stop(self, message: wire.StopStream) -> None:
        """End a request."""
        self._jobs.stop(message)

    def on_question(self, message: wire.Question) -> None:
        """Answer, which may take a moment."""
        if self._tasks is not None:
            self._tasks.create_task(self._answer(message), name=f"question {message.number}")

    def on_link_lost(self) -> None:
        """Running requests have no client any more; the model stays loaded."""
        self._supervisor.hold(False)
        self._jobs.on_link_lost()

    def on_flow(self, is_paused: bool) -> None:
        """Pass the balancer's pace on to the worker."""
        self._supervisor.hold(is_paused)

    # --- from the worker -----------------------------------------------------------------------

    def on_worker_data(self, data: bytes, finished: tuple[int, ...]) -> None:
        """Pass tokens on."""
        self._jobs.on_worker_data(data, finished)

    def on_worker_progress(self, progress: Progress) -> None:
        """Show it."""
        self.activity.on_load_progress(progress)

    def on_worker_opened(self, opened: Opened) -> None:
        """Remember what the model file says, for who asks."""
        self._questions.on_opened(opened.metadata, opened.special_tokens)

    def on_worker_gone(self, reason: str) -> None:
        """Report no slots before anything is handed back, so that it is placed elsewhere."""
        self._details.on_worker_gone()
        self._reconciler.on_worker_gone(reason)
        self._jobs.on_worker_gone(reason)

    async def _answer(self, question: wire.Question) -> None:
        self._link.send_answer(await self._questions.answer(question))
