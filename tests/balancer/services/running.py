"""A real balancer on free loopback ports, with clients and agents played by a test."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, Self

import msgspec
import uvloop

from paddler import __version__
from paddler.balancer.app import Balancer
from paddler.cli import balancer_config, build_parser
from paddler.config import BalancerConfig
from paddler.messages import link as wire
from paddler.messages.agents import AgentStatus
from paddler.messages.inference import TokenUsage
from paddler.messages.link import FRAME_FINAL, FrameKind, encode_data_frame
from paddler.net.client import connect_websocket
from paddler.net.websocket import WebSocketConnection
from tests.e2e.fleet import free_ports
from tests.net.peers import Answer, Client, Recorder

TEST_TIMEOUT_S = 20.0
JSON_TYPE = "Content-Type: application/json\r\n"
DESIRED_STATE = "/api/v1/balancer_desired_state"


def config_of(*flags: str) -> BalancerConfig:
    """The configuration for ``paddler balancer`` with these flags."""
    return balancer_config(build_parser().parse_args(["balancer", *flags]))


class Running:
    """A balancer with all four listeners."""

    def __init__(self, balancer: Balancer, ports: list[int]) -> None:
        self.balancer = balancer
        self.management, self.inference, self.openai, self.panel = ports

    async def ask(
        self,
        port: int,
        method: str,
        path: str,
        body: bytes = b"",
        fields: str = "",
        host: str = "a",
    ) -> Answer:
        """One request on a connection of its own."""
        async with Client(*await asyncio.open_connection("127.0.0.1", port)) as client:
            return await client.ask(request(method, path, body, fields, host))

    async def get(self, port: int, path: str, fields: str = "") -> Answer:
        return await self.ask(port, "GET", path, fields=fields)

    async def post(self, port: int, path: str, body: object) -> Answer:
        return await self.ask(port, "POST", path, json.dumps(body).encode(), JSON_TYPE)

    async def put_state(self, state: object) -> Answer:
        encoded = msgspec.json.encode(state)
        return await self.ask(self.management, "PUT", DESIRED_STATE, encoded, JSON_TYPE)

    def management_connections(self) -> int:
        """Open connections of that listener, links included."""
        return self.balancer.count_connections()["management"]

    async def agents(self) -> list[dict[str, Any]]:
        answer = await self.get(self.management, "/api/v1/agents")
        agents: list[dict[str, Any]] = json.loads(answer.body)["agents"]
        return agents


def request(method: str, path: str, body: bytes = b"", fields: str = "", host: str = "a") -> bytes:
    """The bytes of one request."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}{fields}\r\n".encode() + body


def on_balancer(test: Callable[[Running], Coroutine[Any, Any, None]], *flags: str) -> None:
    """Run ``test`` on a balancer with these flags; nothing of either is left afterwards."""

    async def run() -> None:
        ports = free_ports(4)
        names = (
            *("--management-addr", "--inference-addr"),
            *("--compat-openai-addr", "--web-admin-panel-addr"),
        )
        addresses = [
            word for name, port in zip(names, ports, strict=True) for word in (name, local(port))
        ]
        async with asyncio.timeout(TEST_TIMEOUT_S):
            async with Balancer(config_of(*addresses, *flags)).running() as balancer:
                await test(Running(balancer, ports))
            while leftover := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(leftover)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def local(port: int) -> str:
    return f"127.0.0.1:{port}"


# --- an agent -----------------------------------------------------------------------------------


def hello(
    name: str | None = "gpu-1", slots: int = 1, protocol: int = wire.PROTOCOL_VERSION
) -> wire.Hello:
    """The first message of an agent that is ready."""
    status = AgentStatus(desired_slots_total=slots, slots_total=slots)
    return wire.Hello(protocol=protocol, version=__version__, name=name, status=status)


class Agent:
    """The agent's end of a link."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @classmethod
    async def dial(cls, running: Running, agent_id: str = "id-1") -> Self:
        """Connected, and silent yet."""
        recorders: list[Recorder] = []

        def open_handler(connection: WebSocketConnection) -> Recorder:
            recorders.append(Recorder(connection))
            return recorders[0]

        path = f"/api/v1/agent_socket/{agent_id}"
        await connect_websocket(
            "127.0.0.1", running.management, path, open_handler, connect_timeout_s=5.0
        )
        return cls(recorders[0])

    @classmethod
    async def join(
        cls, running: Running, agent_id: str = "id-1", name: str | None = "gpu-1", slots: int = 1
    ) -> Self:
        """Connected and welcome."""
        agent = await cls.dial(running, agent_id)
        agent.send(hello(name, slots))
        assert isinstance(await agent.hear(), wire.Welcome)
        assert isinstance(await agent.hear(), wire.SetState)
        return agent

    def send(self, message: wire.FromAgent) -> None:
        self.send_text(wire.encode(message))

    def send_text(self, data: bytes) -> None:
        self._recorder.connection.send_text(data)

    async def hear(self) -> wire.FromBalancer:
        """The balancer's next message."""
        kind, data = await self._recorder.messages.get()
        assert kind == "text"
        return wire.decode_from_balancer(data)

    async def hear_start(self) -> wire.StartStream:
        """The balancer's next message, which must be a request."""
        message = await self.hear()
        assert isinstance(message, wire.StartStream), message
        return message

    async def closed(self) -> tuple[int | None, str]:
        """Code and reason of the link's end."""
        return await self._recorder.closed

    def leave(self) -> None:
        self._recorder.connection.close()

    def say(self, stream_id: int, kind: FrameKind, payload: bytes, flags: int = 0) -> None:
        """Send one frame."""
        frame = encode_data_frame(stream_id, kind, payload, flags)
        self._recorder.connection.send_binary(frame)

    def finish(self, stream_id: int, reason: str = "stop") -> None:
        """End an answer of which two tokens were said."""
        usage = TokenUsage(prompt_tokens=5, cached_prompt_tokens=3, content_tokens=3)
        payload = wire.encode(wire.Finished(usage, reason))
        self.say(stream_id, FrameKind.DONE, payload, FRAME_FINAL)

    def fail(self, stream_id: int, result: dict[str, Any]) -> None:
        """End an answer with a result that is an error."""
        self.say(stream_id, FrameKind.FAILED, json.dumps(result).encode(), FRAME_FINAL)
