"""The requests on this agent: from the link to the worker and back.

Owns the set of open streams. Data is forwarded as it is; the worker says beside it which
streams it finished. What cannot be served, or is lost with the worker, is handed back to
the balancer, which places it elsewhere or tells the client.
"""

import asyncio
import logging
from typing import Protocol

from paddler.messages import link as wire
from paddler.messages.link import FRAME_FINAL, FrameKind, Returned, encode_data_frame

log = logging.getLogger(__name__)


class JobWorker(Protocol):
    """What jobs need of the worker."""

    def send(self, message: bytes) -> None:
        """Send one encoded control message."""

    def reset(self) -> None:
        """End every stream without a word."""


class JobLink(Protocol):
    """What jobs need of the link."""

    def send_data(self, message: bytes) -> None:
        """Send a data message to the balancer; dropped while there is no connection."""


class Jobs:
    """Open streams, and whether new ones are taken."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._closed_because: str | None = "no model is loaded"
        self._idle = asyncio.Event()
        self._idle.set()
        self._worker: JobWorker
        self._link: JobLink

    def connect(self, worker: JobWorker, link: JobLink) -> None:
        """Say who is on either side; once, before anything else."""
        self._worker = worker
        self._link = link

    def __len__(self) -> int:
        return len(self._open)

    def open_intake(self) -> None:
        """Take requests: a worker serves."""
        self._closed_because = None

    def close_intake(self, reason: str) -> None:
        """Hand new requests back; those that run go on."""
        self._closed_because = reason

    async def wait_idle(self) -> None:
        """Return once no stream is open."""
        await self._idle.wait()

    # --- from the balancer ---------------------------------------------------------------------

    def start(self, message: wire.StartStream) -> None:
        """Pass a request to the worker, or hand it back."""
        if self._closed_because is not None:
            self._hand_back((message.stream_id,), self._closed_because)
            return
        self._open.add(message.stream_id)
        self._idle.clear()
        self._worker.send(wire.encode(message))

    def stop(self, message: wire.StopStream) -> None:
        """Pass the end of a request to the worker, which confirms it with a final frame."""
        if message.stream_id in self._open:
            self._worker.send(wire.encode(message))

    def on_link_lost(self) -> None:
        """Nobody waits for the answers any more."""
        if self._open:
            log.info("link lost: ending %d running requests", len(self._open))
            self._worker.reset()
            self._forget_all()

    # --- from the worker -----------------------------------------------------------------------

    def on_worker_data(self, data: bytes, finished: tuple[int, ...]) -> None:
        """Pass a data message to the balancer."""
        self._link.send_data(data)
        if finished:
            self._open.difference_update(finished)
            if not self._open:
                self._idle.set()

    def on_worker_gone(self, reason: str) -> None:
        """Hand back what the worker had."""
        lost = tuple(self._open)
        self._forget_all()
        self._hand_back(lost, reason)

    def _hand_back(self, stream_ids: tuple[int, ...], reason: str) -> None:
        payload = wire.encode(Returned(reason))
        frames = (
            encode_data_frame(stream_id, FrameKind.RETURNED, payload, FRAME_FINAL)
            for stream_id in stream_ids
        )
        if message := b"".join(frames):
            self._link.send_data(message)

    def _forget_all(self) -> None:
        self._open.clear()
        self._idle.set()
