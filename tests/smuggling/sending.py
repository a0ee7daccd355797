"""Sends cases, each on a connection of its own, and reads what comes back."""

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec

from paddler.errors import RemoteProtocolError
from paddler.proto.events import BodyEnd, BodyPart, ResponseHead
from paddler.proto.http1 import ClientConnection, State
from tests.smuggling.ambiguous import Case
from tests.smuggling.origin import Seen

_AT_ONCE = 48
_PROBE = b"GET /probe/%04d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Answers(msgspec.Struct):
    """What a client was answered: statuses in their order, and what the origin told of them."""

    statuses: list[int]
    told: list[Seen]
    is_ended: bool
    """Whether the other side ended the connection."""
    is_http1: bool = True
    """Whether all of it was HTTP/1: proxies answer in HTTP/0.9 and HTTP/2, too."""


def ask_all(port: int, cases: Sequence[Case], *, quiet_s: float) -> list[Answers]:
    """The answers to all cases; who is silent for ``quiet_s`` waits for more than there is."""

    async def run() -> list[Answers]:
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(number: int, case: Case) -> Answers:
            async with limit:
                return await _ask(port, case.sent(number) + _PROBE % number, quiet_s)

        return await asyncio.gather(*(one(*numbered) for numbered in enumerate(cases)))

    return asyncio.run(run())


async def _ask(port: int, wire: bytes, quiet_s: float) -> Answers:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    is_ended = False
    try:
        writer.write(wire)
        while not is_ended:
            async with asyncio.timeout(quiet_s):
                data = await reader.read(65_536)
            received += data
            is_ended = not data
    except TimeoutError:
        pass
    except ConnectionError:
        is_ended = True
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return _read(received, is_ended=is_ended)


def _read(received: bytes, *, is_ended: bool) -> Answers:
    http = ClientConnection()
    answers = Answers([], [], is_ended)
    body = b""
    try:
        events = http.feed(received)
        if is_ended:
            events += http.feed_eof()
        while events:
            for event in events:
                match event:
                    case ResponseHead(status=status) if status >= 200:
                        answers.statuses.append(status)
                        body = b""
                    case BodyPart(data):
                        body += data
                    case BodyEnd() if answers.statuses[-1] == 200:
                        answers.told.append(msgspec.json.decode(body, type=Seen))
            events = http.next_response() if http.state is State.COMPLETE else []
    except RemoteProtocolError:
        answers.is_http1 = False
    return answers
