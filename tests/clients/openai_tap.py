"""A proxy before the OpenAI-compatible service that checks all that passes.

Any client may speak through it. Once they are done, every answer is held against what OpenAI
publishes: whole answers, each chunk and event, their order, errors.
"""

import base64
import contextlib
import json
import re
import socket
import struct
import threading
from typing import Any, Final, Self

import msgspec

from paddler.proto.events import BodyEnd, BodyPart, Headers, HttpEvent, RequestHead, ResponseHead
from paddler.proto.http1 import ClientConnection, ServerConnection
from tests.clients.openai_document import require_shape
from tests.clients.openai_streams import data_of, require_chunks, require_events

# Of each path: what a whole answer is, and each piece of a streamed one.
ANSWERS: Final = (
    (r"/v1/chat/completions", "chat", "chat chunk"),
    (r"/v1/completions", "completion", "completion chunk"),
    (r"/v1/embeddings", "embeddings", None),
    (r"/v1/models", "models", None),
    (r"/v1/models/[^/]+", "model", None),
    (r"/v1/responses", "response", "response"),
)


class Exchange(msgspec.Struct):
    """A request and what came of it. ``is_whole``: the answer was not cut short."""

    method: str
    path: str
    sent: bytes
    status: int
    headers: Headers
    body: bytes
    is_whole: bool

    @property
    def request(self) -> Any:
        """What the client asked."""
        return json.loads(self.sent)

    def check(self) -> None:
        """Hold the answer against what OpenAI publishes."""
        if self.status >= 400:
            require_shape("error", json.loads(self.body))
            return
        whole, piece = next(
            (whole, piece) for path, whole, piece in ANSWERS if re.fullmatch(path, self.path)
        )
        if self.headers.get("content-type") == "text/event-stream":
            data = data_of(self.body, is_whole=self.is_whole)
            if piece == "response":
                require_events(data, is_whole=self.is_whole)
            else:
                assert piece is not None
                require_chunks(piece, data, is_whole=self.is_whole)
        elif self.is_whole:
            assert self.headers.get("content-type") == "application/json"
            require_shape(whole, _unpacked(json.loads(self.body)))


def _unpacked(answer: Any) -> Any:
    """The answer with its vectors as numbers; clients ask for base64 and unpack it themselves."""
    for one in answer.get("data", []):
        if isinstance(packed := one.get("embedding"), str):
            one["embedding"] = [
                value for (value,) in struct.iter_unpack("<f", base64.b64decode(packed))
            ]
    return answer


class _Connection:
    """What passed on one connection, either way."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.sockets = (client, server)
        self.sent = bytearray()
        self.received = bytearray()

    def exchanges(self) -> list[Exchange]:
        reader = ServerConnection()
        events = reader.feed(bytes(self.sent))
        answers: ClientConnection | None = None
        found = []
        while events and isinstance(events[-1], BodyEnd):
            head = next(event for event in events if isinstance(event, RequestHead))
            if answers is None:
                answers = ClientConnection(head.method)
                answer = answers.feed(bytes(self.received))
            else:
                answer = answers.next_response(head.method)
            response = next((event for event in answer if isinstance(event, ResponseHead)), None)
            if response is None:
                break  # the client left before the answer
            found.append(
                Exchange(
                    method=head.method,
                    path=head.path,
                    sent=_body(events),
                    status=response.status,
                    headers=response.headers,
                    body=_body(answer),
                    is_whole=isinstance(answer[-1], BodyEnd),
                )
            )
            events = reader.next_request()
        return found


def _body(events: list[HttpEvent]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, BodyPart))


class Tap:
    """Listens before ``port``, and checks all answers at its end. Use as ``with``."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[_Connection] = []
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        """What clients take for OpenAI's address."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    @property
    def exchanges(self) -> list[Exchange]:
        """All that passed so far."""
        return [one for connection in self._connections for one in connection.exchanges()]

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        _end(self._listener)
        self._listener.close()
        self._threads[0].join()  # from here on, no connection is added
        for connection in self._connections:
            for end in connection.sockets:
                _end(end)
        for thread in self._threads:
            thread.join()
        for connection in self._connections:
            for end in connection.sockets:
                end.close()
        if kind is None:
            exchanges = self.exchanges
            assert exchanges, "no client spoke"
            for exchange in exchanges:
                exchange.check()

    def _start(self, run: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=run, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                connection = _Connection(client, server)
                self._connections.append(connection)
                self._start(_pump, client, server, connection.sent)
                self._start(_pump, server, client, connection.received)


def _pump(source: socket.socket, target: socket.socket, record: bytearray) -> None:
    """Pass everything on; the end of one side is that of both."""
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            record += data
            target.sendall(data)
    _end(source)
    _end(target)


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
