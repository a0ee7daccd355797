"""One agent's link as the balancer sees it: the streams on it, frames in, control messages out.

A stream lives from its start to the agent's final frame. Its client may be gone long
before; the slot is free only when the agent has confirmed:

    RUNNING ── final frame ──────────────────────────► ENDED
       └─ stop (client gone, timeout, slow reader) ─► DRAINING ── final frame, silence ──► ENDED
    any ── link lost ────────────────────────────────► ENDED
"""

import asyncio
import logging
import math
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol, TypeAlias

import msgspec

from paddler._fastpath import OVERRUN, Relay, Sink
from paddler.balancer import pool
from paddler.errors import PaddlerError, RemoteProtocolError
from paddler.messages import link as wire
from paddler.messages.inference import Failure
from paddler.messages.link import (
    FRAME_FINAL,
    FRAME_REFUSED,
    Delivery,
    Finished,
    FrameKind,
    Sampling,
)
from paddler.messages.state import ApplicableState

log = logging.getLogger(__name__)

# The pool knows links only as something that can be replaced; these are its own with ours.
Agent: TypeAlias = "pool.Agent[AgentLink]"
Lease: TypeAlias = "pool.Lease[AgentLink]"
Pool: TypeAlias = "pool.Pool[AgentLink]"


class LinkSocket(Protocol):
    """What the link needs of its WebSocket."""

    def send_text(self, data: bytes) -> None:
        """Send one text message; does nothing on a closed socket."""

    def send_text_soon(self, data: bytes) -> None:
        """Send one text message, with others of this turn of the loop; not on a closed socket."""

    def close(self, code: int, reason: str) -> None:
        """Start the close handshake."""


class Outlet(Protocol):
    """Where one request's answer goes. Made by a service, driven by the relay."""

    def open_sink(self, stream_id: int, agent: Agent, now: float) -> Sink:
        """The encoding of this answer's tokens. Called again if another agent takes over."""
        ...

    def on_result(self, kind: FrameKind, payload: bytes, agent: Agent) -> None:
        """Take a result (JSON) that does not end the answer; ``kind`` tells what it is.

        Only what the request's delivery and sampling ask for comes, beside ``RESULT`` and
        ``EMBEDDING``. Raises ``msgspec.DecodeError`` where the agent sent rubbish.
        """

    def on_overrun(self) -> None:
        """The client reads too slowly and past the bound: cut it off."""


class Completed(msgspec.Struct, frozen=True):
    """The answer ended as it should."""

    finished: Finished
    agent: Agent


class Concluded(msgspec.Struct, frozen=True):
    """The agent ended the answer with a result (JSON) of its own: mostly why it failed.

    ``is_refusal``: the request itself is at fault, and would fail again.
    """

    payload: bytes
    agent: Agent
    is_refusal: bool = False


class Lost(msgspec.Struct, frozen=True):
    """The agent is gone or gave the request back; another may take it over."""

    reason: str


Ending = Completed | Concluded | Lost | Failure


class StreamState(Enum):
    """Where a stream stands; see the module's drawing."""

    RUNNING = "running"
    DRAINING = "draining"
    ENDED = "ended"


def discard(_: bytes) -> None:
    """Write nothing."""


class Stream:
    """One request on one agent. ``ended`` tells its client's side how it went.

    ``was_heard``: the client has got a part of the answer, tokens aside; ``first_result_at``
    is when.
    """

    __slots__ = (
        "_item_timeout_s",
        "_lease",
        "_link",
        "_loop",
        "_outlet",
        "_state",
        "agent",
        "ended",
        "first_result_at",
        "sink",
        "stream_id",
        "was_heard",
    )

    def __init__(
        self,
        link: "AgentLink",
        stream_id: int,
        lease: Lease,
        outlet: Outlet,
        item_timeout_s: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._loop = loop
        self._link = link
        self._lease = lease
        self._outlet = outlet
        self._item_timeout_s = item_timeout_s
        self._state = StreamState.RUNNING
        self.was_heard = False
        self.first_result_at: float | None = None
        self.stream_id = stream_id
        self.agent = lease.agent
        self.ended: asyncio.Future[Ending] = self._loop.create_future()
        self.sink = outlet.open_sink(stream_id, lease.agent, self._loop.time())

    @property
    def silent_until(self) -> float:
        """When nothing will have been heard of it for too long."""
        return self.sink.heard_at + self._item_timeout_s

    def on_frame(self, kind: int, flags: int, payload: bytes) -> None:
        """Take a frame that the relay did not pass on by itself."""
        if self._state is StreamState.RUNNING:
            self._take(kind, flags, payload)
        if flags & FRAME_FINAL:
            if not self.ended.done():
                self._settle(Lost(f"{self.agent.label}: the answer ended without a result"))
            self.end()

    def stop(self, ending: Ending) -> None:
        """End the answer now; the slot stays taken until the agent confirms."""
        if self._state is not StreamState.RUNNING:
            return
        self._settle(ending)
        self._state = StreamState.DRAINING
        self.sink = self._link.discard_rest(self)
        self._link.send(wire.StopStream(self.stream_id))

    def end(self, ending: Ending | None = None) -> None:
        """Nothing more will come: give the slot back.

        ``ending`` counts unless one is settled; without it, one must be.
        """
        if self._state is StreamState.ENDED:
            return
        self._state = StreamState.ENDED
        self._link.forget(self)
        if ending is not None:
            self._settle(ending)
        self._lease.release()

    def on_silence(self) -> None:
        """Nothing was heard of it for too long."""
        if self._state is StreamState.RUNNING:
            self.stop(item_timeout(self._item_timeout_s))
        else:
            log.warning("%s never confirmed the end of stream %d", self.agent.label, self.stream_id)
            self.end(Lost("unconfirmed"))

    def _take(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == OVERRUN:
            self._outlet.on_overrun()
            self.stop(Failure(499, "the client reads too slowly"))
            return
        match kind:
            case FrameKind.DONE:
                self._settle(Completed(wire.decode_finished(payload), self.agent))
            case (
                FrameKind.RESULT
                | FrameKind.EMBEDDING
                | FrameKind.CALL
                | FrameKind.SCORED
                | FrameKind.EMBEDDING_USAGE
            ):
                if not self.was_heard:
                    self.was_heard = True
                    self.first_result_at = self._loop.time()
                self._outlet.on_result(FrameKind(kind), payload, self.agent)
            case FrameKind.FAILED | FrameKind.EMBEDDING_END:
                msgspec.json.decode(payload)  # it goes out as it is: rubbish must not
                self._settle(Concluded(payload, self.agent, bool(flags & FRAME_REFUSED)))
            case FrameKind.RETURNED:
                self._settle(Lost(f"{self.agent.label}: {wire.decode_returned(payload).reason}"))
            case _:  # tokens do not come here: every sink has a write
                raise ValueError("there is no such kind")

    def _settle(self, ending: Ending) -> None:
        if not self.ended.done():
            self.ended.set_result(ending)


def item_timeout(timeout_s: float) -> Failure:
    """The error of a request that heard nothing from its agent for too long."""
    return Failure(
        504,
        f"Inference timed out after {round(timeout_s * 1000)}ms waiting for next token. "
        "Increase --inference-item-timeout if the prompt requires longer processing.",
    )


class AskFailed(PaddlerError):
    """A question got no answer: the agent says why, is gone (502), or is silent (504)."""

    code = "ask_failed"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class AgentLink:
    """The streams of one agent's connection, and the way to it."""

    def __init__(self, socket: LinkSocket, clock: Callable[[], float]) -> None:
        self._socket = socket
        self._clock = clock
        self.relay = Relay()
        """Passes the tokens of data messages on."""
        self._streams: dict[int, Stream] = {}
        self._last_stream_id = 0
        self._connected_at = self._heard_at = clock()
        self._questions: dict[int, asyncio.Future[wire.Answer]] = {}
        self._last_question = 0
        self._is_lost = False
        self._loop = asyncio.get_running_loop()
        # One timer for the streams of a link: one for each would cost every request its setting.
        self._watch: asyncio.TimerHandle | None = None
        self._watch_at = math.inf
        self.end_reason: str | None = None
        """Why the connection was ended from this side; an agent's answer has no reason."""

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def tokens(self) -> int:
        """Tokens passed on to clients since this connection began."""
        return self.relay.tokens

    def start(
        self,
        lease: Lease,
        job: wire.Job,
        sampling: Sampling,
        delivery: Delivery,
        outlet: Outlet,
        item_timeout_s: float,
    ) -> Stream:
        """Hand a request to the agent. The lease is the stream's from here on.

        ``RecursionError``: the request is nested too deeply to be sent on.
        """
        stream_id = self._last_stream_id = self._last_stream_id % (2**32 - 1) + 1
        try:
            message = wire.encode(
                wire.StartStream(stream_id=stream_id, job=job, sampling=sampling, delivery=delivery)
            )
            stream = Stream(self, stream_id, lease, outlet, item_timeout_s, self._loop)
        except BaseException:
            lease.release()
            raise
        self._streams[stream_id] = stream
        self.relay.open(stream.sink)
        if self._is_lost:
            stream.end(Lost(f"{stream.agent.label}: connection closed"))
            return stream
        if stream.silent_until < self._watch_at:
            self._watch_until(stream.silent_until)
        self._socket.send_text_soon(message)
        return stream

    def on_data(self, message: memoryview) -> None:
        """Take a data message: tokens go to their clients here, other frames to their streams."""
        self.on_frames(self.relay.feed(message, self._clock()))

    def on_frames(self, frames: list[tuple[int, int, int, bytes]]) -> None:
        """Take frames that the relay did not pass on."""
        for stream_id, kind, flags, payload in frames:
            if (stream := self._streams.get(stream_id)) is not None:
                try:
                    stream.on_frame(kind, flags, payload)
                except (msgspec.DecodeError, ValueError) as error:
                    raise RemoteProtocolError(
                        f"frame of kind {kind} on stream {stream_id}: {error}"
                    ) from error

    def on_lost(self) -> None:
        """The connection is gone: end every stream."""
        self._is_lost = True
        self._watch_until(math.inf)
        for stream in list(self._streams.values()):
            stream.end(Lost("Agent controller connection closed"))
        for waiting in self._questions.values():
            if not waiting.done():
                waiting.set_exception(AskFailed("the agent's connection ended", status=502))

    async def ask(self, ask: wire.Ask, timeout_s: float) -> Any:
        """What the agent answers; :class:`AskFailed` if it does not, or cannot."""
        if self._is_lost:
            raise AskFailed("the agent's connection ended", status=502)
        self._last_question += 1
        number = self._last_question
        self._questions[number] = waiting = asyncio.get_running_loop().create_future()
        self.send(wire.Question(number, ask))
        try:
            answer = await asyncio.wait_for(waiting, timeout_s)
        except TimeoutError:
            raise AskFailed(
                f"the agent did not answer within {timeout_s:g} s", status=504
            ) from None
        finally:
            del self._questions[number]
        if answer.error is not None:
            raise AskFailed(answer.error, status=400)
        return answer.value

    def on_answer(self, answer: wire.Answer) -> None:
        """Take the answer to a question; late ones have nobody who waits."""
        waiting = self._questions.get(answer.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def on_heard(self) -> None:
        """The agent said something."""
        self._heard_at = self._clock()

    def ages(self) -> tuple[float, float]:
        """Seconds since the connection began, and since the agent was heard last."""
        now = self._clock()
        return now - self._connected_at, now - max(self._heard_at, self.relay.heard_at)

    def disconnect(self, reason: str) -> None:
        """Close the connection; the agent dials again by itself."""
        self.end_reason = reason
        self._socket.close(1012, reason)

    def stop_all(self, failure: Failure) -> None:
        """End every running answer with ``failure``."""
        for stream in list(self._streams.values()):
            stream.stop(failure)

    def send_state(self, state: ApplicableState, *, is_default: bool) -> None:
        """Tell the agent what to run."""
        self.send(wire.SetState(state, is_default))

    def replace(self) -> None:
        """Close: the same agent has dialled again."""
        self.on_lost()
        self._socket.close(1008, "replaced by a newer connection of the same agent")

    def send(self, message: wire.FromBalancer) -> None:
        """Send one control message, at once: a new state is on its way before it is confirmed."""
        self._socket.send_text(wire.encode(message))

    # --- for Stream ----------------------------------------------------------------------------

    def discard_rest(self, stream: Stream) -> Sink:
        """From here on, drop the tokens of ``stream``; its final frame is still noticed."""
        self.relay.close(stream.stream_id)
        sink = Sink(stream.stream_id, discard, 0, (), b"", self._clock(), 0)
        self.relay.open(sink)
        return sink

    def forget(self, stream: Stream) -> None:
        """Drop whatever still comes for ``stream``."""
        self.relay.close(stream.stream_id)
        del self._streams[stream.stream_id]

    # --- silence -------------------------------------------------------------------------------

    def _watch_until(self, when: float) -> None:
        """Look at the streams then, instead of at another time; infinity: not at all."""
        if self._watch is not None:
            self._watch.cancel()
        self._watch_at = when
        due = when < math.inf
        self._watch = self._loop.call_at(when, self._end_silent_streams) if due else None

    def _end_silent_streams(self) -> None:
        self._watch_at = math.inf
        now = self._loop.time()
        for stream in list(self._streams.values()):
            if stream.silent_until <= now:
                stream.on_silence()
        next_at = min((stream.silent_until for stream in self._streams.values()), default=math.inf)
        self._watch_until(next_at)
