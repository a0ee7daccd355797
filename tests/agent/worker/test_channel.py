import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from paddler.agent.worker.channel import Channel, ParentLeft
from paddler.errors import RemoteProtocolError
from paddler.messages.link import FRAME_FINAL, FrameKind, StopStream, encode_data_frame
from paddler.messages.worker import (
    MAX_PACKET_BYTES,
    PACKET_HEADER,
    PacketKind,
    Reset,
    ResetDone,
    Stop,
    encode,
    encode_packet,
)
from tests.agent.worker.frames import WorkerEnd


@pytest.fixture
def pair() -> Iterator[tuple[Channel, WorkerEnd]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), WorkerEnd(theirs)


def test_commands_come_in_order(pair: tuple[Channel, WorkerEnd]) -> None:
    channel, parent = pair
    parent.send(StopStream(1), Reset(2))
    assert [channel.receive(), channel.receive()] == [StopStream(1), Reset(2)]
    assert channel.receive_nowait() is None


def test_command_is_the_same_however_its_bytes_arrive(pair: tuple[Channel, WorkerEnd]) -> None:
    channel, parent = pair
    packet = encode_packet(PacketKind.CONTROL, encode(StopStream(300)))
    for byte in packet[:-1]:
        parent.sock.sendall(bytes([byte]))
        assert channel.receive_nowait() is None
    parent.sock.sendall(packet[-1:])
    assert channel.receive_nowait() == StopStream(300)


@pytest.mark.parametrize("wait", [True, False])
def test_end_of_the_pipe_ends_the_worker(pair: tuple[Channel, WorkerEnd], wait: bool) -> None:
    channel, parent = pair
    parent.send(StopStream(1))
    parent.sock.close()
    with pytest.raises(ParentLeft):
        channel.receive() if wait else channel.receive_nowait()


def test_stop_overtakes_queued_commands(pair: tuple[Channel, WorkerEnd]) -> None:
    channel, parent = pair
    parent.send(StopStream(1), Stop())
    with pytest.raises(ParentLeft):
        channel.receive()


@pytest.mark.parametrize("has_stop", [True, False])
def test_send_that_nobody_reads_ends_with_the_parent(
    pair: tuple[Channel, WorkerEnd], has_stop: bool
) -> None:
    channel, parent = pair
    parent.send(StopStream(1))
    ended = threading.Event()

    def send_until_ended() -> None:
        with suppress(ParentLeft):
            while True:
                channel.send_frames(bytes(1024 * 1024), ())
        ended.set()

    sender = threading.Thread(target=send_until_ended)
    sender.start()
    if has_stop:
        parent.send(Stop())
    else:
        parent.sock.close()
    assert ended.wait(30)
    sender.join()


def test_slow_reader_gets_all_in_order(pair: tuple[Channel, WorkerEnd]) -> None:
    channel, parent = pair
    bodies = [bytes([number]) * 3_000_000 for number in range(6)]

    def send_all() -> None:
        for body in bodies:
            channel.send_frames(_as_frame(body), (9,))
        channel.send(ResetDone(4))

    sender = threading.Thread(target=send_all)
    sender.start()
    received = [parent.receive_data().frames[0].payload for _ in bodies]
    assert received == bodies
    assert parent.receive() == ResetDone(4)
    sender.join()


def _as_frame(payload: bytes) -> bytes:
    return encode_data_frame(9, FrameKind.DONE, payload, FRAME_FINAL)


@pytest.mark.parametrize(
    "header",
    [(MAX_PACKET_BYTES + 1, PacketKind.CONTROL, 0, 0), (4, PacketKind.DATA, 0, 0), (4, 0, 0, 1)],
    ids=["too long", "data", "stream ids"],
)
def test_packet_that_no_agent_sends_breaks_the_protocol(
    pair: tuple[Channel, WorkerEnd], header: tuple[int, int, int, int]
) -> None:
    channel, parent = pair
    parent.sock.sendall(PACKET_HEADER.pack(*header))
    with pytest.raises(RemoteProtocolError, match="expected a control packet"):
        channel.receive()
