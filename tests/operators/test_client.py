"""What commands say of servers that are no good balancers, played byte for byte."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from paddler.config import Address
from paddler.errors import StartError
from paddler.operators import client
from paddler.operators.chat import Conversation
from paddler.operators.client import Client

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
TOKEN = (
    b'{"Response":{"generated_by":null,"request_id":"1","response":'
    b'{"GeneratedToken":{"ContentToken":"Par"}}}}\n'
)


def ask(
    answer: bytes,
    act: Callable[[Client], Any],
    *,
    leaves_open: bool = False,
    reads_body: bool = True,
    address_of: Callable[[int], Address] = lambda port: Address(
        f"127.0.0.1:{port}", "127.0.0.1", port
    ),
) -> Any:
    """What ``act`` gets of a server that says ``answer`` and closes its connection, or not."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if reads_body and length is not None:  # else its end is a reset
            await reader.readexactly(int(length[1]))
        writer.write(answer)
        if leaves_open:
            await reader.read()
        writer.close()

    async def run() -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, asyncio.timeout(20):
            address = address_of(server.sockets[0].getsockname()[1])
            return await asyncio.to_thread(act, Client(address, flag="--management-addr"))

    return asyncio.run(run())


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def get(a_client: Client) -> Any:
    return a_client.get("/api/v1/agents")


def chat(a_client: Client) -> None:
    Conversation(a_client, system=None, max_tokens=5, thinks=False).ask("Capital?")


@pytest.mark.parametrize(
    ("answer", "act", "text"),
    [
        (b"", get, "cannot reach the balancer at .*: Remote end closed connection"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", get, "cannot reach the balancer at .*: SSH-2.0"),
        (OK + b"content-length: 6\r\n\r\n<html>", get, "is no balancer of this version"),
        (OK + b"content-length: 50000\r\n\r\n" + b"[" * 50000, get, "is no balancer"),
        (OK + b"content-length: 9\r\n\r\n{}", get, "lost the balancer at .*: its answer broke off"),
        (
            b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
            get,
            r"is no balancer.*--management-addr",
        ),
        (
            b"HTTP/1.1 404 No\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
            get,
            "is no balancer",
        ),
        (
            b"HTTP/1.1 404 No\r\ncontent-type: text/plain\r\ncontent-length: 8\r\n\r\nno agent",
            get,
            "the balancer answered 404: no agent",
        ),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", get, "502: Bad Gateway"),
        (CHUNKED + chunk(TOKEN), chat, "lost the balancer at .*: its answer broke off"),
        (CHUNKED + chunk(TOKEN[:40]), chat, "its answer broke off"),
        (CHUNKED + chunk(b"<html>\n") + b"0\r\n\r\n", chat, "is no balancer"),
        (CHUNKED + chunk(b"[]\n") + b"0\r\n\r\n", chat, "is no balancer"),
        (CHUNKED + chunk(b'{"Response":{}}\n') + b"0\r\n\r\n", chat, "is no balancer"),
    ],
)
def test_an_answer_that_no_balancer_gives_is_one_line(
    answer: bytes, act: Callable[[Client], Any], text: str
) -> None:
    with pytest.raises(StartError, match=text) as caught:
        ask(answer, act)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("answer", [b"", OK + b"content-length: 9\r\n\r\n{}"])
def test_a_balancer_that_hangs_is_given_up(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.05)
    with pytest.raises(StartError, match="it does not answer"):
        ask(answer, get, leaves_open=True)


def test_an_event_stream_that_falls_silent_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "SILENCE_S", 0.05)
    monkeypatch.setattr(client, "DIAL_AGAIN_S", 0.01)

    def follow(a_client: Client) -> list[Any]:
        events = a_client.follow("/api/v1/events/stream")
        return [next(events), next(events)]

    stream = CHUNKED + chunk(b": keep-alive\n\n") + chunk(b'id: 7\ndata: {"id":7}\n\n')
    assert ask(stream, follow, leaves_open=True) == [{"id": 7}, {"id": 7}]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("lost the balancer at 127.0.0.1:")
    assert first.endswith(": it does not answer; dialling again")
    assert second.endswith(" is back")


def test_a_body_that_is_refused_before_it_was_read_is_told_why() -> None:
    refusal = (
        b"HTTP/1.1 413 Too Large\r\ncontent-type: text/plain\r\ncontent-length: 9\r\n\r\ntoo large"
    )
    body = "x" * 20_000_000
    with pytest.raises(StartError, match="the balancer answered 413: too large"):
        ask(refusal, lambda a_client: a_client.put("/x", body), reads_body=False)


def test_a_name_is_dialled_at_each_of_its_addresses() -> None:
    """``localhost`` has two, of which a balancer may have the second alone."""
    answer = OK + b"content-length: 2\r\n\r\n{}"
    assert ask(answer, get, address_of=lambda port: Address(f"localhost:{port}", "::1", port)) == {}
