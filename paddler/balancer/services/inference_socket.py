"""The inference WebSocket: many requests at once on one connection, each under its client's id."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from paddler._fastpath import FRAMING_WEBSOCKET, Sink
from paddler.balancer.desired_state import DesiredStateStore
from paddler.balancer.link import Agent
from paddler.balancer.relay import Dispatcher
from paddler.balancer.services.native_encoding import (
    TOKEN_SUFFIX,
    encode,
    error_message,
    final_message,
    result_message,
    token_prefixes,
)
from paddler.balancer.services.outlet import StreamingOutlet
from paddler.balancer.services.request_checks import TOKENS_DISABLED, require_known_properties
from paddler.balancer.tenants import Tenants
from paddler.errors import ClientError
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ContinueFromRawPrompt,
    Failure,
    GeneratedTokenResult,
    SocketNotification,
    SocketRequest,
    decode_loose_socket_message,
    decode_socket_message,
)
from paddler.messages.link import ConversationJob, FrameKind, RawPromptJob
from paddler.net.connection import Exchange
from paddler.net.http import Router
from paddler.net.websocket import WebSocketConnection, WebSocketSettings

log = logging.getLogger(__name__)

CLOSE_GOING_AWAY: Final = 1001
# Clients need not answer pings; a dead one is noticed by the bytes that it leaves unread.
UNPUNISHED_S: Final = 86_400.0


class InferenceSocketService:
    """Opens inference sockets and tells all of them when the fleet's mode changes."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        state: DesiredStateStore,
        tenants: Tenants,
        *,
        max_message_bytes: int,
    ) -> None:
        self._tenants = tenants
        self._dispatcher = dispatcher
        self._state = state
        self._settings = WebSocketSettings(
            max_message_bytes=max_message_bytes, dead_after_s=UNPUNISHED_S
        )
        self._sockets: set[InferenceSocket] = set()
        self._was_embedding = state.is_embedding
        state.watch(self._on_state)

    def add_routes(self, router: Router) -> None:
        """Register the socket."""
        router.add("GET", "/api/v1/inference_socket", self.connect)

    async def connect(self, exchange: Exchange) -> None:
        """``GET /api/v1/inference_socket``: upgrade, or 400."""
        tenant = exchange.request.principal
        exchange.accept_websocket(lambda socket: self._open(socket, tenant), self._settings)

    def drain(self) -> None:
        """Close each socket as soon as nothing runs on it."""
        for socket in list(self._sockets):
            socket.drain()

    def forget(self, socket: "InferenceSocket") -> None:
        """A socket is closed."""
        self._sockets.discard(socket)

    def _open(self, connection: WebSocketConnection, tenant: str) -> "InferenceSocket":
        request = partial(self._tenants.request, tenant)
        socket = InferenceSocket(self, connection, self._dispatcher, self._state, request)
        self._sockets.add(socket)
        if self._state.is_embedding:
            socket.notify_mode(is_embedding=True)
        return socket

    def _on_state(self) -> None:
        is_embedding = self._state.is_embedding
        if is_embedding != self._was_embedding:
            self._was_embedding = is_embedding
            for socket in self._sockets:
                socket.notify_mode(is_embedding=is_embedding)


class InferenceSocket:
    """One client's connection and the requests in flight on it."""

    def __init__(
        self,
        service: InferenceSocketService,
        connection: WebSocketConnection,
        dispatcher: Dispatcher,
        state: DesiredStateStore,
        request_under_way: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._request_under_way = request_under_way
        self._service = service
        self._connection = connection
        self._dispatcher = dispatcher
        self._state = state
        self._running: dict[str, asyncio.Task[None]] = {}
        self._is_draining = False

    def on_text(self, data: memoryview) -> None:
        """Take a request, the end of one, or an error to be logged."""
        try:
            message = decode_socket_message(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._refuse_malformed(data, error)
            return
        if isinstance(message.request, SocketRequest):
            self._take(message.request)
        elif isinstance(message.notification, SocketNotification):
            self._stop(message.notification.stop_responding_to)
        else:
            log.info("a client reports an error: %s", message.error)

    def on_binary(self, data: memoryview) -> None:
        """Nothing: requests are text."""

    def on_closed(self, code: int | None, reason: str) -> None:
        """The client is gone, and with it whoever waits for the answers."""
        self._service.forget(self)
        for task in self._running.values():
            task.cancel()

    def notify_mode(self, *, is_embedding: bool) -> None:
        """Tell the client whether tokens can be had."""
        mode = "TokenGenerationDisabled" if is_embedding else "TokenGenerationEnabled"
        self._connection.send_text(encode({"Notification": mode}))

    def drain(self) -> None:
        """Close, now or when the last request has ended."""
        self._is_draining = True
        if not self._running:
            self._connection.close(CLOSE_GOING_AWAY, "Server shutting down")

    def _take(self, request: SocketRequest) -> None:
        conversation, raw_prompt = request.request.conversation, request.request.raw_prompt
        job: ConversationJob | RawPromptJob
        if isinstance(conversation, ContinueFromConversationHistory):
            try:
                require_known_properties(conversation)
            except ClientError as error:
                self._fail(request.id, Failure(error.status, str(error)))
                return
            job = ConversationJob(conversation)
        else:
            assert isinstance(raw_prompt, ContinueFromRawPrompt)
            job = RawPromptJob(raw_prompt)
        if self._is_draining:
            self._fail(request.id, Failure(503, "balancer is shutting down"))
        elif self._state.is_embedding:
            disabled = encode(GeneratedTokenResult(token_generation_disabled=TOKENS_DISABLED))
            self._connection.send_text(result_message(disabled, None, request.id))
        elif request.id in self._running:
            quoted = encode(request.id).decode()
            text = f"Request id {quoted} is already in flight on this connection"
            self._fail(request.id, Failure(400, text))
        else:
            task = asyncio.create_task(self._answer(request.id, job), name=f"answer {request.id}")
            self._running[request.id] = task
            task.add_done_callback(lambda task: self._on_done(request.id, task))

    def _stop(self, request_id: str) -> None:
        """End a request without a word; ids that are unknown or done are fine."""
        if (task := self._running.get(request_id)) is not None:
            task.cancel()

    async def _answer(self, request_id: str, job: ConversationJob | RawPromptJob) -> None:
        try:
            with (
                self._request_under_way(),
                SocketOutlet(self._connection, request_id) as outlet,
            ):
                outcome = await self._dispatcher.run(job, outlet, route="socket")
        except ClientError as error:
            last = error_message(Failure(error.status, str(error)), request_id)
        else:
            last = final_message(outcome, request_id)
        # Whoever has read the last message may use its id again; the task ends a little later.
        del self._running[request_id]
        self._connection.send_text(last)

    def _on_done(self, request_id: str, task: asyncio.Task[None]) -> None:
        if self._running.get(request_id) is task:
            del self._running[request_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("request %s failed", request_id, exc_info=error)
            self._fail(request_id, Failure(500, "Internal server error"))
        if self._is_draining:
            self.drain()

    def _refuse_malformed(self, data: memoryview, error: Exception) -> None:
        """Answer under the request's id, if there is one to be read."""
        log.info("malformed message on an inference socket: %s", error)
        try:
            loose = decode_loose_socket_message(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        self._fail(loose.request.id, Failure(400, f"Json deserialize error: {error}"))

    def _fail(self, request_id: str, failure: Failure) -> None:
        self._connection.send_text(error_message(failure, request_id))


class SocketOutlet(StreamingOutlet):
    """One answer as text messages."""

    def __init__(self, connection: WebSocketConnection, request_id: str) -> None:
        super().__init__(connection.write_raw, FRAMING_WEBSOCKET, connection.flow, connection.abort)
        self._connection = connection
        self._request_id = request_id

    def open_sink(self, stream_id: int, agent: Agent, now: float) -> Sink:
        """Messages with this agent's name."""
        prefixes = token_prefixes(agent.name, self._request_id)
        return self._make_sink(stream_id, prefixes, TOKEN_SUFFIX, now)

    def on_result(self, kind: FrameKind, payload: bytes, agent: Agent) -> None:
        """Send one message."""
        self._connection.send_text(result_message(payload, agent.name, self._request_id))
