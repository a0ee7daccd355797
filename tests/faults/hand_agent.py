"""An agent without a model, whose every message is a test's."""

import contextlib
from collections.abc import Iterable
from typing import Any, Final, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from paddler import __version__
from paddler.messages import link as wire
from paddler.messages.agents import AgentStatus
from paddler.messages.inference import TokenUsage
from paddler.messages.link import FRAME_FINAL, Finished, FrameKind, encode_data_frame

HEARD_WITHIN_S: Final = 60.0


class HandAgent:
    """One connection of an agent, joined. Use as ``with``."""

    def __init__(self, port: int, agent_id: str, name: str, slots: int) -> None:
        url = f"ws://127.0.0.1:{port}/api/v1/agent_socket/{agent_id}"
        self._stack = contextlib.ExitStack()
        # No limit of what is unread: the client would stop reading there, pings included.
        socket = connect(url, compression=None, ping_interval=None, close_timeout=1, max_queue=None)
        self._socket: ClientConnection = self._stack.enter_context(socket)
        self._socket.send(hello(name, slots).decode())
        self.next(wire.SetState)  # it comes behind the welcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def next(self, kind: type[Any]) -> Any:
        """The next message of that kind; others are passed over."""
        while True:
            message = wire.decode_from_balancer(self._socket.recv(timeout=HEARD_WITHIN_S))
            if isinstance(message, kind):
                return message

    def say(self, stream_ids: Iterable[int], text: bytes) -> None:
        """Tell a token on each of these streams, in one message."""
        frames = (encode_data_frame(one, FrameKind.CONTENT, text) for one in stream_ids)
        self._socket.send(b"".join(frames))

    def finish(self, stream_ids: Iterable[int]) -> None:
        """End each of these streams well."""
        payload = wire.encode(Finished(TokenUsage(), "stop"))
        frames = (
            encode_data_frame(one, FrameKind.DONE, payload, FRAME_FINAL) for one in stream_ids
        )
        self._socket.send(b"".join(frames))

    def closed(self) -> tuple[int, str]:
        """How the balancer ended the connection, once it has."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._socket.recv(timeout=HEARD_WITHIN_S)
        code = self._socket.close_code
        assert code is not None
        return code, self._socket.close_reason or ""


def hello(name: str, slots: int) -> bytes:
    """An agent's first message."""
    status = AgentStatus(desired_slots_total=slots, slots_total=slots)
    return wire.encode(
        wire.Hello(protocol=wire.PROTOCOL_VERSION, version=__version__, name=name, status=status)
    )
