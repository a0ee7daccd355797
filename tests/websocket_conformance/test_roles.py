"""Both roles against the cases of the Autobahn suite, however the bytes are cut."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from wsproto.frame_protocol import CloseReason

from paddler.net.client import connect_websocket
from paddler.net.connection import Exchange
from paddler.net.http import Router, Site
from paddler.net.server import listen
from paddler.net.websocket import WebSocketConnection, WebSocketSettings
from tests.websocket_conformance.cases import (
    BINARY,
    CASES,
    LIMIT_BYTES,
    PROTOCOL_ERROR,
    TEXT,
    Answer,
    Case,
    Frame,
)
from tests.websocket_conformance.peer import UPGRADE, accepted, encoded, exchange

SETTINGS = WebSocketSettings(max_message_bytes=LIMIT_BYTES, max_unsent_bytes=1 << 28)
NO_CODE = int(CloseReason.NO_STATUS_RCVD)
LONGEST_OCTET_WISE = 400

Result = tuple[list[Answer], int | None]
AnswersOf = Callable[[Sequence[bytes]], Coroutine[Any, Any, Result]]


class Echo:
    """Sends back what comes."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    def on_text(self, data: memoryview) -> None:
        self._connection.send_text(data)

    def on_binary(self, data: memoryview) -> None:
        self._connection.send_binary(data)

    def on_closed(self, code: int | None, reason: str) -> None:
        """Nothing: the peer tells."""


async def of_server(pieces: Sequence[bytes]) -> Result:
    """What our server answers a client that sends these."""

    async def accept(exchange: Exchange) -> None:
        exchange.accept_websocket(Echo, SETTINGS)

    router = Router()
    router.add("GET", "/echo", accept)
    listener = await listen(Site(router=router), "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(UPGRADE)
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        return await exchange(reader, writer, pieces, is_client=True)
    finally:
        await listener.stop(0.0)


async def of_client(pieces: Sequence[bytes]) -> Result:
    """What our client answers a server that sends these."""
    result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(accepted(await reader.readuntil(b"\r\n\r\n")))
        result.set_result(await exchange(reader, writer, pieces, is_client=False))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        connection = await connect_websocket(
            "127.0.0.1", port, "/echo", Echo, connect_timeout_s=5.0, settings=SETTINGS
        )
        answers = await result
        connection.abort()
    return answers


ROLES = [pytest.param(of_server, True, id="server"), pytest.param(of_client, False, id="client")]


@pytest.mark.parametrize(("answers_of", "is_masked"), ROLES)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.number) for case in CASES])
def test_case_of_the_suite(case: Case, answers_of: AnswersOf, is_masked: bool) -> None:
    frames = [encoded(frame, is_masked=is_masked) for frame in case.frames]
    wire = b"".join(frames)
    cuts = {"whole": [wire], "by frame": frames}
    if len(wire) <= LONGEST_OCTET_WISE:
        cuts["by octet"] = [wire[at : at + 1] for at in range(len(wire))]

    async def run() -> dict[str, Result]:
        async with asyncio.timeout(20):
            return {cut: await answers_of(pieces) for cut, pieces in cuts.items()}

    for cut, (answers, code) in asyncio.run(run()).items():
        assert code == (NO_CODE if case.code is None else case.code), cut
        if case.code is None:
            assert answers == list(case.answers), cut
        else:
            # What came in one read with an offence may be lost with the connection.
            assert answers == list(case.answers)[: len(answers)], cut


@pytest.mark.parametrize(("answers_of", "is_masked"), ROLES)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_wrong_masking_is_an_offence(answers_of: AnswersOf, is_masked: bool, opcode: int) -> None:
    wire = encoded(Frame(opcode, b"x"), is_masked=not is_masked)
    assert asyncio.run(answers_of([wire])) == ([], PROTOCOL_ERROR)
