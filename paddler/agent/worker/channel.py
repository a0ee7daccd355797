"""The worker's end of the pipe to the agent process."""

import select
import socket
from collections import deque
from typing import Final

from paddler.errors import RemoteProtocolError
from paddler.messages.worker import (
    MAX_PACKET_BYTES,
    PACKET_HEADER,
    FromWorker,
    PacketKind,
    Stop,
    ToWorker,
    decode_to_worker,
    encode,
    encode_packet,
)

# Room for seconds of tokens, so that a busy agent process does not hold up decoding.
SEND_BUFFER_BYTES: Final = 4 * 1024 * 1024
_RECEIVE_BYTES: Final = 256 * 1024
_LENGTH_BYTES: Final = 4


class ParentLeft(Exception):
    """The agent process closed the pipe or said :class:`Stop`: the worker ends now."""


class Channel:
    """Commands in, packets out. Both ways raise :class:`ParentLeft`.

    A send blocks while the agent process does not read: that holds up decoding, which is
    the backpressure wanted. Commands are still read meanwhile, so it always ends.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._sock = sock
        self._received = bytearray()
        self._commands: deque[ToWorker] = deque()

    def receive(self) -> ToWorker:
        """The next command; waits for it."""
        while (command := self.receive_nowait()) is None:
            self._wait_for(select.POLLIN)
        return command

    def wait(self, *, or_readable: int) -> None:
        """Return once a command may have come, or this descriptor can be read."""
        if not self._commands:
            self._wait_for(select.POLLIN, or_readable)

    def receive_nowait(self) -> ToWorker | None:
        """The next command, if one has come."""
        if not self._commands:
            self._read()
        return self._commands.popleft() if self._commands else None

    def send(self, message: FromWorker) -> None:
        """Send a control message, unless the parent has left meanwhile."""
        self._read()
        self._send(encode_packet(PacketKind.CONTROL, encode(message)))

    def send_frames(self, frames: bytes, finished: tuple[int, ...]) -> None:
        """Send a run of frames; ``finished``: streams whose last frame is in it."""
        self._send(encode_packet(PacketKind.DATA, frames, finished))

    def _send(self, packet: bytes) -> None:
        unsent = memoryview(packet)
        while unsent:
            try:
                unsent = unsent[self._sock.send(unsent) :]
            except BlockingIOError:
                self._wait_for(select.POLLIN | select.POLLOUT)
                self._read()
            except (BrokenPipeError, ConnectionResetError) as error:
                raise ParentLeft from error

    def _wait_for(self, events: int, or_readable: int | None = None) -> None:
        poller = select.poll()
        poller.register(self._sock, events)
        if or_readable is not None:
            poller.register(or_readable, select.POLLIN)
        poller.poll()

    def _read(self) -> None:
        while True:
            try:
                data = self._sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError as error:
                raise ParentLeft from error
            if not data:
                raise ParentLeft
            self._received += data
            self._parse()

    def _parse(self) -> None:
        received = self._received
        while len(received) >= PACKET_HEADER.size:
            length, kind, _, finished_count = PACKET_HEADER.unpack_from(received)
            if length > MAX_PACKET_BYTES or kind != PacketKind.CONTROL or finished_count:
                raise RemoteProtocolError(
                    f"the agent process sent a packet of kind {kind} with {length} bytes and "
                    f"{finished_count} stream ids; expected a control packet without ids of at "
                    f"most {MAX_PACKET_BYTES} bytes"
                )
            end = _LENGTH_BYTES + length
            if len(received) < end:
                return
            command = decode_to_worker(received[PACKET_HEADER.size : end])
            del received[:end]
            if isinstance(command, Stop):  # It overtakes what is queued before it.
                raise ParentLeft
            self._commands.append(command)
