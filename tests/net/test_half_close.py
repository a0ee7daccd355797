"""The end of our side: what is written after it reaches nobody."""

import asyncio
import socket

import uvloop

from paddler._fastpath import SocketWriter
from paddler.net.half_close import end_output
from paddler.net.socket_writer import writer_of


class Ours(asyncio.Protocol):
    def __init__(self) -> None:
        self.is_lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost.set()


def read_all(peer: socket.socket) -> bytes:
    data = b""
    while piece := peer.recv(1024):
        data += piece
    return data


def test_nothing_is_sent_behind_the_end() -> None:
    async def check() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            transport, ours = await asyncio.get_running_loop().create_connection(
                Ours, *listener.getsockname()
            )
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(5.0)  # a thread that waits for ever would keep the runner, too
                write = writer_of(transport)
                assert isinstance(write, SocketWriter)
                write(b"all")
                end_output(transport, write)
                # In the same turn of the loop: the socket's own end comes in the next.
                write(b"late")
                assert await asyncio.to_thread(read_all, peer) == b"all"
        await ours.is_lost.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(check(), 10.0))
