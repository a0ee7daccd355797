"""The agent socket: where agents dial in and stay connected."""

import asyncio
import logging
import re
from typing import Final

import msgspec

from paddler import __version__
from paddler.balancer.chronicle import Chronicle
from paddler.balancer.desired_state import DesiredStateStore
from paddler.balancer.link import Agent, AgentLink, Pool
from paddler.errors import ClientError, RemoteProtocolError
from paddler.messages import link as wire
from paddler.net.connection import Exchange
from paddler.net.http import Router
from paddler.net.websocket import WebSocketConnection, WebSocketSettings

log = logging.getLogger(__name__)

# What waits for an agent is bounded by its slots times the largest request; an agent that
# is gone is noticed by its silence, not by what a large request leaves unsent for a moment.
LINK_SETTINGS: Final = WebSocketSettings(
    max_message_bytes=wire.MAX_MESSAGE_BYTES, max_unsent_bytes=1024 * wire.MAX_MESSAGE_BYTES
)
AGENT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class AgentsService:
    """Takes agents' connections in and tells every agent each new state."""

    def __init__(self, pool: Pool, state: DesiredStateStore, chronicle: Chronicle) -> None:
        self._pool = pool
        self._state = state
        self._chronicle = chronicle
        state.watch(self._tell_all)

    def add_routes(self, router: Router) -> None:
        """Register the socket."""
        router.add("GET", "/api/v1/agent_socket/{agent_id}", self.connect)

    async def connect(self, exchange: Exchange) -> None:
        """``GET /api/v1/agent_socket/{agent_id}``: a WebSocket that speaks the link protocol."""
        if "origin" in exchange.request.headers:
            # Only browsers send it, for any page that is open in them; no agent is a page.
            raise ClientError("agents are no web pages", status=403, code="origin")
        agent_id = exchange.request.params["agent_id"]
        if not AGENT_ID.fullmatch(agent_id):
            raise ClientError(f"agent id {agent_id!r}: expected up to 64 of A-Z a-z 0-9 _ -")
        address = exchange.peer
        exchange.accept_websocket(
            lambda socket: AgentSocket(
                socket, agent_id, address, self._pool, self._state, self._chronicle
            ),
            LINK_SETTINGS,
        )

    def _tell_all(self) -> None:
        for agent in self._pool.agents:
            agent.link.send_state(self._state.applicable, is_default=self._state.is_default)


class AgentSocket:
    """One agent's connection: first a ``Hello``, then reports and data."""

    def __init__(
        self,
        socket: WebSocketConnection,
        agent_id: str,
        address: str,
        pool: Pool,
        state: DesiredStateStore,
        chronicle: Chronicle,
    ) -> None:
        self._socket = socket
        self._agent_id = agent_id
        self._address = address
        self._pool = pool
        self._state = state
        self._chronicle = chronicle
        self._link = AgentLink(socket, asyncio.get_running_loop().time)
        self._agent: Agent | None = None
        self._is_leaving = False
        socket.relay_to(self._link.relay, wire.MAX_MESSAGE_BYTES, self._link.on_frames)

    def on_text(self, data: memoryview) -> None:
        """Take a control message."""
        self._link.on_heard()
        try:
            message = wire.decode_from_agent(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteProtocolError(f"control message: {error}", close_code=1007) from error
        match message:
            case wire.Hello():
                self._greet(message)
            case wire.StatusReport():
                self._pool.update(self._joined(), message.status)
            case wire.DetailsReport():
                self._pool.describe(self._joined(), message.details)
            case wire.Answer():
                self._link.on_answer(message)
            case wire.Goodbye():
                log.info("%s says goodbye", self._joined().label)
                self._is_leaving = True

    def on_binary(self, data: memoryview) -> None:
        """Take a data message."""
        self._link.on_data(data)

    def on_closed(self, code: int | None, reason: str) -> None:
        """The connection is gone."""
        self._link.on_lost()
        why = self._link.end_reason or reason or f"closed with code {code}"
        agent = self._agent
        if agent is not None and self._pool.leave(agent, why, for_good=self._is_leaving):
            log.info("%s (%s) left: %s", agent.label, self._agent_id, why)

    def _joined(self) -> Agent:
        if self._agent is None:
            raise RemoteProtocolError("the first message must be a hello")
        return self._agent

    def _greet(self, hello: wire.Hello) -> None:
        if self._agent is not None:
            raise RemoteProtocolError("a second hello on one connection")
        if hello.protocol != wire.PROTOCOL_VERSION:
            reason = (
                f"agent {hello.version} speaks link protocol {hello.protocol}, balancer "
                f"{__version__} speaks {wire.PROTOCOL_VERSION}: install the same version on both"
            )
            is_news = self._chronicle.on_refused(self._agent_id, hello.name, reason)
            level = logging.ERROR if is_news else logging.DEBUG
            log.log(level, "refused agent %s: %s", self._agent_id, reason)
            self._link.send(wire.Refused(reason))
            self._socket.close(1008, "link protocol versions differ")
            return
        # Welcome first: joining may hand the agent waiting requests at once.
        self._link.send(wire.Welcome(wire.PROTOCOL_VERSION, __version__))
        self._link.send_state(self._state.applicable, is_default=self._state.is_default)
        self._agent = self._pool.join(
            self._agent_id,
            hello.name,
            hello.status,
            self._link,
            version=hello.version,
            address=self._address,
        )
        log.info("%s (%s) joined, version %s", self._agent.label, self._agent_id, hello.version)
