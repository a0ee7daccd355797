"""From the wanted state to files on this machine.

    wanted ── find, download ──► resolved: told to the reconciler, which runs it
                 │ fails: an issue says why, tried again, ever later
                 └ a newer state: abandoned at once, what came stays in the cache

What runs meanwhile is no concern of this part.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Final

import msgspec

from paddler.agent.activity import ActivityBoard, Phase
from paddler.agent.models.causes import ModelUnavailable
from paddler.agent.models.local import LocalFileMissing
from paddler.agent.models.references import is_elsewhere, obtain_model, obtain_projection
from paddler.agent.status import StatusBoard
from paddler.messages.fetch import FetchEvent, Receiving, Waiting
from paddler.messages.state import ApplicableState, InferenceParameters
from paddler.net.client import Backoff
from paddler.race import race

log = logging.getLogger(__name__)

LOOK_AGAIN_S: Final = 1.0
"""For a file that somebody has yet to put here."""
FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 30.0

NO_DOWNLOAD: Final = {
    "download_current": 0,
    "download_filename": None,
    "download_indeterminate": True,
    "download_total": 0,
}


class Target(msgspec.Struct, frozen=True):
    """A state with its files here: what a worker is started with."""

    model_path: str
    projection_path: str | None
    chat_template: str | None
    parameters: InferenceParameters


class Resolver:
    """Owns the wanted state. One task, :meth:`run`, brings its files here."""

    def __init__(
        self,
        board: StatusBoard,
        activity: ActivityBoard,
        on_resolved: Callable[[Target | None], None],
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._board = board
        self._activity = activity
        self._on_resolved = on_resolved
        self._backoff = Backoff(FIRST_RETRY_S, MAX_RETRY_S, draw)
        self._wanted: ApplicableState | None = None
        self._is_resolved = True
        self._news = asyncio.Event()
        self._arriving: Receiving | None = None
        self._reached: dict[str, int] = {}  # bytes of each file that came so far, at the most

    @property
    def wanted(self) -> ApplicableState | None:
        """What is to run here; ``None``: nobody has said."""
        return self._wanted

    @property
    def is_at_work(self) -> bool:
        """Whether files are still to be brought here."""
        return not self._is_resolved

    def want(self, state: ApplicableState | None) -> None:
        """Bring the files of ``state`` here, and give up any other; ``None``: of no state."""
        if state != self._wanted:
            self._wanted = state
            self._reached.clear()
            self._backoff.reset()
            self._board.change_issues("files", ())
            self._start()

    def look_again(self) -> None:
        """Files that were resolved are gone."""
        if self._is_resolved and self._wanted is not None:
            self._start()

    async def run(self) -> None:
        """Resolve until cancelled."""
        while True:
            self._news.clear()
            wait_s = await self._resolve()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()

    def _start(self) -> None:
        self._is_resolved = self._wanted is None
        self._news.set()

    async def _resolve(self) -> float | None:
        """Do what is to be done now; seconds until the next try, ``None`` for no date."""
        state = self._wanted
        if state is None or self._is_resolved:
            return None
        self._arriving = None
        work, _ = await race(self._obtain(state), self._news.wait())
        self._board.change(**NO_DOWNLOAD)
        if self._news.is_set():
            if not work.cancelled():
                work.exception()  # What came, came too late: nobody wants to know.
            self._activity.on_files(None)
            return 0.0
        try:
            target = work.result()
        except ModelUnavailable as error:
            return self._on_unavailable(error)
        self._is_resolved = True
        self._activity.on_files(None)
        self._board.change_issues(
            "files", (), uses_chat_template_override=state.chat_template_override is not None
        )
        self._on_resolved(target)
        return None

    async def _obtain(self, state: ApplicableState) -> Target | None:
        """``state`` with its files here, ``None`` for no model; :class:`ModelUnavailable`."""
        if is_elsewhere(state.model) or is_elsewhere(state.multimodal_projection):
            self._activity.on_files(Phase.DOWNLOADING)
        model_path = await obtain_model(state.model, self._on_event)
        if model_path is None:
            return None
        override = state.chat_template_override
        return Target(
            model_path=model_path,
            projection_path=await obtain_projection(state.multimodal_projection, self._on_event),
            chat_template=override.content if override is not None else None,
            parameters=state.inference_parameters,
        )

    def _on_event(self, event: FetchEvent) -> None:
        match event:
            case Waiting(issue):
                self._activity.on_files(Phase.WAITING_FOR_LOCK)
                if issue is not None:
                    log.warning("another process on this machine downloads the model: waiting")
                    self._board.change_issues("files", (issue,))
            case Receiving():
                self._on_received(event)

    def _on_received(self, now: Receiving) -> None:
        before, self._arriving = self._arriving, now
        reached = self._reached.get(now.filename)
        is_further = reached is None or now.received > reached
        if before is None or before.filename != now.filename:
            log.log(
                logging.INFO if is_further else logging.DEBUG,
                "downloading %s: %d of %s bytes are here",
                now.filename,
                now.received,
                "?" if now.total is None else now.total,
            )
        self._activity.on_received(now.received, now.total)
        self._board.change(
            download_current=now.received,
            download_filename=now.filename,
            download_indeterminate=now.total is None,
            download_total=now.total or 0,
        )
        if not is_further:
            return  # What was wrong may still be so: a full disk takes no byte more.
        if reached is not None:
            self._backoff.reset()  # It moves: a connection that breaks often is still one.
        self._reached[now.filename] = now.received
        self._board.change_issues("files", ())

    def _on_unavailable(self, error: ModelUnavailable) -> float:
        wait_s = LOOK_AGAIN_S if isinstance(error, LocalFileMissing) else self._backoff.next()
        is_news = error.issue not in self._board.status.issues
        log.log(
            logging.ERROR if is_news else logging.DEBUG,
            "cannot get the model: %s; trying again in %.1f s and ever later",
            error,
            wait_s,
        )
        self._activity.on_files(Phase.RETRYING)
        self._board.change_issues("files", (error.issue,))
        return wait_s
