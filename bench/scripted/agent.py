"""One scripted agent: its link, its slots, its answers.

Its steps are a worker's: each of them says one token of every running answer, in one packet.
"""

import asyncio
import random
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from bench.scripted.answer import Answer
from bench.scripted.pacemaker import Pacemaker
from bench.scripted.script import Fault, Script
from bench.scripted.tally import Tally
from paddler import __version__
from paddler.agent.link import (
    CONNECT_TIMEOUT_S,
    FIRST_RETRY_S,
    LINK_SETTINGS,
    MAX_RETRY_S,
    LinkConnection,
)
from paddler.config import Address
from paddler.errors import PaddlerError
from paddler.messages import link as wire
from paddler.messages.agents import AgentDetails, AgentStatus
from paddler.messages.link import FRAME_FINAL, FrameKind, encode_data_frame
from paddler.messages.state import (
    ApplicableState,
    HuggingFaceModel,
    ModelReference,
    UrlModel,
    fingerprint,
)
from paddler.net.client import Backoff, connect_websocket
from paddler.net.websocket import WebSocketConnection

MODEL: Final = "/models/scripted.gguf"
METADATA: Final = {
    "general.architecture": "scripted",
    "general.name": "Scripted",
    "scripted.context_length": "8192",
    "tokenizer.chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
}
DETAILS_EVERY_S: Final = 5.0
GARBAGE: Final = b"\xff no frame \xff"
CLOSE_GOING_AWAY: Final = 1001


class ScriptedAgent:
    """Serves ``script.slots`` streams at once over one link, and dials again when it is lost."""

    def __init__(
        self,
        address: Address,
        agent_id: str,
        name: str,
        script: Script,
        pacemaker: Pacemaker,
        tally: Tally,
        dice: random.Random,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._agent_id = agent_id
        self._name = name
        self._script = script
        self._pacemaker = pacemaker
        self._tally = tally
        self._dice = dice
        self._answers: dict[int, Answer] = {}
        self._steps = 0
        self._is_due = False
        self._connection: LinkConnection | None = None
        self._started_at = time.time()
        self._state: ApplicableState | None = None
        self._leaving = asyncio.Event()
        self._welcomes = 0
        self._timers: list[asyncio.TimerHandle] = []
        self.joined = asyncio.Event()

    async def run(self, dialling: asyncio.Semaphore) -> None:
        """Connect and stay connected, until cancelled. ``dialling`` bounds a fleet's rush."""
        backoff = Backoff(FIRST_RETRY_S, MAX_RETRY_S, self._dice.random)
        while not self._leaving.is_set():
            try:
                async with dialling:
                    connection = await self._connect()
            except PaddlerError as error:
                self._tally.last_failure = str(error)
                await asyncio.sleep(backoff.next())
                continue
            try:
                await connection.wait_closed()
            except asyncio.CancelledError:
                connection.socket.abort("the agent ends")
                raise
            finally:
                self._forget_connection()
            if connection.refusal is not None:
                raise PaddlerError(f"the balancer refuses this agent: {connection.refusal}")
            if self._leaving.is_set():
                return
            if connection.is_welcome:
                backoff.reset()
            self._tally.links_lost += 1
            await asyncio.sleep(backoff.next())

    def leave(self) -> None:
        """Say goodbye and close; :meth:`run` ends with the connection."""
        self._leaving.set()
        if (connection := self._connection) is not None:
            connection.send(wire.Goodbye())
            connection.socket.close(CLOSE_GOING_AWAY, "the agent stops")

    async def _connect(self) -> LinkConnection:
        def greet(websocket: WebSocketConnection) -> LinkConnection:
            self._connection = LinkConnection(websocket, self)
            self._connection.send(
                wire.Hello(
                    protocol=wire.PROTOCOL_VERSION,
                    version=__version__,
                    name=self._name,
                    status=self._status(),
                )
            )
            return self._connection

        await connect_websocket(
            self._address.host,
            self._address.port,
            f"/api/v1/agent_socket/{self._agent_id}",
            greet,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            settings=LINK_SETTINGS,
        )
        assert self._connection is not None
        return self._connection

    def _forget_connection(self) -> None:
        self._connection = None
        self._answers.clear()
        self.joined.clear()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # --- from the link -------------------------------------------------------------------------

    def on_welcome(self) -> None:
        """The balancer took this agent in."""
        self._welcomes += 1
        self._tally.agents_joined += 1
        self.joined.set()
        self._tell_details()
        if (every_s := self._script.reconnect_every_s) is not None:
            self._later(every_s * self._dice.uniform(0.5, 1.5), self._hang_up)

    def on_state(self, message: wire.SetState) -> None:
        """Run this state: at once, as there is nothing to load."""
        before = self._status()
        self._state = message.state
        if (status := self._status()) != before:
            self._send(wire.StatusReport(status))

    def on_start(self, message: wire.StartStream) -> None:
        """Run a request."""
        self._tally.requests += 1
        if len(self._answers) >= self._script.slots:
            payload = wire.encode(wire.Returned("no slot is free"))
            self._tally.handed_back += 1
            self._say(
                encode_data_frame(message.stream_id, FrameKind.RETURNED, payload, FRAME_FINAL)
            )
            return
        now = time.monotonic()
        ready_at = now + self._script.prefill_s
        fault = self._script.draw_fault(self._dice)
        answer = Answer(message, self._script, ready_at=ready_at, fault=fault)
        self._answers[message.stream_id] = answer
        self._step_at(ready_at)

    def on_stop(self, message: wire.StopStream) -> None:
        """End a request, and confirm it."""
        if (answer := self._answers.pop(message.stream_id, None)) is not None:
            self._tally.stopped += 1
            self._say(answer.end("cancelled"))

    def on_question(self, message: wire.Question) -> None:
        """Answer as an agent does that has a model."""
        self._send(self._reply(message))

    def on_link_lost(self) -> None:
        """Nothing: whoever waits for the connection's end acts."""

    def on_flow(self, is_paused: bool) -> None:
        """Nothing: each step looks at it."""

    # --- steps ---------------------------------------------------------------------------------

    def _step_at(self, due_at: float) -> None:
        # While steps go on, a request that is ready joins the next one.
        if not self._is_due:
            self._is_due = True
            self._pacemaker.at(due_at, self._step)

    def _step(self, due_at: float) -> None:
        self._is_due = False
        connection = self._connection
        if connection is None or not self._answers:
            return
        script = self._script
        if connection.socket.flow.is_paused:
            self._tally.held_steps += 1
        else:
            self._say(self._speak(max(due_at, time.monotonic())))
        waiting = [answer.ready_at for answer in self._answers.values() if not answer.is_silent]
        if waiting:
            # No faster than the pace, and not before there is something to say.
            pause_s = script.step_s or (0.001 if connection.socket.flow.is_paused else 0.0)
            self._step_at(max(due_at + pause_s, min(waiting)))

    def _speak(self, now: float) -> bytes:
        """The packet of one step."""
        script = self._script
        self._steps += 1
        text = script.text(self._steps)
        frames: list[bytes] = []
        ended: list[Answer] = []
        for answer in self._answers.values():
            if answer.ready_at > now or answer.is_silent:
                continue
            if answer.batch is not None:
                frames.append(answer.embeddings(answer.batch))
                ended.append(answer)
                continue
            count = 1 if script.tokens_per_s else answer.left
            if answer.fault is not None and answer.left - count < answer.fault_at:
                self._tally.faults += 1
                if not self._break(answer, answer.fault):
                    return b""
                continue
            if answer.left:
                frames.append(answer.tokens(text, count))
                self._tally.tokens += count
            if not answer.left:
                frames.append(answer.end(answer.reason))
                ended.append(answer)
        for answer in ended:
            del self._answers[answer.stream_id]
        self._tally.finished += len(ended)
        return b"".join(frames)

    def _break(self, answer: Answer, fault: Fault) -> bool:
        """Let a fault strike; whether the link is still there afterwards."""
        match fault:
            case Fault.STALL:
                answer.is_silent = True
                return True
            case Fault.DROP:
                self._hang_up()
            case Fault.GARBAGE:
                self._say(GARBAGE)
        return False

    def _say(self, packet: bytes) -> None:
        if packet and self._connection is not None:
            self._tally.packets += 1
            self._connection.socket.send_binary(packet)

    def _send(self, message: wire.FromAgent) -> None:
        if self._connection is not None:
            self._connection.send(message)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._answers.clear()
            self._connection.socket.abort("a scripted fault")

    # --- what it says of itself ----------------------------------------------------------------

    def _later(self, after_s: float, act: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(after_s, act))

    def _tell_details(self) -> None:
        self._send(wire.DetailsReport(self._details()))
        if len(self._timers) > 8:  # fired ones need not be kept
            self._timers = [timer for timer in self._timers if timer.when() > self._loop.time()]
        self._later(DETAILS_EVERY_S, self._tell_details)

    def _status(self) -> AgentStatus:
        override = self._state is not None and self._state.chat_template_override is not None
        return AgentStatus(
            desired_slots_total=self._script.slots,
            slots_total=self._script.slots,
            model_path=MODEL if self._state is None else path_of(self._state.model),
            state_application_status="Fresh" if self._state is None else "Applied",
            uses_chat_template_override=override,
        )

    def _details(self) -> AgentDetails:
        state = None if self._state is None else fingerprint(self._state)
        return AgentDetails(
            host=socket.gethostname(),
            started_at=round(self._started_at, 3),
            engine=f"scripted {__version__}",
            devices=("no device: scripted",),
            phase="serving",
            wanted_state=state,
            applied_state=state,
            loaded_model=MODEL if self._state is None else path_of(self._state.model),
            context_size=8192
            if self._state is None
            else self._state.inference_parameters.context_size,
            reconnects=max(0, self._welcomes - 1),
        )

    def _reply(self, question: wire.Question) -> wire.Answer:
        value: Any = None
        match question.ask:
            case wire.AskMetadata():
                value = {"metadata": METADATA}
            case wire.AskTemplateOverride():
                if self._state is not None:
                    value = msgspec.to_builtins(self._state.chat_template_override)
            case wire.RenderTemplate() as render:
                value = "".join(str(message.get("content", "")) for message in render.messages)
        return wire.Answer(question.number, value)


def path_of(model: ModelReference) -> str:
    """Where a real agent would have this model; a scripted one serves without one, too."""
    if isinstance(model, str):
        return MODEL
    if isinstance(hub := model.hugging_face, HuggingFaceModel):
        return f"/models/{hub.repo_id}/{hub.filename}"
    if isinstance(model.url, UrlModel):
        return f"/models/{model.url.url.rpartition('/')[2]}"
    return str(model.local_to_agent)
