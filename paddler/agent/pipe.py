"""The agent's end of the pipe to its worker: bytes to packets and back."""

import asyncio
import struct
from collections.abc import Callable
from typing import cast

from paddler.errors import RemoteProtocolError
from paddler.messages.worker import MAX_PACKET_BYTES, PACKET_HEADER, PacketKind

OnPacket = Callable[[PacketKind, bytes, tuple[int, ...]], None]


class PacketParser:
    """Cuts a byte stream into packets, the same ones however the bytes arrive. Sans-IO."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[PacketKind, bytes, tuple[int, ...]]]:
        """The packets that are whole now: kind, body, ids of the streams they finish."""
        self._buffer += data
        packets = []
        start = 0
        while len(self._buffer) - start >= PACKET_HEADER.size:
            length, kind, _, finished = PACKET_HEADER.unpack_from(self._buffer, start)
            body_at = start + PACKET_HEADER.size + 4 * finished
            end = start + 4 + length
            if length > MAX_PACKET_BYTES or body_at > end or kind not in (0, 1):
                raise RemoteProtocolError(f"bad packet header {self._buffer[start : start + 8]!r}")
            if len(self._buffer) < end:
                break
            ids = struct.unpack_from(f"<{finished}I", self._buffer, start + PACKET_HEADER.size)
            packets.append((PacketKind(kind), bytes(self._buffer[body_at:end]), ids))
            start = end
        del self._buffer[:start]
        return packets


class WorkerPipe(asyncio.Protocol):
    """Reads packets from the worker; ``on_lost`` once the worker's end is closed."""

    def __init__(self, on_packet: OnPacket, on_lost: Callable[[], None]) -> None:
        self._on_packet = on_packet
        self._on_lost = on_lost
        self._parser = PacketParser()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to the worker."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Hand on what is whole."""
        for packet in self._parser.feed(data):
            self._on_packet(*packet)

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker is gone, or is being closed."""
        self._transport = None
        self._on_lost()

    def send(self, packet: bytes) -> None:
        """Send one packet; nothing happens if the worker is gone."""
        if self._transport is not None:
            self._transport.write(packet)

    def hold(self, is_held: bool) -> None:
        """Stop or go on reading: a worker that cannot send waits, which slows it to our pace."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if is_held else self._transport.resume_reading)()

    def close(self) -> None:
        """Close our end; the worker ends when it sees that."""
        if self._transport is not None:
            self._transport.close()
