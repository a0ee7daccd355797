"""WebSocket frames read by us and by wsproto.

Invariants: messages are read or refused with the same close code however their bytes arrive;
the compiled frame codec agrees with its twin; wsproto reads the same up to the offence, and
refuses what we refuse.
"""

from collections.abc import Iterable

from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from paddler import _fastpath
from paddler.errors import RemoteProtocolError
from paddler.proto.events import Binary, Closed, Ping, Pong, Text
from paddler.proto.ws import WebSocket
from tests import fastpath_twin
from tests.fastpath_impls import outcome
from tests.fuzz.pieces import all_at_once, byte_by_byte, cut

MAX_FRAME_BYTES = 70_000
MAX_MESSAGE_BYTES = 100_000

Told = list[tuple[str, object]]


def check_frames(data: bytes, *, is_client: bool) -> None:
    """The invariants for ``data`` as all that the peer sends."""
    check_codec(data, is_client=is_client)
    told, refusal = read_frames(all_at_once(data), is_client=is_client)
    bytewise, refusal_bytewise = read_frames(byte_by_byte(data), is_client=is_client)
    assert refusal_bytewise == refusal
    assert refusal is not None or bytewise == told
    # Messages before an offence in the same read are lost with the connection.
    assert bytewise[: len(told)] == told
    pieces, refusal_pieces = read_frames(cut(data), is_client=is_client)
    assert refusal_pieces == refusal
    assert bytewise[: len(pieces)] == pieces
    for kind, payload in bytewise:
        if kind == "text":
            assert isinstance(payload, bytes)
            payload.decode()
    theirs, their_refusal = wsproto_reads(data, is_client=is_client)
    assert theirs == bytewise[: len(theirs)]
    if their_refusal == 1007:
        return  # it looks at fragments of text, we at whole messages
    if refusal is not None and their_refusal is None:
        # It waits for whole headers, we refuse a byte that is wrong whatever follows.
        _, their_refusal = wsproto_reads(data + bytes(14), is_client=is_client)
    if refusal != 1009:  # it has no limits
        assert (their_refusal is None) == (refusal is None)
        assert theirs == bytewise


def check_codec(data: bytes, *, is_client: bool) -> None:
    """The compiled codec and its twin on the same bytes."""
    limits = {"expect_masked": not is_client, "max_payload_bytes": MAX_FRAME_BYTES}
    ours, twins = bytearray(data), bytearray(data)
    got = outcome(_fastpath.unmask_messages, ours, **limits)
    assert got == outcome(fastpath_twin.unmask_messages, twins, **limits)
    assert ours == twins
    got = outcome(_fastpath.parse_frame_header, data, 0, **limits)
    assert got == outcome(fastpath_twin.parse_frame_header, data, 0, **limits)


def read_frames(pieces: Iterable[bytes], *, is_client: bool) -> tuple[Told, int | None]:
    """What we read, and the close code of the offence that ended it."""
    websocket = WebSocket(
        is_client=is_client,
        max_frame_bytes=MAX_FRAME_BYTES,
        max_message_bytes=MAX_MESSAGE_BYTES,
    )
    told: Told = []
    for piece in pieces:
        try:
            events = websocket.feed(bytearray(piece))
        except RemoteProtocolError as error:
            return told, error.close_code
        for event in events:
            match event:
                case Text(payload):
                    told.append(("text", bytes(payload)))
                case Binary(payload):
                    told.append(("binary", bytes(payload)))
                case Ping(payload):
                    told.append(("ping", payload))
                case Pong(payload):
                    told.append(("pong", payload))
                case Closed(code, reason):
                    told.append(("close", (code, reason)))
    return told, None


def wsproto_reads(data: bytes, *, is_client: bool) -> tuple[Told, int | None]:
    """What wsproto reads up to a close frame, and the code with which it refused what came."""
    protocol = FrameProtocol(client=is_client, extensions=[])
    told: Told = []
    message: list[bytes] = []
    kind = ""
    try:
        # Byte by byte: it loses the frames before an offence otherwise.
        for piece in byte_by_byte(data):
            protocol.receive_bytes(piece)
            for frame in protocol.received_frames():
                if frame.opcode is Opcode.CLOSE:
                    code, reason = frame.payload
                    told.append(("close", (int(code), reason or "")))
                    return told, None
                if frame.opcode >= Opcode.CLOSE:
                    told.append((frame.opcode.name.lower(), bytes(frame.payload)))
                    continue
                kind = {Opcode.TEXT: "text", Opcode.BINARY: "binary"}.get(frame.opcode, kind)
                part = frame.payload
                message.append(part.encode() if isinstance(part, str) else bytes(part))
                if frame.message_finished:
                    told.append((kind, b"".join(message)))
                    message.clear()
    except ParseFailed as error:
        return told, int(error.code)
    return told, None
