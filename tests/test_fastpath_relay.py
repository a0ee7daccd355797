"""The relay: what a sink writes, what the caller gets back, and what happens under way."""

import gc
import weakref
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType

from paddler import _fastpath
from paddler._fastpath import encode_frame
from paddler.errors import RemoteProtocolError
from paddler.messages.link import FRAME_FINAL, FRAME_HEADER, FrameKind, encode_data_frame
from tests import fastpath_twin
from tests.fastpath_impls import IMPLS, outcome

CONTENT, REASONING, TOOL_CALL = FrameKind.CONTENT, FrameKind.REASONING, FrameKind.TOOL_CALL
DONE = FrameKind.DONE
RAW, CHUNKED, WEBSOCKET = 0, 1, 2
Write = Callable[[bytes], object]


def sink_of(
    impl: ModuleType,
    write: Write | None,
    *,
    stream_id: int = 1,
    framing: int = RAW,
    prefixes: tuple[bytes | None, ...] = (b"<",),
    suffix: bytes = b">",
    max_unsent_bytes: int = 1 << 20,
) -> _fastpath.Sink:
    """A sink that was last heard at 0.0."""
    sink: _fastpath.Sink = impl.Sink(
        stream_id, write, framing, prefixes, suffix, 0.0, max_unsent_bytes
    )
    return sink


def relay_of(impl: ModuleType, *sinks: _fastpath.Sink) -> _fastpath.Relay:
    relay: _fastpath.Relay = impl.Relay()
    for sink in sinks:
        relay.open(sink)
    return relay


def token(payload: bytes, *, stream_id: int = 1, kind: FrameKind = CONTENT) -> bytes:
    return encode_data_frame(stream_id, kind, payload)


# --- what a sink writes ----------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
def test_constants_match_the_link_protocol(impl: ModuleType) -> None:
    assert FRAME_HEADER.size == impl.FRAME_HEADER_BYTES
    assert impl.FIRST_STRUCTURED_KIND == FrameKind.RESULT
    assert impl.OVERRUN not in list(FrameKind)
    framings = impl.FRAMING_RAW, impl.FRAMING_CHUNKED, impl.FRAMING_WEBSOCKET
    assert framings == (RAW, CHUNKED, WEBSOCKET)


@pytest.mark.parametrize("impl", IMPLS)
def test_token_goes_out_between_the_prefix_of_its_kind_and_the_suffix(impl: ModuleType) -> None:
    written: list[bytes] = []
    sink = sink_of(impl, written.append, prefixes=(b"c:", b"r:"), suffix=b";")
    relay = relay_of(impl, sink)
    assert relay.feed(token(b"one") + token(b"two", kind=REASONING), 5.0) == []
    assert written == [b"c:one;", b"r:two;"]
    assert (sink.stream_id, sink.tokens, sink.heard_at) == (1, 2, 5.0)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("prefixes", [(b"<",), (b"<", None), ()])
def test_token_of_a_kind_without_prefix_is_dropped(
    impl: ModuleType, prefixes: tuple[bytes | None, ...]
) -> None:
    written: list[bytes] = []
    sink = sink_of(impl, written.append, prefixes=prefixes)
    assert relay_of(impl, sink).feed(token(b"a", kind=REASONING), 5.0) == []
    assert (written, sink.tokens, sink.heard_at) == ([], 0, 5.0)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("body_bytes", [2, 15, 16, 255, 256, 4095, 4096, 65535, 65536])
def test_chunked_body_is_one_chunk(impl: ModuleType, body_bytes: int) -> None:
    written: list[bytes] = []
    payload = b"x" * (body_bytes - 2)
    relay_of(impl, sink_of(impl, written.append, framing=CHUNKED)).feed(token(payload), 1.0)
    assert written == [b"%x\r\n<%b>\r\n" % (body_bytes, payload)]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("body_bytes", [2, 125, 126, 65535, 65536])
def test_websocket_body_is_one_text_message(impl: ModuleType, body_bytes: int) -> None:
    written: list[bytes] = []
    payload = b"x" * (body_bytes - 2)
    relay_of(impl, sink_of(impl, written.append, framing=WEBSOCKET)).feed(token(payload), 1.0)
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(written[0])
    events = list(client.events())
    assert "".join(event.data for event in events) == f"<{payload.decode()}>"
    assert events[-1].message_finished


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("framing", [RAW, CHUNKED, WEBSOCKET])
def test_body_of_no_bytes_is_not_written(impl: ModuleType, framing: int) -> None:
    written: list[bytes] = []
    sink = sink_of(impl, written.append, framing=framing, prefixes=(b"",), suffix=b"")
    assert relay_of(impl, sink).feed(token(b""), 1.0) == []
    sink.send(b"")
    assert (written, sink.tokens) == ([], 0)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("framing", "framed"), [(RAW, b"{}"), (CHUNKED, b"2\r\n{}\r\n"), (WEBSOCKET, b"\x81\x02{}")]
)
def test_sent_body_is_framed_like_a_token_and_is_none(
    impl: ModuleType, framing: int, framed: bytes
) -> None:
    written: list[bytes] = []
    sink = sink_of(impl, written.append, framing=framing)
    sink.send(memoryview(b"{}"))
    assert (written, sink.tokens) == ([framed], 0)


@pytest.mark.parametrize("impl", IMPLS)
def test_sink_without_write_sends_nothing(impl: ModuleType) -> None:
    with pytest.raises(ValueError, match="nothing to write to"):
        sink_of(impl, None).send(b"a")


@pytest.mark.parametrize("impl", IMPLS)
def test_send_passes_on_what_write_raises(impl: ModuleType) -> None:
    with pytest.raises(AttributeError):
        sink_of(impl, lambda data: data.missing).send(b"a")  # type: ignore[attr-defined]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"stream_id": -1}, OverflowError),
        ({"stream_id": 1 << 32}, OverflowError),
        ({"framing": -1}, ValueError),
        ({"framing": 3}, ValueError),
        ({"prefixes": (b"",) * 9}, ValueError),
        ({"prefixes": (b"", "")}, TypeError),
    ],
)
def test_impossible_sink_is_refused(
    impl: ModuleType, changed: dict[str, object], error: type
) -> None:
    assert outcome(sink_of, impl, None, **changed) is error


# --- what the caller gets --------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
def test_structured_frames_come_back_in_order(impl: ModuleType) -> None:
    written: list[bytes] = []
    sinks = [sink_of(impl, written.append, stream_id=stream_id) for stream_id in (1, 0xFFFFFFFF)]
    message = (
        encode_data_frame(0xFFFFFFFF, FrameKind.RESULT, b"{}")
        + token(b"a")
        + encode_data_frame(1, DONE, b"[1]", FRAME_FINAL)
        + token(b"b", stream_id=0xFFFFFFFF)
    )
    assert relay_of(impl, *sinks).feed(message, 3.0) == [
        (0xFFFFFFFF, FrameKind.RESULT, 0, b"{}"),
        (1, DONE, FRAME_FINAL, b"[1]"),
    ]
    assert written == [b"<a>", b"<b>"]
    assert [(sink.tokens, sink.heard_at) for sink in sinks] == [(1, 3.0), (1, 3.0)]


@pytest.mark.parametrize("impl", IMPLS)
def test_the_first_token_is_timed_and_all_are_counted(impl: ModuleType) -> None:
    sinks = [sink_of(impl, lambda _: None, stream_id=stream_id) for stream_id in (1, 2)]
    relay = relay_of(impl, *sinks)
    relay.feed(encode_data_frame(1, FrameKind.RESULT, b"{}"), 1.0)
    assert (sinks[0].first_token_at, relay.tokens) == (0.0, 0)
    relay.feed(token(b"a") + token(b"b"), 2.0)
    relay.feed(token(b"c") + token(b"d", stream_id=2), 3.0)
    assert [sink.first_token_at for sink in sinks] == [2.0, 3.0]
    assert relay.tokens == 4
    relay.close(1)
    assert relay.tokens == 4


@pytest.mark.parametrize("impl", IMPLS)
def test_tokens_of_a_sink_without_write_come_back_whatever_their_kind(impl: ModuleType) -> None:
    sink = sink_of(impl, None, prefixes=())
    events = relay_of(impl, sink).feed(token(b"a") + token(b"b", kind=TOOL_CALL), 1.0)
    assert events == [(1, CONTENT, 0, b"a"), (1, TOOL_CALL, 0, b"b")]
    assert sink.tokens == 2


@pytest.mark.parametrize("impl", IMPLS)
def test_frames_of_streams_that_are_not_open_are_dropped(impl: ModuleType) -> None:
    written: list[bytes] = []
    relay = relay_of(impl, sink_of(impl, written.append))
    message = token(b"a", stream_id=2) + encode_data_frame(2, DONE, b"{}") + token(b"b")
    assert relay.feed(message, 1.0) == []
    assert (relay.close(1), relay.close(1)) == (True, False)
    assert relay.feed(message, 2.0) == []
    assert written == [b"<b>"]


@pytest.mark.parametrize("impl", IMPLS)
def test_relay_counts_its_streams_and_takes_each_once(impl: ModuleType) -> None:
    relay = relay_of(impl, sink_of(impl, None), sink_of(impl, None, stream_id=2))
    with pytest.raises(ValueError, match="open already"):
        relay.open(sink_of(impl, None))
    assert len(relay) == 2
    relay.close(1)
    assert len(relay) == 1


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    "bad",
    [
        b"\1",
        token(b"abc")[:11],
        token(b"abc")[:-1],
        FRAME_HEADER.pack(1, CONTENT, 0, 0, 0xFFFFFFFF),
        FRAME_HEADER.pack(1, CONTENT, 0, 1, 0),
        FRAME_HEADER.pack(1, CONTENT, 0, 0x0100, 0),
        FRAME_HEADER.pack(1, 255, 0, 0, 0),
        FRAME_HEADER.pack(2, 255, 0, 0, 0),
    ],
)
def test_nothing_of_a_malformed_message_is_written(impl: ModuleType, bad: bytes) -> None:
    written: list[bytes] = []
    sink = sink_of(impl, written.append)
    verdict = outcome(relay_of(impl, sink).feed, token(b"a") + bad, 1.0)
    assert verdict == (RemoteProtocolError, 400, 1002)
    assert (written, sink.tokens, sink.heard_at) == ([], 0, 0.0)


@pytest.mark.parametrize(
    ("bad", "seen"),
    [
        (b"\1", "breaks off inside a frame"),
        (FRAME_HEADER.pack(1, CONTENT, 0, 1, 0), "reserved bytes are not zero"),
        (FRAME_HEADER.pack(1, 255, 0, 0, 0), "kind 255"),
    ],
)
def test_malformed_message_is_told_why(bad: bytes, seen: str) -> None:
    with pytest.raises(RemoteProtocolError, match=seen):
        _fastpath.Relay().feed(bad, 1.0)


@pytest.mark.parametrize("impl", IMPLS)
def test_empty_message_says_nothing(impl: ModuleType) -> None:
    assert relay_of(impl).feed(b"", 1.0) == []


# --- backpressure ----------------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("framing", "framed_bytes"), [(RAW, 3), (CHUNKED, 8), (WEBSOCKET, 5)])
def test_paused_sink_counts_framed_bytes_until_it_resumes(
    impl: ModuleType, framing: int, framed_bytes: int
) -> None:
    written: list[bytes] = []
    sink = sink_of(impl, written.append, framing=framing)
    relay = relay_of(impl, sink)
    relay.feed(token(b"a"), 1.0)
    assert (sink.is_paused, sink.unsent_bytes) == (False, 0)
    sink.is_paused = True
    relay.feed(token(b"b") + token(b"c"), 2.0)
    sink.send(b"<d>")
    assert (sink.is_paused, sink.unsent_bytes) == (True, 3 * framed_bytes)
    sink.is_paused = False
    assert sink.unsent_bytes == 0
    assert len(written) == 4


@pytest.mark.parametrize("impl", IMPLS)
def test_overrun_sink_is_told_once_and_writes_nothing_more(impl: ModuleType) -> None:
    written: list[bytes] = []
    sink = sink_of(impl, written.append, max_unsent_bytes=6)
    relay = relay_of(impl, sink)
    sink.is_paused = True
    assert relay.feed(token(b"a") + token(b"b"), 1.0) == []
    assert not sink.is_overrun
    done = encode_data_frame(1, DONE, b"{}")
    assert relay.feed(token(b"c") + done + token(b"d"), 2.0) == [
        (1, impl.OVERRUN, 0, b""),
        (1, DONE, 0, b"{}"),
    ]
    sink.is_paused = False
    sink.send(b"e")
    assert relay.feed(token(b"f"), 3.0) == []
    assert written == [b"<a>", b"<b>"]
    assert (sink.is_overrun, sink.tokens, sink.heard_at) == (True, 2, 3.0)


@pytest.mark.parametrize("impl", IMPLS)
def test_sink_overrun_by_send_is_told_with_its_next_token(impl: ModuleType) -> None:
    sink = sink_of(impl, lambda _: None, max_unsent_bytes=1)
    relay = relay_of(impl, sink)
    sink.is_paused = True
    sink.send(b"ab")
    assert sink.is_overrun
    assert relay.feed(token(b"a") + token(b"b"), 1.0) == [(1, impl.OVERRUN, 0, b"")]


@pytest.mark.parametrize("impl", IMPLS)
def test_write_that_raises_overruns_its_own_stream_only(impl: ModuleType) -> None:
    written: list[bytes] = []

    def broken(_: bytes) -> None:
        raise OSError("gone")

    bad, good = sink_of(impl, broken), sink_of(impl, written.append, stream_id=2)
    events = relay_of(impl, bad, good).feed(
        token(b"a") + token(b"b", stream_id=2) + token(b"c") + token(b"d", stream_id=2), 1.0
    )
    assert events == [(1, impl.OVERRUN, 0, b"OSError('gone')")]
    assert written == [b"<b>", b"<d>"]
    assert (bad.is_overrun, bad.tokens, good.is_overrun, good.tokens) == (True, 0, False, 2)


@pytest.mark.parametrize("impl", IMPLS)
def test_interrupt_inside_write_is_not_kept_back(impl: ModuleType) -> None:
    def interrupted(_: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relay_of(impl, sink_of(impl, interrupted)).feed(token(b"a"), 1.0)


# --- writes that act on the relay ------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
def test_write_may_close_streams(impl: ModuleType) -> None:
    written: list[bytes] = []
    relay = relay_of(impl)

    def close_all(data: bytes) -> None:
        written.append(data)
        relay.close(1)
        relay.close(2)

    relay.open(sink_of(impl, close_all))
    relay.open(sink_of(impl, written.append, stream_id=2))
    relay.feed(token(b"a") + token(b"b") + token(b"c", stream_id=2), 1.0)
    assert (written, len(relay)) == ([b"<a>"], 0)


@pytest.mark.parametrize("impl", IMPLS)
def test_write_may_open_a_stream_that_hears_the_rest(impl: ModuleType) -> None:
    written: list[bytes] = []
    relay = relay_of(impl)

    def replace(_: bytes) -> None:
        relay.close(1)
        relay.open(sink_of(impl, written.append))

    relay.open(sink_of(impl, replace))
    relay.feed(token(b"a") + token(b"b"), 1.0)
    assert written == [b"<b>"]


@pytest.mark.parametrize("impl", IMPLS)
def test_write_may_pause_its_own_sink(impl: ModuleType) -> None:
    def pause(_: bytes) -> None:
        sink.is_paused = True

    sink = sink_of(impl, pause, max_unsent_bytes=5)
    events = relay_of(impl, sink).feed(token(b"a") + token(b"b") + token(b"c"), 1.0)
    assert events == [(1, impl.OVERRUN, 0, b"")]
    assert (sink.tokens, sink.unsent_bytes) == (2, 3)


@pytest.mark.parametrize("impl", IMPLS)
def test_write_may_feed_the_relay(impl: ModuleType) -> None:
    written: list[bytes] = []
    relay = relay_of(impl)

    def feed_other(data: bytes) -> None:
        written.append(data)
        relay.feed(token(data, stream_id=2), 2.0)

    relay.open(sink_of(impl, feed_other))
    relay.open(sink_of(impl, written.append, stream_id=2))
    relay.feed(token(b"a") + token(b"b"), 1.0)
    assert written == [b"<a>", b"<<a>>", b"<b>", b"<<b>>"]


# --- reading messages that are still framed ---------------------------------------------------


class Reader:
    """The part of a protocol that derives; remembers what is not passed on."""

    get_buffer: Callable[[int], memoryview]
    buffer_updated: Callable[[int], None]
    relay_to: Callable[..., None]
    end_relaying: Callable[[], None]
    relayed_at: float
    begins_frame: bool

    def __init__(self, relay: _fastpath.Relay) -> None:
        super().__init__(memoryview(bytearray(4096)), lambda: 7.0)  # type: ignore[call-arg]
        self.rest: list[bytes] = []
        self.failures: list[Exception] = []
        self.events: list[object] = []
        self.relay_to(relay, 200, self.on_events)

    def read(self, data: bytes) -> None:
        self.get_buffer(-1)[: len(data)] = data
        self.buffer_updated(len(data))

    def on_events(self, events: list[tuple[int, int, int, bytes]]) -> None:
        self.events.append(events)

    def on_rest(self, data: memoryview) -> None:
        self.rest.append(bytes(data))

    def on_failure(self, error: Exception) -> None:
        self.failures.append(error)


class CompiledReader(Reader, _fastpath.FrameReader):
    pass


class TwinReader(Reader, fastpath_twin.FrameReader):
    pass


def reader_of(impl: ModuleType, relay: _fastpath.Relay) -> Reader:
    return CompiledReader(relay) if impl is _fastpath else TwinReader(relay)


def framed(*messages: bytes, opcode: int = 2, fin: bool = True) -> bytes:
    return b"".join(encode_frame(opcode, message, 0x1020304, fin) for message in messages)


@pytest.mark.parametrize("impl", IMPLS)
def test_framed_messages_are_passed_on_one_after_the_other(impl: ModuleType) -> None:
    written: list[bytes] = []
    sink = sink_of(impl, written.append)
    reader = reader_of(impl, relay_of(impl, sink))
    assert reader.relayed_at == 0.0
    reader.read(framed(token(b"a"), token(b"b") + token(b"c")))
    assert written == [b"<a>", b"<b>", b"<c>"]
    assert (reader.rest, reader.events) == ([], [])
    assert reader.relayed_at == sink.heard_at == 7.0


@pytest.mark.parametrize("impl", IMPLS)
def test_what_follows_a_message_that_leaves_something_waits(impl: ModuleType) -> None:
    order: list[object] = []
    reader = reader_of(impl, relay_of(impl, sink_of(impl, order.append)))
    reader.events = order  # type: ignore[assignment]
    reader.read(framed(token(b"a") + token(b"{}", kind=FrameKind.RESULT), token(b"b")))
    assert order == [b"<a>", [(1, 8, 0, b"{}")], b"<b>"]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(framed(b"text", opcode=1), id="text"),
        pytest.param(framed(b"", opcode=9), id="ping"),
        pytest.param(framed(token(b"b"), fin=False), id="fragment"),
        pytest.param(framed(token(b"b"))[:-1], id="not whole"),
        pytest.param(framed(token(b"b"))[:1], id="half a header"),
        pytest.param(framed(token(b"b" * 200)), id="beyond the limit"),
        pytest.param(encode_frame(2, token(b"b")), id="not masked"),
    ],
)
def test_what_is_no_whole_data_message_is_left_as_it_came(impl: ModuleType, rest: bytes) -> None:
    written: list[bytes] = []
    reader = reader_of(impl, relay_of(impl, sink_of(impl, written.append)))
    reader.read(framed(token(b"a")) + rest)
    assert written == [b"<a>"]
    assert reader.rest == [rest]
    reader.begins_frame = False
    inner = framed(token(b"within another"))
    reader.read(inner)
    assert (written, reader.rest) == ([b"<a>"], [rest, inner])
    reader.begins_frame = True
    reader.read(framed(token(b"c")))
    assert written == [b"<a>", b"<c>"]


@pytest.mark.parametrize("impl", IMPLS)
def test_malformed_message_is_told_and_nothing_is_passed_on_any_more(impl: ModuleType) -> None:
    written: list[bytes] = []
    reader = reader_of(impl, relay_of(impl, sink_of(impl, written.append)))
    reader.read(framed(token(b"a"), b"\1", token(b"b")))
    assert [type(error) for error in reader.failures] == [RemoteProtocolError]
    reader.read(framed(token(b"c")))
    assert (written, reader.rest) == ([b"<a>"], [framed(token(b"c"))])


@pytest.mark.parametrize("impl", IMPLS)
def test_what_taking_events_raises_is_told(impl: ModuleType) -> None:
    def refuse(events: object) -> None:
        raise ValueError("no such kind")

    written: list[bytes] = []
    relay = relay_of(impl, sink_of(impl, written.append))
    reader = reader_of(impl, relay)
    reader.relay_to(relay, 200, refuse)
    reader.read(framed(token(b"{}", kind=FrameKind.RESULT), token(b"b")))
    assert [str(error) for error in reader.failures] == ["no such kind"]
    assert (written, reader.rest) == ([], [])


@pytest.mark.parametrize("impl", IMPLS)
def test_relaying_can_end_within_a_read(impl: ModuleType) -> None:
    written: list[bytes] = []
    relay = relay_of(impl, sink_of(impl, written.append))
    reader = reader_of(impl, relay)
    reader.relay_to(relay, 200, lambda _: reader.end_relaying())
    last = framed(token(b"{}", kind=FrameKind.RESULT))
    reader.read(framed(token(b"a")) + last + framed(token(b"b")))
    assert reader.relayed_at == 0.0
    reader.read(framed(token(b"c")))
    assert (written, reader.rest) == ([b"<a>"], [framed(token(b"b")), framed(token(b"c"))])


@pytest.mark.parametrize("impl", IMPLS)
def test_relaying_can_end_within_a_write(impl: ModuleType) -> None:
    written: list[bytes] = []

    def write(body: bytes) -> None:
        written.append(body)
        reader.end_relaying()

    reader = reader_of(impl, relay_of(impl, sink_of(impl, write)))
    reader.read(framed(token(b"a"), token(b"b")))
    assert (written, reader.rest, reader.failures) == ([b"<a>"], [framed(token(b"b"))], [])


@pytest.mark.parametrize("impl", IMPLS)
def test_what_a_message_leaves_is_told_even_if_relaying_ends_with_it(impl: ModuleType) -> None:
    relay = relay_of(impl, sink_of(impl, lambda _: reader.end_relaying()))
    reader = reader_of(impl, relay)
    message = token(b"a") + token(b"{}", kind=FrameKind.RESULT)
    reader.read(framed(message, token(b"b")))
    assert reader.events == [[(1, 8, 0, b"{}")]]
    assert (reader.rest, reader.failures) == ([framed(token(b"b"))], [])


@pytest.mark.parametrize("impl", IMPLS)
def test_impossible_read_is_refused(impl: ModuleType) -> None:
    reader = reader_of(impl, relay_of(impl))
    for nbytes in (-1, 4097):
        with pytest.raises(ValueError, match="bytes"):
            reader.buffer_updated(nbytes)


def test_buffer_that_cannot_be_written_is_told() -> None:
    class Failing(CompiledReader):
        def get_buffer(self, sizehint: int) -> memoryview:
            return memoryview(bytearray(9))

    reader = Failing(relay_of(_fastpath))
    _fastpath.FrameReader.__init__(reader, memoryview(b"read-only"), float)
    reader.read(b"")
    assert [type(error) for error in reader.failures] == [BufferError]


# --- both alike ------------------------------------------------------------------------------

PREFIXES = [(b"",), (b"<", None, b"[["), ()]

sink_plans = st.lists(
    st.tuples(
        st.sampled_from([RAW, CHUNKED, WEBSOCKET]),
        st.sampled_from(PREFIXES),
        st.sampled_from([b"", b">"]),
        st.sampled_from([0, 6, 300]),
        st.booleans(),
    ),
    max_size=3,
)
messages = st.lists(
    st.lists(
        st.builds(
            encode_data_frame,
            st.integers(0, 3),
            st.integers(0, 9) | st.sampled_from([11, 254]),
            st.binary(max_size=6) | st.just(b"x" * 130),
            st.integers(0, 255),
        ),
        max_size=6,
    ).map(b"".join),
    max_size=4,
)


def run(
    impl: ModuleType,
    plans: list[tuple],
    data: list[bytes | Callable[[_fastpath.Relay], object]],
    pauses: list[int],
) -> tuple[object, ...]:
    """All that can be seen of a relay that is fed ``data``, pausing or resuming in between."""
    written: list[tuple[int, bytes]] = []
    sinks = []
    for stream_id, (framing, prefixes, suffix, max_unsent_bytes, is_silent) in enumerate(plans):

        def write(body: bytes, stream_id: int = stream_id) -> None:
            written.append((stream_id, body))

        sinks.append(
            impl.Sink(
                stream_id,
                None if is_silent else write,
                framing,
                prefixes,
                suffix,
                0.0,
                max_unsent_bytes,
            )
        )
    relay = relay_of(impl, *sinks)
    events = []
    for step, message in enumerate(data):
        for sink in sinks:
            if sink.stream_id in pauses:
                sink.is_paused = step % 3 != 2
        if callable(message):
            events.append(outcome(message, relay))
        else:
            events.append(outcome(relay.feed, message, float(step)))
    state = [
        (
            sink.tokens,
            sink.heard_at,
            sink.first_token_at,
            sink.unsent_bytes,
            sink.is_paused,
            sink.is_overrun,
        )
        for sink in sinks
    ]
    return written, events, state, relay.tokens


@settings(deadline=None)
@given(plans=sink_plans, data=messages, pauses=st.lists(st.integers(0, 2)), cut=st.integers(-2, 20))
def test_relay_agrees_with_its_twin(
    plans: list[tuple], data: list[bytes], pauses: list[int], cut: int
) -> None:
    data = [*data, b"".join(data)[:cut]]
    assert run(_fastpath, plans, data, pauses) == run(fastpath_twin, plans, data, pauses)


wires = st.lists(
    st.builds(
        encode_frame,
        st.sampled_from([1, 2, 2, 2, 2, 9]),
        messages.map(lambda several: b"".join(several)[:125]),
        st.sampled_from([0, 0x1020304, -1]),
    ),
    max_size=4,
).map(b"".join)


def run_framed(impl: ModuleType, plans: list[tuple], wire: bytes) -> object:
    """All that can be seen of a relay that is read for, when ``wire`` comes twice."""
    seen: list[object] = []

    def read_twice(relay: _fastpath.Relay) -> None:
        reader = reader_of(impl, relay)
        for _ in range(2):
            reader.read(wire)
            seen.append(bytes(reader.get_buffer(-1)[: len(wire)]))
        seen.extend((reader.rest, reader.events, reader.relayed_at, relay.heard_at))
        seen.extend(type(error) for error in reader.failures)

    return *run(impl, plans, [read_twice], []), seen


@settings(deadline=None)
@given(plans=sink_plans, wire=wires, cut=st.integers(-2, 0))
def test_relay_agrees_with_its_twin_on_framed_messages(
    plans: list[tuple], wire: bytes, cut: int
) -> None:
    wire = wire[: len(wire) + cut]
    assert run_framed(_fastpath, plans, wire) == run_framed(fastpath_twin, plans, wire)


# --- memory ----------------------------------------------------------------------------------


def test_relay_gives_its_buffer_back_even_when_it_refuses() -> None:
    relay = relay_of(_fastpath, sink_of(_fastpath, lambda _: None))
    for wire in (token(b"a"), b"\1"):
        data = bytearray(wire)
        outcome(relay.feed, data, 1.0)
        data.append(0)  # BufferError while somebody still holds the buffer


@pytest.mark.parametrize("impl", IMPLS)
def test_message_may_not_lie_in_pieces(impl: ModuleType) -> None:
    with pytest.raises(BufferError):
        relay_of(impl).feed(memoryview(token(b"a"))[::2], 1.0)


def test_reader_gives_its_buffer_back_even_when_it_refuses() -> None:
    for wire in (token(b"a"), b"\1"):
        reader = CompiledReader(relay_of(_fastpath, sink_of(_fastpath, lambda _: None)))
        reader.read(framed(wire))
        reader.get_buffer(-1).release()  # BufferError while somebody still holds it


def test_sink_and_reader_in_reference_cycles_are_collected() -> None:
    class Owner(SimpleNamespace):
        def write(self, data: object) -> None: ...

    owner = Owner()
    owner.sink = sink_of(_fastpath, owner.write)
    owner.relay = relay_of(_fastpath, owner.sink)
    owner.reader = CompiledReader(owner.relay)
    owner.reader.relay_to(owner.relay, 1, owner.write)
    alive = weakref.ref(owner), weakref.ref(owner.reader)
    del owner
    gc.collect()
    assert [reference() for reference in alive] == [None, None]
