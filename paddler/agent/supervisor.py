"""The worker process: started, watched and ended here. Weights are never loaded in this process.

    IDLE ── start ──► LOADING ── Ready ──► RUNNING ── crash, stall ──► IDLE (``on_gone``)
                         └─ LoadFailed, crash ──► IDLE     └─ stop ──► IDLE

When the worker's end of the pipe closes, everything it wrote before has been read: what
it finished is known, and the rest is lost.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from paddler.agent.pipe import WorkerPipe
from paddler.agent.slot_table import SharedSlotTable, SlotState, create_slot_memory
from paddler.descriptors import PROCESS_NEEDS, check_room
from paddler.errors import PaddlerError
from paddler.messages import worker as wire
from paddler.messages.worker import PacketKind
from paddler.race import race

log = logging.getLogger(__name__)

STOP_GRACE_S: Final = 1.0
STALL_CHECK_S: Final = 1.0
STALLED_AFTER_S: Final = 60.0
"""No answer to a ping for this long, or no progress in a running slot: longer than any step."""

SPIN_COUNT: Final = "1000"
"""How long the engine's threads spin at a barrier before they sleep (libgomp's variable).

The default of 300,000 spins keeps a core from the very thread that is waited for as soon
as anything else runs on the machine, a second agent included: 2 threads beside one busy
process made 0.3 tokens/s, with this 36; alone on the machine 125 and 121.
"""


class WorkerGone(PaddlerError):
    """The worker ended before its model was loaded."""

    code = "worker_gone"


class WorkerListener(Protocol):
    """Who wants to know what a running worker does."""

    def on_worker_data(self, data: bytes, finished: tuple[int, ...]) -> None:
        """A data message for the link, and the streams that end in it."""

    def on_worker_progress(self, progress: wire.Progress) -> None:
        """How far a worker is with loading."""

    def on_worker_opened(self, opened: wire.Opened) -> None:
        """What a worker read of its model file."""

    def on_worker_gone(self, reason: str) -> None:
        """A running worker ended by itself."""


OnWorkerPacket = Callable[["Worker", PacketKind, bytes, tuple[int, ...]], None]


class Worker:
    """One worker process and the pipe to it."""

    __slots__ = (
        "confirmed_epoch",
        "epoch",
        "is_running",
        "lost",
        "pinged_at",
        "pipe",
        "process",
        "ready",
        "table",
    )

    def __init__(self, table: SharedSlotTable, on_packet: OnWorkerPacket) -> None:
        loop = asyncio.get_running_loop()
        self.table = table
        self.lost = asyncio.Event()
        self.pipe = WorkerPipe(partial(on_packet, self), self.lost.set)
        self.process: asyncio.subprocess.Process | None = None
        self.ready: asyncio.Future[wire.Ready | wire.LoadFailed] = loop.create_future()
        self.is_running = False
        self.pinged_at: float | None = None  # of a ping that has no answer yet
        self.epoch = 0  # data is stale until the worker has confirmed the newest reset
        self.confirmed_epoch = 0

    def kill(self) -> None:
        """End the process at once."""
        if self.process is not None and self.process.returncode is None:
            # Not Process.kill: on asyncio's own loop that may reap the process, and its exit
            # code is lost to who waits for it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)


class Supervisor:
    """Owns at most one worker at a time."""

    def __init__(
        self, listener: WorkerListener, *, stalled_after_s: float = STALLED_AFTER_S
    ) -> None:
        self._listener = listener
        self._stalled_after_s = stalled_after_s
        self._worker: Worker | None = None
        self._is_held = False
        self._watch: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a worker has its model loaded and serves."""
        return self._worker is not None and self._worker.is_running

    @property
    def pid(self) -> int | None:
        """The worker's process id."""
        process = self._worker.process if self._worker is not None else None
        return process.pid if process is not None else None

    async def start(self, load: wire.Load) -> wire.Ready | wire.LoadFailed:
        """Start a worker and load a model into it; :class:`WorkerGone` if it dies meanwhile.

        Cancelling ends the worker. There must be none before.
        """
        assert self._worker is None, "stop the old worker first"
        try:
            worker = await self._spawn(load.slots)
        except OSError as error:
            raise WorkerGone(f"cannot start a worker: {error.strerror}") from error
        self._worker = worker
        try:
            worker.pipe.send(wire.encode_packet(PacketKind.CONTROL, wire.encode(load)))
            await race(asyncio.shield(worker.ready), worker.lost.wait())
            if not worker.ready.done():
                raise WorkerGone(await self._reap(worker))
            answer = worker.ready.result()
            if isinstance(answer, wire.LoadFailed):
                await self._end(worker)
                return answer
        except BaseException:
            await self._end(worker)
            raise
        worker.is_running = True
        self._watch = asyncio.create_task(self._watch_worker(worker), name="watch worker")
        return answer

    def send(self, message: bytes) -> None:
        """Send one control message, encoded already, to the worker that runs."""
        if self._worker is not None:
            self._worker.pipe.send(wire.encode_packet(PacketKind.CONTROL, message))

    def reset(self) -> None:
        """End every stream without a word; what the worker sent for them before is dropped."""
        if self._worker is not None and self._worker.is_running:
            self._worker.epoch += 1
            self.send(wire.encode(wire.Reset(self._worker.epoch)))

    def hold(self, is_held: bool) -> None:
        """Stop or go on taking data from the worker, this one and the next."""
        self._is_held = is_held
        if self._worker is not None:
            self._worker.pinged_at = None  # its answer may be what is held
            self._worker.pipe.hold(is_held)

    async def stop(self) -> None:
        """End the worker, if there is one; it is gone when this returns."""
        if (watch := self._watch) is not None:
            self._watch = None
            watch.cancel()
            await asyncio.wait((watch,))  # unlike awaiting it, tells its end from ours
        if self._worker is not None:
            await self._end(self._worker)

    async def _spawn(self, slots: int) -> Worker:
        check_room(PROCESS_NEEDS)
        ours, theirs = socket.socketpair()
        slots_fd = create_slot_memory(slots)
        with theirs, contextlib.ExitStack() as cleanup:
            cleanup.callback(os.close, slots_fd)
            on_failure = cleanup.enter_context(contextlib.ExitStack())
            on_failure.callback(ours.close)
            table = SharedSlotTable(slots_fd, slots)
            on_failure.callback(table.close)
            worker = Worker(table, self._on_packet)
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: worker.pipe, sock=ours)
            on_failure.callback(worker.pipe.close)
            worker.pipe.hold(self._is_held)
            worker.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "paddler.agent.worker.main"),
                *("--socket-fd", str(theirs.fileno())),
                *("--slots-fd", str(slots_fd)),
                *("--slots", str(slots)),
                pass_fds=(theirs.fileno(), slots_fd),
                stdin=asyncio.subprocess.DEVNULL,
                env={"GOMP_SPINCOUNT": SPIN_COUNT} | os.environ,
            )
            on_failure.pop_all()
        log.info("worker %d started", worker.process.pid)
        return worker

    def _on_packet(
        self, worker: Worker, kind: PacketKind, body: bytes, finished: tuple[int, ...]
    ) -> None:
        if kind is PacketKind.DATA:
            if worker.confirmed_epoch == worker.epoch:
                self._listener.on_worker_data(body, finished)
            return
        message = wire.decode_from_worker(body)
        match message:
            case wire.Ready() | wire.LoadFailed():
                if not worker.ready.done():
                    worker.ready.set_result(message)
            case wire.ResetDone():
                worker.confirmed_epoch = message.epoch
            case wire.Pong():
                worker.pinged_at = None
            case wire.Progress():
                self._listener.on_worker_progress(message)
            case wire.Opened():
                self._listener.on_worker_opened(message)

    async def _watch_worker(self, worker: Worker) -> None:
        """Notice a worker that ends or is stuck."""
        assert worker.process is not None
        # Once: the event loop keeps each wait for a process until the process ends.
        ended = asyncio.ensure_future(worker.process.wait())
        try:
            while not worker.lost.is_set():
                await race(asyncio.shield(ended), worker.lost.wait(), timeout_s=STALL_CHECK_S)
                if ended.done():
                    worker.pipe.hold(False)  # what it wrote last, and then the end
                    await worker.lost.wait()
                elif not worker.lost.is_set():
                    self._check_stall(worker)
        finally:
            ended.cancel()
        reason = await self._reap(worker)
        log.error("the worker ended: %s", reason)
        worker.is_running = False
        self._watch = None
        await self._end(worker)
        self._listener.on_worker_gone(reason)

    def _check_stall(self, worker: Worker) -> None:
        """End a worker that is stuck; ask the others for a sign of life."""
        if self._is_held:
            return  # it may wait for us
        if (reason := self._find_stall(worker)) is not None:
            log.error("ending the worker, which is stuck: %s", reason)
            worker.kill()
        elif worker.pinged_at is None:
            worker.pinged_at = time.monotonic()
            self.send(wire.encode(wire.Ping()))

    def _find_stall(self, worker: Worker) -> str | None:
        """Why ``worker`` counts as stuck, whatever it is stuck in; ``None`` if it does not."""
        deadline = time.monotonic() - self._stalled_after_s
        if worker.pinged_at is not None and worker.pinged_at < deadline:
            return f"no answer for {self._stalled_after_s:.0f} s"
        for slot, row in enumerate(worker.table.rows()):
            if row.state is not SlotState.IDLE and row.progress_at < deadline:
                return f"no progress in slot {slot} for {self._stalled_after_s:.0f} s"
        return None

    async def _reap(self, worker: Worker) -> str:
        """Wait for a process whose pipe is closed, and say how it ended."""
        assert worker.process is not None
        try:
            code = await asyncio.wait_for(worker.process.wait(), STOP_GRACE_S)
        except TimeoutError:
            worker.kill()
            code = await worker.process.wait()
        if code < 0:
            return f"worker killed by signal {-code} ({signal.Signals(-code).name})"
        return f"worker exited with code {code}"

    async def _end(self, worker: Worker) -> None:
        """End ``worker`` and free what it holds here; idempotent."""
        if self._worker is worker:
            self._worker = None
        worker.is_running = False
        worker.pipe.send(wire.encode_packet(PacketKind.CONTROL, wire.encode(wire.Stop())))
        worker.pipe.close()
        await asyncio.shield(self._reap(worker))
        worker.table.close()
