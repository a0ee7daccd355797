"""WebSocket frames: headers, masks and whole frames, with wsproto as a third opinion."""

from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Ping, TextMessage

from paddler import _fastpath
from paddler.errors import RemoteProtocolError
from tests import fastpath_twin
from tests.fastpath_impls import IMPLS, outcome

KEY = 0x04030201
MAX_PAYLOAD_BYTES = 1 << 20
# Either side of each change of the length's encoding, and of a word of eight bytes.
SIZES = [0, 1, 7, 8, 9, 125, 126, 127, 65535, 65536]

payloads = st.binary(max_size=40) | st.sampled_from(SIZES).map(lambda size: b"\xa5" * size)
keys = st.integers(0, 0xFFFFFFFF)
data_opcodes = st.sampled_from([0, 1, 2])


def parse(impl: ModuleType, data: bytes, start: int = 0, *, is_masked: bool = True) -> object:
    return outcome(
        impl.parse_frame_header,
        data,
        start,
        expect_masked=is_masked,
        max_payload_bytes=MAX_PAYLOAD_BYTES,
    )


def refused(close_code: int) -> object:
    return RemoteProtocolError, 400, close_code


# --- headers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("wire", "is_masked", "header"),
    [
        (b"\x81\x00", False, (1, True, 2, 0, 0)),
        (b"\x02\x7d", False, (2, False, 2, 125, 0)),
        (b"\x82\x7e\x00\x7e", False, (2, True, 4, 126, 0)),
        (b"\x82\x7e\xff\xff", False, (2, True, 4, 65535, 0)),
        (b"\x82\x7f\0\0\0\0\0\1\0\0", False, (2, True, 10, 65536, 0)),
        (b"\x80\x80\1\2\3\4", True, (0, True, 6, 0, KEY)),
        (b"\x89\xfd\xff\xff\xff\xff", True, (9, True, 6, 125, 0xFFFFFFFF)),
        (b"\x82\xfe\x01\x00\1\2\3\4", True, (2, True, 8, 256, KEY)),
        (b"\x82\xff\0\0\0\0\0\x10\0\0\1\2\3\4", True, (2, True, 14, MAX_PAYLOAD_BYTES, KEY)),
    ],
)
def test_frame_header_is_read_once_it_is_whole(
    impl: ModuleType, wire: bytes, is_masked: bool, header: tuple[object, ...]
) -> None:
    assert parse(impl, wire, is_masked=is_masked) == header
    assert parse(impl, wire + b"payload", is_masked=is_masked) == header
    for stop in range(len(wire)):
        assert parse(impl, wire[:stop], is_masked=is_masked) is None


@pytest.mark.parametrize("impl", IMPLS)
def test_frame_header_is_read_at_its_start(impl: ModuleType) -> None:
    assert parse(impl, b"\xff\xff\xff\x88\x80\1\2\3\4", 3) == (8, True, 9, 0, KEY)
    assert parse(impl, b"\xff\xff", 2) is None


# Each wire is as short as it can be while it is wrong: a refusal waits for nothing.
FORBIDDEN = [
    (b"\xc1", False, "reserved bit"),
    (b"\xa1", False, "reserved bit"),
    (b"\x91", False, "reserved bit"),
    *[(bytes([0x80 | opcode]), False, "reserved opcode") for opcode in [3, 4, 5, 6, 7]],
    *[(bytes([0x80 | opcode]), False, "reserved opcode") for opcode in [11, 12, 13, 14, 15]],
    (b"\x08", False, "in fragments"),
    (b"\x09", True, "in fragments"),
    (b"\x0a", True, "in fragments"),
    (b"\x81\x05", True, "not masked"),
    (b"\x81\x85", False, "a masked frame"),
    (b"\x89\x7e", False, "control frame of more than 125 bytes"),
    (b"\x88\xff", True, "control frame of more than 125 bytes"),
    (b"\x82\x7e\x00\x7d", False, "shortest way"),
    (b"\x82\xfe\x00\x00", True, "shortest way"),
    (b"\x82\x7f\0\0\0\0\0\0\xff\xff", False, "shortest way"),
    (b"\x82\xff\x80\0\0\0\0\0\0\0", True, "2\\^63"),
]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("wire", "is_masked", "_seen"), FORBIDDEN)
def test_forbidden_frame_is_refused_as_soon_as_it_shows(
    impl: ModuleType, wire: bytes, is_masked: bool, _seen: str
) -> None:
    assert parse(impl, wire, is_masked=is_masked) == refused(1002)
    assert parse(impl, wire[:-1], is_masked=is_masked) is None


@pytest.mark.parametrize(("wire", "is_masked", "seen"), FORBIDDEN)
def test_forbidden_frame_is_told_why(wire: bytes, is_masked: bool, seen: str) -> None:
    with pytest.raises(RemoteProtocolError, match=seen):
        _fastpath.parse_frame_header(
            wire, 0, expect_masked=is_masked, max_payload_bytes=MAX_PAYLOAD_BYTES
        )


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("wire", "max_payload_bytes"),
    [
        (b"\x82\x01", 0),
        (b"\x82\x7d", 124),
        (b"\x82\x7e\x01\x00", 255),
        (b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", 52_428_800),
    ],
)
def test_payload_beyond_the_limit_is_too_big(
    impl: ModuleType, wire: bytes, max_payload_bytes: int
) -> None:
    verdict = outcome(
        impl.parse_frame_header,
        wire,
        0,
        expect_masked=False,
        max_payload_bytes=max_payload_bytes,
    )
    assert verdict == refused(1009)


def test_payload_beyond_the_limit_is_told_the_limit() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        _fastpath.parse_frame_header(b"\x82\x7d", 0, expect_masked=False, max_payload_bytes=124)
    assert str(caught.value) == "Message exceeded the maximum allowed frame size of 124 bytes"


@pytest.mark.parametrize("impl", IMPLS)
def test_payload_at_the_limit_is_allowed(impl: ModuleType) -> None:
    assert impl.parse_frame_header(b"\x82\x7d", 0, expect_masked=False, max_payload_bytes=125)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("start", [-1, 3])
def test_frame_cannot_start_outside_of_its_data(impl: ModuleType, start: int) -> None:
    assert parse(impl, b"\x81\x00", start) is ValueError


@pytest.mark.parametrize("impl", IMPLS)
def test_payload_limit_cannot_be_negative(impl: ModuleType) -> None:
    with pytest.raises(ValueError, match="max_payload_bytes"):
        impl.parse_frame_header(b"", 0, expect_masked=True, max_payload_bytes=-1)


@settings(deadline=None)
@given(
    wire=st.binary(max_size=14),
    length_code=st.sampled_from([0, 125, 126, 127]),
    start=st.integers(0, 2),
    is_masked=st.booleans(),
)
def test_frame_headers_are_judged_as_the_twin_does(
    wire: bytes, length_code: int, start: int, is_masked: bool
) -> None:
    likely = b"\x82" + bytes([length_code | 0x80 * is_masked]) + wire
    for data in (wire, likely, b"\xff\xff"[:start] + likely):
        compiled = parse(_fastpath, data, start, is_masked=is_masked)
        assert compiled == parse(fastpath_twin, data, start, is_masked=is_masked)


# --- whole messages --------------------------------------------------------------------------


def unmask(impl: ModuleType, wire: bytes, *, is_masked: bool = True, limit: int = 65_536) -> object:
    """What is told of ``wire``, and what is in its buffer afterwards."""
    data = bytearray(wire)
    told = outcome(impl.unmask_messages, data, expect_masked=is_masked, max_payload_bytes=limit)
    return told, bytes(data)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("is_masked", [True, False])
def test_whole_messages_are_found_and_unmasked(impl: ModuleType, is_masked: bool) -> None:
    key = KEY if is_masked else -1
    payloads = [b"", b"one", b"t" * 126, b"three" * 20_000]
    data = bytearray(b"".join(_fastpath.encode_frame(1 + (b"t" in p), p, key) for p in payloads))
    messages, after = impl.unmask_messages(data, expect_masked=is_masked, max_payload_bytes=1 << 20)
    assert after == len(data)
    assert [opcode for opcode, _, _ in messages] == [1, 1, 2, 2]
    assert [bytes(data[start:end]) for _, start, end in messages] == payloads


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"\x82",
        b"\x82\x82\1\2\3\4x",  # a byte is missing
        b"\x02\x81\1\2\3\4x",  # a fragment
        b"\x80\x81\1\2\3\4x",  # the last one
        b"\x89\x81\1\2\3\4x",  # a ping
        b"\x82\x01x",  # not masked
        b"\xc2\x81\1\2\3\4x",  # a reserved bit
        b"\x82\xfe\x40\x00\1\2\3\4" + b"x" * 0x4000,  # beyond the limit
    ],
)
def test_whole_messages_end_before_anything_else(impl: ModuleType, rest: bytes) -> None:
    first = _fastpath.encode_frame(2, b"first", KEY)
    wire = first + rest
    expected = (([(2, 6, 11)], 11), first[:6] + b"first" + rest)
    assert unmask(impl, wire, limit=1000) == expected


@pytest.mark.parametrize("impl", IMPLS)
def test_whole_messages_cannot_be_unmasked_in_read_only_memory(impl: ModuleType) -> None:
    frame = _fastpath.encode_frame(2, b"first", KEY)
    with pytest.raises(BufferError):
        impl.unmask_messages(frame, expect_masked=True, max_payload_bytes=100)
    plain = _fastpath.encode_frame(2, b"first")
    told = impl.unmask_messages(plain, expect_masked=False, max_payload_bytes=100)
    assert told == ([(2, 2, 7)], 7)


@pytest.mark.parametrize("impl", IMPLS)
def test_whole_messages_have_no_negative_limit(impl: ModuleType) -> None:
    assert unmask(impl, b"", limit=-1) == (ValueError, b"")


@settings(deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 9]), st.binary(max_size=130), st.booleans()),
        max_size=5,
    ),
    cut=st.integers(0, 400),
    rubbish=st.binary(max_size=3),
)
def test_whole_messages_are_those_that_the_twin_finds(
    parts: list[tuple[int, bytes, bool]], cut: int, rubbish: bytes
) -> None:
    wire = b"".join(
        _fastpath.encode_frame(opcode, payload[:125] if opcode == 9 else payload, KEY, fin)
        for opcode, payload, fin in parts
        if fin or opcode < 8
    )
    for data in (wire[:cut], wire + rubbish):
        assert unmask(_fastpath, data) == unmask(fastpath_twin, data)


# --- masks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
def test_mask_begins_with_the_lowest_byte_of_its_key(impl: ModuleType) -> None:
    data = bytearray(10)
    impl.apply_mask(data, KEY)
    assert data == b"\1\2\3\4\1\2\3\4\1\2"


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("size", SIZES)
def test_mask_stays_within_its_buffer(impl: ModuleType, size: int) -> None:
    data = bytearray(b"G" * 8 + b"\0" * size + b"G" * 8)
    impl.apply_mask(memoryview(data)[8 : 8 + size], 0xFFFFFFFF)
    assert data == b"G" * 8 + b"\xff" * size + b"G" * 8


@pytest.mark.parametrize("impl", IMPLS)
@settings(deadline=None)
@given(payload=st.binary(max_size=40), key=keys, cut=st.integers(0, 40), phase=st.integers(0, 9))
def test_mask_of_the_parts_is_the_mask_of_the_whole(
    impl: ModuleType, payload: bytes, key: int, cut: int, phase: int
) -> None:
    whole, parts = bytearray(payload), bytearray(payload)
    impl.apply_mask(whole, key, phase)
    cut = min(cut, len(payload))
    impl.apply_mask(memoryview(parts)[:cut], key, phase)
    impl.apply_mask(memoryview(parts)[cut:], key, phase + cut)
    assert parts == whole


@settings(deadline=None)
@given(payload=payloads, key=keys, phase=st.integers(-4, 9))
def test_mask_agrees_with_its_twin(payload: bytes, key: int, phase: int) -> None:
    compiled, plain = bytearray(payload), bytearray(payload)
    _fastpath.apply_mask(compiled, key, phase)
    fastpath_twin.apply_mask(plain, key, phase)
    assert compiled == plain


@pytest.mark.parametrize("impl", IMPLS)
def test_mask_refuses_what_it_cannot_change_in_place(impl: ModuleType) -> None:
    for data in (b"abcd", memoryview(b"abcd"), memoryview(bytearray(8))[::2]):
        with pytest.raises(BufferError):
            impl.apply_mask(data, KEY)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("key", [-1, 1 << 32])
def test_mask_key_has_32_bits(impl: ModuleType, key: int) -> None:
    with pytest.raises(OverflowError):
        impl.apply_mask(bytearray(4), key)


# --- whole frames ----------------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mask_key", [-1, 0, KEY])
def test_encoded_frame_is_read_back(impl: ModuleType, size: int, mask_key: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    frame = bytearray(impl.encode_frame(2, payload, mask_key))
    header = parse(impl, frame, is_masked=mask_key != -1)
    payload_start = len(frame) - size
    assert header == (2, True, payload_start, size, max(mask_key, 0))
    impl.apply_mask(memoryview(frame)[payload_start:], max(mask_key, 0))
    assert frame[payload_start:] == payload


@pytest.mark.parametrize("impl", IMPLS)
def test_encoded_frame_may_be_a_fragment(impl: ModuleType) -> None:
    assert impl.encode_frame(1, b"a", fin=False) == b"\x01\x01a"
    assert impl.encode_frame(0, b"b") == b"\x80\x01b"


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("opcode", [-1, 3, 7, 11, 15, 16, 0x81])
def test_reserved_opcode_is_not_encoded(impl: ModuleType, opcode: int) -> None:
    with pytest.raises(ValueError, match="opcode"):
        impl.encode_frame(opcode, b"")


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("opcode", [8, 9, 10])
def test_control_frame_is_short_and_whole(impl: ModuleType, opcode: int) -> None:
    assert len(impl.encode_frame(opcode, b"a" * 125)) == 127
    with pytest.raises(ValueError, match="control frame"):
        impl.encode_frame(opcode, b"a" * 126)
    with pytest.raises(ValueError, match="control frame"):
        impl.encode_frame(opcode, b"", fin=False)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("mask_key", [-2, 1 << 32])
def test_encoded_mask_key_has_32_bits(impl: ModuleType, mask_key: int) -> None:
    with pytest.raises(OverflowError):
        impl.encode_frame(1, b"a", mask_key)


@settings(deadline=None)
@given(opcode=data_opcodes, payload=payloads, mask_key=keys | st.just(-1), fin=st.booleans())
def test_encoded_frame_agrees_with_its_twin(
    opcode: int, payload: bytes, mask_key: int, fin: bool
) -> None:
    compiled = _fastpath.encode_frame(opcode, payload, mask_key, fin)
    assert compiled == fastpath_twin.encode_frame(opcode, payload, mask_key, fin)


# --- wsproto ---------------------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
@settings(deadline=None)
@given(payload=payloads, mask_key=keys)
def test_wsproto_reads_encoded_frames(impl: ModuleType, payload: bytes, mask_key: int) -> None:
    server = Connection(ConnectionType.SERVER)
    server.receive_data(impl.encode_frame(2, payload, mask_key))
    received = b"".join(bytes(event.data) for event in server.events())
    assert received == payload


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("kind", [ConnectionType.CLIENT, ConnectionType.SERVER])
@pytest.mark.parametrize(
    ("event", "opcode", "payload"),
    [
        (TextMessage("h\xe9"), 1, "h\xe9".encode()),
        (Ping(b"a" * 125), 9, b"a" * 125),
        *[(BytesMessage(b"b" * size), 2, b"b" * size) for size in SIZES],
    ],
)
def test_frames_of_wsproto_are_read(
    impl: ModuleType,
    kind: ConnectionType,
    event: TextMessage | BytesMessage | Ping,
    opcode: int,
    payload: bytes,
) -> None:
    frame = bytearray(Connection(kind).send(event))
    is_masked = kind is ConnectionType.CLIENT
    header = impl.parse_frame_header(
        frame, 0, expect_masked=is_masked, max_payload_bytes=MAX_PAYLOAD_BYTES
    )
    payload_start = len(frame) - len(payload)
    assert header[:4] == (opcode, True, payload_start, len(payload))
    impl.apply_mask(memoryview(frame)[payload_start:], header[4])
    assert frame[payload_start:] == payload


# --- buffers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
def test_frame_may_not_lie_in_pieces(impl: ModuleType) -> None:
    pieces = memoryview(b"\x81\x00\x00\x00")[::2]
    assert parse(impl, pieces) is BufferError
    with pytest.raises(BufferError):
        impl.encode_frame(1, pieces)


def test_frame_functions_give_their_buffer_back_even_when_they_refuse() -> None:
    data = bytearray(b"\xff" * 126)
    assert parse(_fastpath, data) == refused(1002)
    assert outcome(_fastpath.encode_frame, 9, data) is ValueError
    _fastpath.apply_mask(data, KEY)
    data.append(0)  # BufferError while somebody still holds the buffer
