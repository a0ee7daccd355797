"""Servers that say what a test has written down, at the pace that it sets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import uvloop

from bench.load.distribution import parse_distribution
from bench.load.measures import Measures
from bench.load.plan import Api, Mix, Plan, Target
from bench.load.run import Run

Piece = bytes | float
"""Bytes to send, or seconds to wait before the next piece."""

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def token(text: bytes = b" word") -> bytes:
    """One event of a chat completion."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text


def stream(*events: Piece) -> list[Piece]:
    """A whole answer, each event a chunk of its own."""
    body = [event if isinstance(event, float) else chunk(event) for event in events]
    return [HEAD, *body, END]


def paced(tokens: int, gap_s: float) -> list[Piece]:
    """Tokens with pauses before each of them."""
    pieces: list[Piece] = [token(b"")]
    for _ in range(tokens):
        pieces += [gap_s, token()]
    return stream(*pieces, DONE)


def whole(body: bytes, status: bytes = b"200 OK") -> list[Piece]:
    """An answer as one document."""
    return [b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)]


@contextlib.asynccontextmanager
async def serving(pieces: Sequence[Piece]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """The port of a server that answers every request so, and the bodies that it was asked."""
    asked: list[bytes] = []
    over = asyncio.Event()

    async def pause(seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await over.wait()
                raise ConnectionError("the test is over")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                asked.append(await reader.readexactly(length))
                for piece in pieces:
                    if isinstance(piece, float):
                        await pause(piece)
                    else:
                        writer.write(piece)
                        await writer.drain()
                if not pieces or pieces[-1] == b"":
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked
        over.set()
    await server.wait_closed()


def plan_for(port: int, *, api: Api = Api.CHAT, **values: Any) -> Plan:
    """A short run of one client, changed by ``values``; those of a mix go there."""
    mix_values = {name: values.pop(name) for name in [*values] if hasattr(Mix, name)}
    mix = {
        "model": "any",
        "prompt": parse_distribution("4"),
        "output": parse_distribution("8"),
    } | mix_values
    target = Target(host="127.0.0.1", port=port, path=api.path)
    run = {"streams": 1, "duration_s": 5.0, "drain_s": 0.5, "seed": 1} | values
    return Plan(target=target, mix=Mix(api=api, **mix), **run)


async def measured(port: int, **values: Any) -> Measures:
    """What a run finds at ``port``."""
    run = Run(plan_for(port, **values))
    await run.run()
    return run.measures


def on_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``test`` on uvloop, as the load generator does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test(), 20.0))
