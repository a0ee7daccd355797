"""The agent's connection to the balancer: dial, say who we are, carry messages, dial again."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from paddler import __version__
from paddler.config import Address, Dialling, split_address
from paddler.errors import PaddlerError, RemoteProtocolError
from paddler.keys import read_key
from paddler.messages import link as wire
from paddler.messages.agents import AgentDetails, AgentStatus
from paddler.net.client import Backoff, connect_websocket
from paddler.net.websocket import WebSocketConnection, WebSocketSettings
from paddler.proto.events import Fields
from paddler.tls import client_context

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
FIRST_RETRY_S: Final = 0.2
MAX_RETRY_S: Final = 3.0
LINK_SETTINGS: Final = WebSocketSettings(
    max_message_bytes=wire.MAX_MESSAGE_BYTES, max_unsent_bytes=wire.MAX_MESSAGE_BYTES
)
CLOSE_GOING_AWAY: Final = 1001
OPENLY: Final = Dialling()


class LinkListener(Protocol):
    """Who acts on what the balancer says."""

    def on_welcome(self) -> None:
        """The balancer took this agent in."""

    def on_state(self, message: wire.SetState) -> None:
        """Run this state."""

    def on_start(self, message: wire.StartStream) -> None:
        """Run a request."""

    def on_stop(self, message: wire.StopStream) -> None:
        """End a request."""

    def on_question(self, message: wire.Question) -> None:
        """Answer, soon, with :meth:`Link.send_answer`."""

    def on_link_lost(self) -> None:
        """The connection is gone; a new one is being tried."""

    def on_flow(self, is_paused: bool) -> None:
        """The balancer reads more slowly than data is sent, or keeps up again."""


class Link:
    """Keeps one connection to the balancer, for ever."""

    def __init__(
        self,
        address: Address,
        agent_id: str,
        name: str | None,
        status: Callable[[], AgentStatus],
        listener: LinkListener,
        dialling: Dialling = OPENLY,
    ) -> None:
        """``dialling``: its files are read anew for each try, so that they can be replaced."""
        self._dialling = dialling
        self._address = address
        self._path = f"/api/v1/agent_socket/{agent_id}"
        self._name = name
        self._status = status
        self._listener = listener
        self._connection: LinkConnection | None = None
        self._is_leaving = False

    async def run(self) -> None:
        """Connect and stay connected, until cancelled or after :meth:`say_goodbye`."""
        backoff = Backoff(FIRST_RETRY_S, MAX_RETRY_S, random.random)
        was_told = ""
        while True:
            try:
                connection = await self._connect()
            except PaddlerError as error:
                # Say it once, not at every try.
                level = logging.WARNING if str(error) != was_told else logging.DEBUG
                log.log(level, "cannot reach the balancer at %s: %s", self._address.text, error)
                was_told = str(error)
                await asyncio.sleep(backoff.next())
                continue
            try:
                reason = await connection.wait_closed()
            finally:
                self._connection = None
                self._listener.on_link_lost()
            if self._is_leaving:
                return
            if connection.is_welcome:
                backoff.reset()
                was_told = ""
            what = "lost the balancer at %s: %s"
            if connection.refusal is not None:
                what, reason = "the balancer at %s refuses this agent: %s", connection.refusal
            level = logging.WARNING if reason != was_told else logging.DEBUG
            log.log(level, what, self._address.text, reason)
            was_told = reason
            await asyncio.sleep(backoff.next())

    def send_status(self, status: AgentStatus) -> None:
        """Report a change; without a connection the next ``Hello`` carries it."""
        if self._connection is not None:
            self._connection.send(wire.StatusReport(status))

    def send_details(self, details: AgentDetails) -> None:
        """Tell more of this agent; without a connection it is told after the next welcome."""
        if self._connection is not None and self._connection.is_welcome:
            self._connection.send(wire.DetailsReport(details))

    def send_answer(self, answer: wire.Answer) -> None:
        """Answer a question; dropped without a connection, as nobody waits for it then."""
        if self._connection is not None:
            self._connection.send(answer)

    def send_data(self, message: bytes) -> None:
        """Send a data message; dropped without a connection, as nobody waits for it then."""
        if self._connection is not None:
            self._connection.socket.send_binary(message)

    def say_goodbye(self) -> None:
        """Tell the balancer that this agent stops on purpose, and close."""
        self._is_leaving = True
        if self._connection is not None:
            self._connection.send(wire.Goodbye())
            self._connection.socket.close(CLOSE_GOING_AWAY, "the agent stops")

    async def wait_closed(self) -> None:
        """Return once there is no connection."""
        if self._connection is not None:
            await self._connection.wait_closed()

    async def _connect(self) -> "LinkConnection":
        # The name is looked up anew each time: the balancer may come back elsewhere.
        host, port = split_address(self._address.text)
        dialling = self._dialling
        headers: Fields = ()
        if dialling.key_file is not None:
            key = read_key(dialling.key_file, flag=dialling.key_flag)
            headers = (("authorization", f"Bearer {key}"),)
        await connect_websocket(
            host,
            port,
            self._path,
            self._greet,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            settings=LINK_SETTINGS,
            headers=headers,
            tls=client_context(dialling.tls) if dialling.tls is not None else None,
        )
        assert self._connection is not None
        return self._connection

    def _greet(self, socket: WebSocketConnection) -> "LinkConnection":
        self._connection = LinkConnection(socket, self._listener)
        self._connection.send(
            wire.Hello(
                protocol=wire.PROTOCOL_VERSION,
                version=__version__,
                name=self._name,
                status=self._status(),
            )
        )
        return self._connection


class LinkConnection:
    """One connection, from its handshake to its end."""

    def __init__(self, socket: WebSocketConnection, listener: LinkListener) -> None:
        self.socket = socket
        self.is_welcome = False
        self.refusal: str | None = None
        self._listener = listener
        self._closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        socket.flow.on_change(listener.on_flow)

    def send(self, message: wire.FromAgent) -> None:
        """Send one control message."""
        self.socket.send_text(wire.encode(message))

    async def wait_closed(self) -> str:
        """Why the connection ended, once it has."""
        return await asyncio.shield(self._closed)

    def on_text(self, data: memoryview) -> None:
        """Take a control message."""
        try:
            message = wire.decode_from_balancer(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteProtocolError(f"control message: {error}", close_code=1007) from error
        match message:
            case wire.Welcome():
                self.is_welcome = True
                log.info("connected to balancer %s", message.version)
                self._listener.on_welcome()
            case wire.Refused():
                self.refusal = message.reason
            case wire.SetState():
                self._listener.on_state(message)
            case wire.StartStream():
                self._listener.on_start(message)
            case wire.StopStream():
                self._listener.on_stop(message)
            case wire.Question():
                self._listener.on_question(message)

    def on_binary(self, data: memoryview) -> None:
        """The balancer sends no data messages."""
        raise RemoteProtocolError("a data message from the balancer")

    def on_closed(self, code: int | None, reason: str) -> None:
        """The connection is gone."""
        if not self._closed.done():
            self._closed.set_result(reason or f"closed with code {code}")
