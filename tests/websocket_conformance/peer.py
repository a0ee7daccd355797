"""The other end of a connection: sends what it is told, and reads with wsproto."""

import asyncio
import base64
import hashlib
import os
from collections.abc import Sequence

from wsproto.frame_protocol import FrameProtocol, Opcode

from tests.websocket_conformance.cases import Answer, Frame

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
UPGRADE = (
    b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)


def encoded(frame: Frame, *, is_masked: bool) -> bytes:
    """A frame's bytes, sound or not (RFC 6455 §5.2)."""
    size = len(frame.payload)
    first = frame.fin << 7 | frame.rsv << 4 | frame.opcode
    if size < 126:
        length = bytes([size])
    elif size < 65_536:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    if not is_masked:
        return bytes([first]) + length + frame.payload
    key = os.urandom(4)
    mask = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    payload = (int.from_bytes(frame.payload, "big") ^ mask).to_bytes(size, "big")
    return bytes([first, length[0] | 0x80]) + length[1:] + key + payload


def accepted(request: bytes) -> bytes:
    """A server's answer to an upgrade request."""
    fields = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if b": " in line)
    key = next(value for name, value in fields.items() if name.lower() == b"sec-websocket-key")
    proof = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n"
    )


async def exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    pieces: Sequence[bytes],
    *,
    is_client: bool,
) -> tuple[list[Answer], int | None]:
    """Send ``pieces`` one by one; all that came back, and the code of the close frame."""

    async def send() -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)  # so that the other side may read it by itself

    protocol = FrameProtocol(client=is_client, extensions=[])
    answers: list[Answer] = []
    message = b""
    sending = asyncio.create_task(send())
    try:
        while data := await reader.read(1 << 20):
            protocol.receive_bytes(data)
            for frame in protocol.received_frames():
                if frame.opcode is Opcode.CLOSE:
                    return answers, int(frame.payload[0])
                if frame.opcode is Opcode.PING:
                    continue  # it wants to know whether we live; soon it knows
                part = frame.payload
                message += part.encode() if isinstance(part, str) else bytes(part)
                if frame.message_finished:
                    answers.append(Answer(int(frame.opcode), message))
                    message = b""
        return answers, None
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        writer.close()
