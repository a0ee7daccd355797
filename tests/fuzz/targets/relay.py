"""The link's data messages: runs of frames on their way to clients.

Invariants: the compiled relay agrees with its twin on every event, byte and count; a message is
relayed whole or refused whole; what a client's framing carries is what the frames brought.
"""

from types import ModuleType

from paddler import _fastpath
from paddler.messages.link import encode_data_frame
from tests import fastpath_twin
from tests.fastpath_impls import outcome

SEEDS = (
    encode_data_frame(1, 0, b"one") + encode_data_frame(2, 1, b"two"),
    encode_data_frame(3, 2, b"x" * 200) + encode_data_frame(4, 0, b"event"),
    encode_data_frame(1, 8, b'{"a":1}') + encode_data_frame(9, 0, b"nobody"),
    encode_data_frame(2, 255, b""),
    encode_data_frame(1, 0, b"")[:-1],
    encode_data_frame(5, 0, b"too much to be left unread") * 3,
)
DICTIONARY = tuple(
    encode_data_frame(stream, kind, b"") for stream in (1, 2, 3, 4, 5) for kind in (0, 8)
)

PREFIX, SUFFIX = b'{"t":"', b'"}\n'


def check(data: bytes) -> None:
    """The invariants for ``data`` as one message."""
    ours, twins = relayed(_fastpath, data), relayed(fastpath_twin, data)
    assert ours == twins
    result, written, _ = ours
    if isinstance(result, tuple):  # refused
        assert not any(written.values())
        return
    assert unchunked(b"".join(written[2])) == b"".join(expected(data, 2))
    framed = bytearray(_fastpath.encode_frame(2, data, 0x1020304))
    assert relayed(_fastpath, framed, is_framed=True) == ours


def expected(data: bytes, stream_id: int) -> list[bytes]:
    """What a client of this stream is to read, by the frames of a sound message."""
    return [
        PREFIX + payload + SUFFIX
        for stream, kind, _, payload in fastpath_twin.split_run(data)
        if stream == stream_id and kind < 2
    ]


def relayed(
    impl: ModuleType, data: bytes | bytearray, *, is_framed: bool = False
) -> tuple[object, dict[int, list[bytes]], list[tuple[object, ...]]]:
    """Events or refusal, what each client was sent, and what the sinks say of themselves."""
    relay = impl.Relay()
    written: dict[int, list[bytes]] = {1: [], 2: [], 3: [], 5: []}
    framings = {1: impl.FRAMING_RAW, 2: impl.FRAMING_CHUNKED, 3: impl.FRAMING_WEBSOCKET}
    sinks = []
    for stream_id in (1, 2, 3, 4, 5):
        write = written[stream_id].append if stream_id in written else None
        framing = framings.get(stream_id, impl.FRAMING_RAW)
        sink = impl.Sink(stream_id, write, framing, (PREFIX, PREFIX, None), SUFFIX, 0.0, 64)
        sink.is_paused = stream_id == 5
        relay.open(sink)
        sinks.append(sink)
    if is_framed:
        result = []
        reader = impl.FrameReader(memoryview(data), lambda: 7.0)
        reader.relay_to(relay, len(data), result.extend)
        reader.buffer_updated(len(data))
    else:
        result = outcome(relay.feed, data, 7.0)
    state = [(s.tokens, s.heard_at, s.first_token_at, s.unsent_bytes, s.is_overrun) for s in sinks]
    return result, written, [*state, (relay.tokens, len(relay))]


def unchunked(wire: bytes) -> bytes:
    """The content of chunks that are sound."""
    content = b""
    while wire:
        size, _, wire = wire.partition(b"\r\n")
        content += wire[: int(size, 16)]
        assert wire[int(size, 16) :].startswith(b"\r\n")
        wire = wire[int(size, 16) + 2 :]
    return content
