"""Writing to a transport's socket: what goes out at once, and what is left to the transport."""

import socket
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from paddler import _fastpath
from tests.fastpath_impls import IMPLS, outcome

MORE_THAN_A_SOCKET_TAKES = bytes(range(256)) * 40_000


class Transport:
    """Notes what it is given; how much it has unsent is for the test to say."""

    def __init__(self) -> None:
        self.given: list[bytes] = []
        self.unsent_bytes = 0
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.given.append(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self.is_closed


class Wire:
    """A connected pair: ``ours`` is the transport's socket, ``peer`` the client's."""

    def __init__(self) -> None:
        self.ours, self.peer = socket.socketpair()
        self.transport = Transport()

    def writer(self, impl: ModuleType) -> Callable[[bytes], None]:
        writer: Callable[[bytes], None] = impl.SocketWriter(self.transport, self.ours.fileno())
        return writer

    def arrived(self) -> bytes:
        """What is there to read; nothing waits for more."""
        data = b""
        self.peer.setblocking(False)
        try:
            while piece := self.peer.recv(1 << 20):
                data += piece
        except BlockingIOError:
            pass
        return data


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    with made.ours, made.peer:
        yield made


@pytest.mark.parametrize("impl", IMPLS)
def test_data_is_sent_at_once(impl: ModuleType, wire: Wire) -> None:
    writer = wire.writer(impl)
    writer(b"one")
    writer(b"two")
    assert wire.arrived() == b"onetwo"
    assert wire.transport.given == []


@pytest.mark.parametrize("impl", IMPLS)
def test_what_the_system_does_not_take_is_the_transports(impl: ModuleType, wire: Wire) -> None:
    writer = wire.writer(impl)
    writer(MORE_THAN_A_SOCKET_TAKES)
    [rest] = wire.transport.given
    assert 0 < len(rest) < len(MORE_THAN_A_SOCKET_TAKES)
    wire.transport.unsent_bytes = len(rest)
    writer(b"later")
    assert wire.transport.given == [rest, b"later"]
    assert wire.arrived() + rest == MORE_THAN_A_SOCKET_TAKES
    wire.transport.unsent_bytes = 0
    writer(b"at once again")
    assert wire.arrived() == b"at once again"
    assert len(wire.transport.given) == 2


@pytest.mark.parametrize("impl", IMPLS)
def test_what_was_written_before_goes_first(impl: ModuleType, wire: Wire) -> None:
    wire.transport.unsent_bytes = 5
    wire.writer(impl)(b"later")
    assert wire.transport.given == [b"later"]
    assert wire.arrived() == b""


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("data", [b"late", b""])
def test_the_socket_of_a_transport_that_closes_is_not_touched(
    impl: ModuleType, wire: Wire, data: bytes
) -> None:
    writer = wire.writer(impl)
    wire.transport.is_closed = True
    writer(data)
    assert wire.arrived() == b""
    assert wire.transport.given == [data]


@pytest.mark.parametrize("impl", IMPLS)
def test_nothing_is_written_after_the_end(impl: ModuleType, wire: Wire) -> None:
    writer = impl.SocketWriter(wire.transport, wire.ours.fileno())
    writer(b"one")
    writer.end()
    writer(b"two")
    assert wire.arrived() == b"one"
    assert wire.transport.given == []


@pytest.mark.parametrize("impl", IMPLS)
def test_a_peer_that_is_gone_is_the_transports_to_find(impl: ModuleType, wire: Wire) -> None:
    wire.peer.close()
    wire.writer(impl)(b"to nobody")
    assert wire.transport.given == [b"to nobody"]


@pytest.mark.parametrize("impl", IMPLS)
def test_what_the_transport_raises_is_passed_on(impl: ModuleType, wire: Wire) -> None:
    def refuse(data: bytes) -> None:
        raise RuntimeError("unable to write")

    wire.transport.is_closed = True
    wire.transport.write = refuse  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="unable to write"):
        wire.writer(impl)(b"late")


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("data", [None, "text", bytearray(b"a")])
def test_only_bytes_are_written(impl: ModuleType, wire: Wire, data: object) -> None:
    assert outcome(wire.writer(impl), data) is TypeError  # type: ignore[arg-type]


@pytest.mark.parametrize("impl", IMPLS)
def test_a_sinks_tokens_go_this_way(impl: ModuleType, wire: Wire) -> None:
    sink = impl.Sink(1, wire.writer(impl), _fastpath.FRAMING_CHUNKED, (b"<",), b">", 0.0, 1 << 20)
    relay = impl.Relay()
    relay.open(sink)
    relay.feed(b"\1\0\0\0\0\0\0\0\2\0\0\0hi", 1.0)
    sink.send(b"{}")
    assert wire.arrived() == b"4\r\n<hi>\r\n2\r\n{}\r\n"
