"""A real balancer whose agents are played: every state of a fleet, at once and at will.

The balancer is the real one, listeners and all, in a thread of its own; agents speak the real
link to it over loopback. Only what they say is made up.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self, TypeVar

import msgspec
import uvloop

from paddler import __version__
from paddler.balancer.app import Balancer
from paddler.messages import link as wire
from paddler.messages.agents import AgentDetails, AgentStatus
from paddler.messages.link import FrameKind
from paddler.messages.state import ApplicableState, fingerprint
from tests.balancer.services.running import Agent, Running, config_of, hello, local, request
from tests.clients.scripted import Turn
from tests.e2e.fleet import free_ports

T = TypeVar("T")

CALL_TIMEOUT_S: Final = 30.0
BABBLE_EVERY_S: Final = 0.1
TELL_EVERY_S: Final = 3.0
METADATA: Final = {
    "general.architecture": "llama",
    "general.name": "Staged 1B <script>alert(1)</script>",
    "llama.block_count": "16",
    "llama.context_length": "8192",
    "tokenizer.chat_template": "{% for message in messages %}\n{{ message.content }}\n{% endfor %}",
}


class StagedAgent:
    """One agent: what it says of itself can be changed, and it answers what it is asked."""

    def __init__(self, agent: Agent, agent_id: str, status: AgentStatus) -> None:
        self._agent = agent
        self.id = agent_id
        self.status = status
        self.streams: list[int] = []
        self.state: ApplicableState | None = None
        self.details: AgentDetails | None = None
        self.is_hanging = False
        self.turns: list[Turn] = []
        """How it answers the next requests; after them it says one word until it is stopped."""

    def report(self, **changes: Any) -> None:
        """Tell another status."""
        self.status = msgspec.structs.replace(self.status, **changes)
        self._agent.send(wire.StatusReport(self.status))

    def describe(self, **details: Any) -> None:
        """Tell details; those of an agent that serves, unless they say otherwise."""
        state = fingerprint(self.state) if self.state is not None else None
        known = {
            "host": "node-1",
            "started_at": time.time() - 3725,
            "engine": "llama-cpp-python 0.3.36",
            "devices": ("CPU (AVX2, F16C)",),
            "threads": 8,
            "cores": tuple(range(8)),
            "memory_bytes": 1_610_612_736,
            "phase": "serving",
            "wanted_state": state,
            "applied_state": state,
            "context_size": 8192,
        }
        self.details = AgentDetails(**(known | details))
        self._agent.send(wire.DetailsReport(self.details))

    def babble(self, tokens: int) -> None:
        """Say so many tokens in each answer that runs."""
        for stream_id in self.streams:
            for _ in range(tokens):
                self._agent.say(stream_id, FrameKind.CONTENT, b"word ")

    def finish(self) -> None:
        """End every answer that runs."""
        for stream_id in self.streams:
            self._agent.finish(stream_id)
        self.streams.clear()

    def leave(self) -> None:
        self._agent.leave()

    async def tell_again(self) -> None:
        """Be heard every few seconds, as agents are, unless this one hangs."""
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            if self.details is not None and not self.is_hanging:
                self._agent.send(wire.DetailsReport(self.details))

    async def live(self) -> None:
        """Hear what the balancer wants, until the link ends."""
        while True:
            message = await self._agent.hear()
            match message:
                case wire.StartStream() as start if self.turns:
                    self.turns.pop(0)(self._agent, start)
                case wire.StartStream(stream_id=stream_id):
                    self.streams.append(stream_id)
                    self._agent.say(stream_id, FrameKind.CONTENT, b"word ")
                case wire.StopStream(stream_id=stream_id):
                    if stream_id in self.streams:
                        self.streams.remove(stream_id)
                        self._agent.finish(stream_id)
                case wire.SetState(state=state):
                    self.state = state
                case wire.Question(number=number, ask=wire.AskMetadata()):
                    self._agent.send(wire.Answer(number, {"metadata": METADATA}))
                case wire.Question(number=number, ask=wire.AskTemplateOverride()):
                    override = self.state.chat_template_override if self.state else None
                    self._agent.send(wire.Answer(number, msgspec.to_builtins(override)))


class StagedFleet:
    """The balancer and its agents. Use as ``with``; every method may be called by a test."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self.ports = free_ports(4)
        self.panel = self.ports[3]
        self.inference = self.ports[1]
        self.agents: dict[str, StagedAgent] = {}
        self._clients: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- the balancer ---

    def start(self) -> None:
        """Start the balancer, without agents."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="staged")
        self._thread.start()
        assert ready.wait(CALL_TIMEOUT_S)

    def stop(self) -> None:
        """End it at once, as a crash would: links and streams are cut."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(CALL_TIMEOUT_S)
        self.agents.clear()
        self._clients.clear()
        self._tasks.clear()

    def _run(self, ready: threading.Event) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        names = (
            *("--management-addr", "--inference-addr"),
            *("--compat-openai-addr", "--web-admin-panel-addr"),
        )
        addresses = [
            word
            for name, port in zip(names, self.ports, strict=True)
            for word in (name, local(port))
        ]
        async with Balancer(config_of(*addresses, *self._flags)).running() as balancer:
            self.running = Running(balancer, self.ports)
            ready.set()
            await self._stopping.wait()
            for task in (*self._clients, *self._tasks):
                task.cancel()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something in the balancer's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CALL_TIMEOUT_S)

    def do(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call something in the balancer's thread."""

        async def run() -> T:
            return function(*arguments, **named)

        return self.call(run())

    def put_model(self, model: Any) -> None:
        """Ask for a model by what a reference holds."""

        async def put() -> None:
            state = msgspec.to_builtins(self.running.balancer.state.desired)
            answer = await self.running.put_state(state | {"model": model})
            assert answer.status == 204, answer.body

        self.call(put())

    # --- agents ---

    def join(
        self, agent_id: str, name: str | None = None, slots: int = 4, **status: Any
    ) -> StagedAgent:
        """An agent that is there; it serves a model unless its status says otherwise."""
        known: dict[str, Any] = {
            "desired_slots_total": slots,
            "slots_total": slots,
            "model_path": "/models/SmolLM2-135M-Instruct.Q4_1.gguf",
            "state_application_status": "Applied",
        }
        return self.call(self._join(agent_id, name, AgentStatus(**(known | status))))

    async def _join(self, agent_id: str, name: str | None, status: AgentStatus) -> StagedAgent:
        agent = await Agent.dial(self.running, agent_id)
        agent.send(msgspec.structs.replace(hello(name), version=__version__, status=status))
        assert isinstance(await agent.hear(), wire.Welcome)
        staged = StagedAgent(agent, agent_id, status)
        first = await agent.hear()
        assert isinstance(first, wire.SetState)
        staged.state = first.state
        self.agents[agent_id] = staged
        self._tasks += [
            asyncio.create_task(staged.live()),
            asyncio.create_task(staged.tell_again()),
        ]
        return staged

    def describe_all(self) -> None:
        """Have every agent tell details."""
        for agent in [*self.agents.values()]:
            self.do(agent.describe)

    def babble(self, tokens: int = 2) -> None:
        """Have every answer go on, from now on."""

        async def run() -> None:
            while True:
                for agent in self.agents.values():
                    agent.babble(tokens)
                await asyncio.sleep(BABBLE_EVERY_S)

        self.do(lambda: self._tasks.append(asyncio.create_task(run())))

    # --- clients ---

    def occupy(self, count: int) -> None:
        """Requests that stay: each takes a slot, or waits, or is refused."""
        self.do(lambda: self._clients.extend(self._ask() for _ in range(count)))

    def release(self) -> None:
        """All of them leave."""

        def cancel() -> None:
            for client in self._clients:
                client.cancel()
            self._clients.clear()

        self.do(cancel)

    def _ask(self) -> asyncio.Task[None]:
        body = msgspec.json.encode({"raw_prompt": "Go on", "max_tokens": 1000})

        async def ask() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.inference)
            try:
                path, json_type = (
                    "/api/v1/continue_from_raw_prompt",
                    "Content-Type: application/json\r\n",
                )
                writer.write(request("POST", path, body, json_type))
                while await reader.read(65536):
                    pass
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

        return asyncio.create_task(ask())
