"""Reads what a worker sends: packets off its pipe, frames out of packets."""

import json
import socket
import struct
from typing import Any, NamedTuple

import msgspec

from paddler.messages.inference import TokenUsage
from paddler.messages.link import FRAME_FINAL, FRAME_HEADER, FrameKind, decode_finished
from paddler.messages.worker import (
    PACKET_HEADER,
    FromWorker,
    PacketKind,
    decode_from_worker,
    encode,
    encode_packet,
)


class Frame(NamedTuple):
    stream_id: int
    kind: FrameKind
    is_final: bool
    payload: bytes

    @property
    def text(self) -> str:
        return str(json.loads(b'"' + self.payload + b'"'))

    @property
    def error(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.payload)
        return decoded


def split_frames(data: bytes) -> list[Frame]:
    frames = []
    while data:
        stream_id, kind, flags, _, length = FRAME_HEADER.unpack_from(data)
        end = FRAME_HEADER.size + length
        payload = data[FRAME_HEADER.size : end]
        frames.append(Frame(stream_id, FrameKind(kind), bool(flags & FRAME_FINAL), payload))
        data = data[end:]
    return frames


class Answer:
    """All frames of one stream, put together."""

    def __init__(self, frames: list[Frame]) -> None:
        assert [frame.is_final for frame in frames] == [False] * (len(frames) - 1) + [True]
        *tokens, self.end = frames
        assert {frame.kind for frame in tokens} <= {FrameKind.UNDETERMINABLE}
        self.texts = [frame.text for frame in tokens]

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def reason(self) -> str:
        assert self.end.kind is FrameKind.DONE, self.end
        return decode_finished(self.end.payload).reason

    @property
    def usage(self) -> TokenUsage:
        assert self.end.kind is FrameKind.DONE, self.end
        return decode_finished(self.end.payload).usage

    @property
    def error(self) -> dict[str, Any]:
        assert self.end.kind is FrameKind.FAILED, self.end
        return self.end.error


class Data(NamedTuple):
    frames: list[Frame]
    finished: tuple[int, ...]


class WorkerEnd:
    """The agent process' end of the pipe, blocking with a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(60)
        self.sock = sock

    def send(self, *commands: msgspec.Struct) -> None:
        packets = (encode_packet(PacketKind.CONTROL, encode(command)) for command in commands)
        self.sock.sendall(b"".join(packets))

    def receive(self) -> FromWorker | Data:
        (length,) = struct.unpack("<I", self._read(4))
        packet = self._read(length)
        kind, _, finished_count = struct.unpack_from("<BBH", packet)
        begin = PACKET_HEADER.size - 4
        body = begin + 4 * finished_count
        if kind == PacketKind.CONTROL:
            return decode_from_worker(packet[body:])
        finished = struct.unpack_from(f"<{finished_count}I", packet, begin)
        frames = split_frames(packet[body:])
        assert {frame.stream_id for frame in frames if frame.is_final} == set(finished)
        return Data(frames, finished)

    def receive_data(self) -> Data:
        received = self.receive()
        assert isinstance(received, Data), received
        return received

    def answers(self, *stream_ids: int) -> dict[int, Answer]:
        """Read until all these streams have ended."""
        frames: dict[int, list[Frame]] = {stream_id: [] for stream_id in stream_ids}
        running = set(stream_ids)
        while running:
            data = self.receive_data()
            running -= set(data.finished)
            for frame in data.frames:
                frames[frame.stream_id].append(frame)
        return {stream_id: Answer(of_stream) for stream_id, of_stream in frames.items()}

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data
