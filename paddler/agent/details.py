"""Gathers what operators want to know of this agent, and tells it at a measured pace."""

import asyncio
import os
import resource
import socket
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from paddler.agent.activity import ActivityBoard
from paddler.agent.cpu import usable_cores
from paddler.messages import worker as wire
from paddler.messages.agents import AgentDetails
from paddler.messages.state import ApplicableState, fingerprint

MIN_INTERVAL_S: Final = 0.25
"""Between two reports while much changes."""
MAX_INTERVAL_S: Final = 5.0
"""Memory changes by itself; and who tells something is alive."""


class DetailsReporter:
    """Owns the facts that nobody else keeps. One task, :meth:`run`, tells them.

    ``worker_pid``, ``loaded_model`` and ``states`` are asked when it tells; the latter gives
    what is wanted, and whether it is applied.
    """

    def __init__(
        self,
        activity: ActivityBoard,
        *,
        threads: int,
        worker_pid: Callable[[], int | None],
        loaded_model: Callable[[], str | None],
        states: Callable[[], tuple[ApplicableState | None, bool]],
        send: Callable[[AgentDetails], None],
    ) -> None:
        self._activity = activity
        self._threads = threads
        self._worker_pid = worker_pid
        self._loaded_model = loaded_model
        self._states = states
        self._send = send
        self._started_at = time.time()
        self._engine = engine_version()  # once: it is read from files
        self._ready: wire.Ready | None = None
        self._welcomes = 0
        self._restarts = 0
        self._changed = asyncio.Event()
        activity.watch(self._changed.set)

    def on_welcome(self) -> None:
        """A balancer took this agent in: it knows nothing yet."""
        self._welcomes += 1
        self._changed.set()

    def on_ready(self, ready: wire.Ready) -> None:
        """A worker serves."""
        self._ready = ready
        self._changed.set()

    def on_worker_gone(self) -> None:
        """A worker that served has died."""
        self._restarts += 1
        self._changed.set()

    def on_states(self) -> None:
        """Another state is wanted, or applied."""
        self._changed.set()

    @property
    def details(self) -> AgentDetails:
        """All of it, as it is now."""
        now, ready, model = self._activity.now, self._ready, self._loaded_model()
        serving = ready if model is not None else None
        wanted, is_applied = self._states()
        state = fingerprint(wanted) if wanted is not None else None
        return AgentDetails(
            host=socket.gethostname(),
            started_at=round(self._started_at, 3),
            engine=self._engine,
            devices=tuple(ready.devices) if ready is not None else (),
            threads=self._threads,
            cores=usable_cores(),
            memory_bytes=sum(map(resident_bytes, filter(None, (os.getpid(), self._worker_pid())))),
            phase=now.phase.value,
            load_fraction=now.load_fraction,
            bytes_per_s=now.bytes_per_s,
            seconds_left=now.seconds_left,
            wanted_state=state,
            applied_state=state if is_applied else None,
            loaded_model=model,
            context_size=serving.context_size if serving is not None else None,
            slot_context_size=serving.slot_context_size if serving is not None else None,
            notes=tuple(ready.notes) if ready is not None else (),
            worker_restarts=self._restarts,
            reconnects=max(0, self._welcomes - 1),
        )

    async def run(self) -> None:
        """Tell whatever changes, and all of it every few seconds, until cancelled."""
        while True:
            self._changed.clear()
            self._send(self.details)
            await asyncio.sleep(MIN_INTERVAL_S)
            try:
                async with asyncio.timeout(MAX_INTERVAL_S - MIN_INTERVAL_S):
                    await self._changed.wait()
            except TimeoutError:
                pass


def engine_version() -> str | None:
    """The bindings of llama.cpp that a worker of this installation loads."""
    try:
        return f"llama-cpp-python {version('llama-cpp-python')}"
    except PackageNotFoundError:
        return None


def resident_bytes(pid: int) -> int:
    """Memory that a process holds in RAM; 0 where that cannot be told, or it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
