"""WebSocket messages: reassembly, borrowed memory, closing, offences, however bytes arrive."""

import itertools
import struct
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage
from wsproto.events import Ping as TheirPing

from paddler._fastpath import encode_frame
from paddler.errors import RemoteProtocolError
from paddler.proto.events import Binary, Closed, Ping, Pong, Text, WebSocketEvent
from paddler.proto.ws import WebSocket

KEY = 0x04030201
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def masked(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    return encode_frame(opcode, payload, KEY, fin)


def copied(events: Iterable[WebSocketEvent]) -> list[object]:
    """Events with their borrowed payloads copied."""
    return [
        (type(event).__name__, bytes(event.data)) if isinstance(event, Text | Binary) else event
        for event in events
    ]


def read_all(
    wire: bytes, cuts: Iterable[int] = (), server: WebSocket | None = None
) -> list[object]:
    server = server or WebSocket(is_client=False)
    events: list[object] = []
    offsets = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    for start, end in itertools.pairwise(offsets):
        events += copied(server.feed(bytearray(wire[start:end])))
    return events


def close_code_of(wire: bytes, server: WebSocket | None = None) -> int:
    with pytest.raises(RemoteProtocolError) as caught:
        read_all(wire, server=server)
    return caught.value.close_code


# --- reading -------------------------------------------------------------------------------------


def test_message_within_one_read_is_borrowed_and_unmasked_in_place() -> None:
    data = bytearray(b"--" + masked(BINARY, b"payload") + b"--")
    (event,) = WebSocket(is_client=False).feed(memoryview(data)[2:-2])
    assert isinstance(event, Binary)
    assert event.data == b"payload"
    assert data == b"--" + masked(BINARY, b"")[:1] + b"\x87\x01\x02\x03\x04" + b"payload--"
    data[-3] = ord("D")
    assert event.data == b"payloaD"


def test_message_over_several_reads_is_not_borrowed() -> None:
    server = WebSocket(is_client=False)
    wire = masked(TEXT, b"hello")
    assert server.feed(bytearray(wire[:9])) == []
    rest = bytearray(wire[9:])
    (event,) = server.feed(rest)
    assert isinstance(event, Text)
    rest[:] = b"??"
    assert event.data == b"hello"


def test_read_only_memory_is_refused() -> None:
    with pytest.raises((BufferError, ValueError)):
        WebSocket(is_client=False).feed(memoryview(masked(TEXT, b"x")))


def test_fragments_are_one_message_with_control_frames_in_between() -> None:
    wire = (
        masked(TEXT, b"a\xc3", fin=False)
        + masked(PING, b"p")
        + masked(CONTINUATION, b"", fin=False)
        + masked(PONG, b"")
        + masked(CONTINUATION, b"\xa9b")
        + masked(BINARY, b"")
    )
    expected = [Ping(b"p"), Pong(b""), ("Text", b"a\xc3\xa9b"), ("Binary", b"")]
    assert read_all(wire) == expected
    assert read_all(wire, range(len(wire))) == expected


def test_header_alone_does_not_begin_a_second_message() -> None:
    wire = masked(TEXT, b"a") + masked(TEXT, b"b")
    assert read_all(wire, [6]) == [("Text", b"a"), ("Text", b"b")]


def test_client_reads_unmasked_frames() -> None:
    client = WebSocket(is_client=True)
    assert copied(client.feed(bytearray(encode_frame(TEXT, b"x")))) == [("Text", b"x")]


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
def test_every_length_encoding_is_read(length: int) -> None:
    payload = bytes(range(256)) * (length // 256 + 1)
    wire = masked(BINARY, payload[:length])
    assert read_all(wire) == [("Binary", payload[:length])]
    assert read_all(wire, range(min(len(wire), 20))) == [("Binary", payload[:length])]


def test_large_message_in_small_reads_is_not_copied_again_and_again() -> None:
    server = WebSocket(is_client=False)
    wire = masked(BINARY, bytes(32_000_000))
    events: list[WebSocketEvent] = []
    started_at = time.perf_counter()
    for at in range(0, len(wire), 4_096):
        events = server.feed(bytearray(wire[at : at + 4_096]))
    assert len(events) == 1
    # 0.05 s in one copy; copying what is there at each of 8,000 reads moves 128 GB.
    assert time.perf_counter() - started_at < 5.0


def test_bytes_behind_a_close_frame_are_ignored() -> None:
    server = WebSocket(is_client=False)
    assert read_all(masked(CLOSE, b"") + b"garbage", server=server) == [Closed(1005, "")]
    assert server.is_close_received
    assert server.feed(bytearray(b"more")) == []


# --- offences ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(encode_frame(TEXT, b"x"), 1002, id="unmasked"),
        pytest.param(masked(CONTINUATION, b"x"), 1002, id="continues nothing"),
        pytest.param(masked(TEXT, b"", fin=False) + masked(TEXT, b""), 1002, id="interleaved"),
        pytest.param(masked(TEXT, b"\xff"), 1007, id="not UTF-8"),
        pytest.param(masked(TEXT, b"\xed\xa0\x80"), 1007, id="surrogate"),
        pytest.param(masked(TEXT, b"\xc3"), 1007, id="cut character"),
        pytest.param(masked(CLOSE, b"\x03"), 1002, id="half a code"),
        pytest.param(masked(CLOSE, b"\x03\xe8\xff"), 1007, id="reason not UTF-8"),
    ],
)
def test_offence_has_a_close_code(wire: bytes, code: int) -> None:
    assert close_code_of(wire) == code


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999])
def test_close_code_that_may_be_sent_is_handed_out(code: int) -> None:
    wire = masked(CLOSE, struct.pack("!H", code) + b"why")
    assert read_all(wire) == [Closed(code, "why")]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_close_code_that_may_not_be_sent_is_an_offence(code: int) -> None:
    assert close_code_of(masked(CLOSE, struct.pack("!H", code))) == 1002


def test_frame_beyond_its_limit_is_refused_at_its_header() -> None:
    server = WebSocket(is_client=False, max_frame_bytes=10)
    assert read_all(masked(TEXT, b"x" * 10), server=server) == [("Text", b"x" * 10)]
    with pytest.raises(RemoteProtocolError, match="frame size of 10 bytes") as caught:
        server.feed(bytearray(masked(TEXT, b"x" * 11)[:6]))
    assert caught.value.close_code == 1009


def test_fragments_beyond_the_message_limit_are_refused_at_the_header() -> None:
    server = WebSocket(is_client=False, max_message_bytes=10)
    assert read_all(masked(TEXT, b"x" * 6, fin=False), server=server) == []
    with pytest.raises(RemoteProtocolError) as caught:
        server.feed(bytearray(masked(CONTINUATION, b"x" * 5)[:6]))
    assert caught.value.close_code == 1009
    assert str(caught.value) == (
        "Message exceeded the maximum allowed continuation size of 10 bytes"
    )


# --- writing -------------------------------------------------------------------------------------


def test_server_writes_unmasked_frames() -> None:
    server = WebSocket(is_client=False)
    assert server.send_text(b"a") == b"\x81\x01a"
    assert server.send_binary(b"b") == b"\x82\x01b"
    assert server.ping() == b"\x89\x00"
    assert server.pong(b"p") == b"\x8a\x01p"


def test_client_masks_each_frame_with_another_key_drawn_in_blocks() -> None:
    drawn: list[int] = []

    def draw(size: int) -> bytes:
        drawn.append(size)
        return b"".join(struct.pack("<I", len(drawn) * 1000 + at) for at in range(size // 4))

    client = WebSocket(is_client=True, draw=draw)
    keys = [struct.unpack("<I", client.send_binary(b"x")[2:6])[0] for _ in range(300)]
    assert keys == [*range(1000, 1256), *range(2000, 2044)]
    assert drawn == [1024, 1024]


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (None, "", b""),
        (1000, "", b"\x03\xe8"),
        (1001, "bye", b"\x03\xe9bye"),
        (1011, "\u00e9" * 100, b"\x03\xf3" + "\u00e9".encode() * 61),
    ],
)
def test_close_frame_carries_code_and_as_much_reason_as_fits(
    code: int | None, reason: str, payload: bytes
) -> None:
    assert WebSocket(is_client=False).close(code, reason) == encode_frame(CLOSE, payload)


def test_nothing_is_sent_after_close() -> None:
    server = WebSocket(is_client=False)
    assert server.close(1000) != b""
    assert server.is_close_sent
    assert server.close(1000) == server.send_text(b"x") == server.ping() == server.pong(b"") == b""


def test_close_answers_the_peers_close_once() -> None:
    server = WebSocket(is_client=False)
    server.feed(bytearray(masked(CLOSE, b"")))
    assert server.close() == encode_frame(CLOSE, b"")
    assert server.close() == b""


# --- however bytes arrive, and against wsproto ---------------------------------------------------

cuts = st.lists(st.integers(0, 600), max_size=6)
texts = st.text("a\u00e9\u20ac\U0001f600", max_size=80)  # one to four bytes each


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, list[object]]:
    """Frames of well-formed messages, and the events that they make."""
    wire = b""
    events: list[object] = []
    for _ in range(draw(st.integers(0, 4))):
        is_text = draw(st.booleans())
        text = draw(texts)
        payload = text.encode() if is_text else draw(st.binary(max_size=200))
        ends = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        parts = itertools.pairwise([0, *ends, len(payload)])
        for index, (start, end) in enumerate(parts):
            if draw(st.booleans()):
                ping = draw(st.binary(max_size=5))
                wire += masked(PING, ping)
                events.append(Ping(ping))
            opcode = CONTINUATION if index else TEXT if is_text else BINARY
            wire += masked(opcode, payload[start:end], fin=index == len(ends))
        events.append(("Text" if is_text else "Binary", payload))
    return wire, events


@given(sent=messages(), cuts=cuts)
def test_messages_are_read_alike_however_bytes_arrive(
    sent: tuple[bytes, list[object]], cuts: list[int]
) -> None:
    wire, events = sent
    assert read_all(wire) == events
    assert read_all(wire, cuts) == events
    assert read_all(wire, range(len(wire))) == events


@given(wire=st.binary(max_size=60), cuts=cuts)
def test_any_bytes_are_accepted_or_refused_with_the_same_code(wire: bytes, cuts: list[int]) -> None:
    def outcome(cuts: Iterable[int]) -> list[object] | int:
        try:
            return read_all(wire, cuts)
        except RemoteProtocolError as error:
            return error.close_code

    assert outcome(()) == outcome(cuts) == outcome(range(len(wire)))


@given(text=texts, data=st.binary(max_size=300), ping=st.binary(max_size=125))
def test_wsproto_reads_what_we_write(text: str, data: bytes, ping: bytes) -> None:
    client = WebSocket(is_client=True)
    oracle = Connection(ConnectionType.SERVER)
    oracle.receive_data(
        client.send_text(text.encode())
        + client.send_binary(data)
        + client.ping(ping)
        + client.close(1001, "bye")
    )
    assert list(oracle.events()) == [
        TextMessage(data=text),
        BytesMessage(data=bytearray(data)),
        TheirPing(payload=ping),
        CloseConnection(code=1001, reason="bye"),
    ]


@given(text=texts, data=st.binary(max_size=300), fin=st.booleans())
def test_we_read_what_wsproto_writes(text: str, data: bytes, fin: bool) -> None:
    oracle = Connection(ConnectionType.CLIENT)
    wire = oracle.send(TextMessage(data=text, message_finished=fin))
    if not fin:
        wire += oracle.send(TheirPing(payload=b"in between"))
        wire += oracle.send(TextMessage(data=text))
    wire += oracle.send(BytesMessage(data=data))
    wire += oracle.send(CloseConnection(code=1000, reason=None))
    between: list[object] = [] if fin else [Ping(b"in between")]
    assert read_all(wire) == [
        *between,
        ("Text", text.encode() * (1 if fin else 2)),
        ("Binary", data),
        Closed(1000, ""),
    ]
