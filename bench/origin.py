"""``python -m bench.origin``: a server that answers by itself what agents would answer.

It stands behind other proxies, so that they relay the same tokens at the same pace as a
balancer with scripted agents does. Speaks as much HTTP as proxies and the load generator do.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from typing import Final, cast

import msgspec
import uvloop

from bench import flags
from bench.descriptors import allow_many_sockets
from bench.scripted.pacemaker import Pacemaker
from bench.scripted.script import Script
from bench.scripted.tally import Tally
from paddler._fastpath import head_end, parse_request_head
from paddler.cli import EXIT_FAILURE, EXIT_OK, complain
from paddler.collection import collect_seldom
from paddler.config import Address
from paddler.errors import StartError
from paddler.log import set_up_logging
from paddler.net.read_buffer import READ_BUFFER
from paddler.signals import StopSignals

DESCRIPTION = """\
A server that answers chat completions with made-up tokens at a set pace, as a balancer with
scripted agents does: the other end of a comparison with other proxies."""

EPILOG = """\
example:
  python -m bench.origin --addr 127.0.0.1:18090 --rate 20 --stamp"""

# As long as a balancer's events are.
EVENT: Final = (
    b'data: {"id":"chatcmpl-0123456789abcdefghijk","object":"chat.completion.chunk",'
    b'"created":1795537655,"model":"default","system_fingerprint":"fp_0123456789abcdefghijk",'
    b'"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]}\n\n'
)
OPENING: Final = EVENT % (b'{"role":"assistant","content":"","refusal":null}', b"null")
TOKEN: Final = EVENT % (b'{"content":"%b"}', b"null")
CLOSING: Final = EVENT % (b"{}", b'"length"')
DONE: Final = b"data: [DONE]\n\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
WHOLE: Final = (
    b'{"id":"chatcmpl-0123456789abcdefghijk","object":"chat.completion","created":1795537655,'
    b'"model":"default","system_fingerprint":"fp_0123456789abcdefghijk","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"%b","refusal":null,"annotations":[]},'
    b'"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":9,'
    b'"completion_tokens":%d,"total_tokens":%d}}'
)


class Wanted(msgspec.Struct):
    """What matters of a request's body."""

    max_tokens: int = 64
    stream: bool = False


decode = msgspec.json.Decoder(Wanted).decode


class OriginConnection(asyncio.BufferedProtocol):
    """One connection: a request, its answer, the next one."""

    def __init__(self, script: Script, pacemaker: Pacemaker) -> None:
        self._script = script
        self._pacemaker = pacemaker
        self._waiting = b""
        self._left = 0
        self._steps = 0
        self._is_gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._is_gone = True

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer that the next read fills."""
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` were read."""
        data = self._waiting + bytes(READ_BUFFER[:nbytes])
        head_bytes = head_end(data)
        if head_bytes < 0:
            self._waiting = data
            return
        fields = dict(parse_request_head(data[:head_bytes])[3])
        end = head_bytes + int(fields.get("content-length", "0"))
        if len(data) < end:
            self._waiting = data
            return
        self._waiting = data[end:]
        self._answer(decode(data[head_bytes:end]))

    def _answer(self, wanted: Wanted) -> None:
        script = self._script
        tokens = min(wanted.max_tokens, script.tokens)
        if not wanted.stream:
            text = b"".join(script.text(step) for step in range(tokens))
            body = WHOLE % (text, tokens, 9 + tokens)
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            return
        self._transport.write(STREAM_HEAD + chunk(OPENING))
        self._left = tokens
        self._pacemaker.at(time.monotonic() + script.prefill_s, self._step)

    def _step(self, due_at: float) -> None:
        if self._is_gone:
            return
        if self._left:
            self._left -= 1
            self._steps += 1
            self._transport.write(chunk(TOKEN % self._script.text(self._steps)))
        if self._left:
            self._pacemaker.at(due_at + self._script.step_s, self._step)
        else:
            self._transport.write(chunk(CLOSING) + chunk(DONE) + LAST_CHUNK)


def chunk(data: bytes) -> bytes:
    """One chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve(address: Address, script: Script) -> None:
    """Answer until told to stop."""
    tally = Tally()
    pacemaker = Pacemaker(tally)
    server = await asyncio.get_running_loop().create_server(
        lambda: OriginConnection(script, pacemaker), address.host, address.port, backlog=4096
    )
    async with StopSignals() as signals, server:
        print(f"listening on {address.text}", flush=True)
        await signals.wait()
        pacemaker.stop()
    print(f"{tally.late_steps} steps late, at most by {tally.peak_late_s * 1000:.1f} ms")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve; the process's exit code."""
    parser = flags.Parser("python -m bench.origin", DESCRIPTION, EPILOG)
    parser.add_argument("--addr", metavar="ADDR", type=flags.address, default="127.0.0.1:8090")
    parser.add_argument("--rate", metavar="R", type=flags.amount, default=20.0)
    parser.add_argument("--tokens", metavar="N", type=flags.count, default=10**9)
    parser.add_argument("--prefill-ms", metavar="MS", type=flags.amount, default=0.0)
    parser.add_argument("--stamp", action="store_true")
    arguments = parser.parse_args(argv)
    set_up_logging(os.environ, default="warn")
    collect_seldom()
    script = Script(
        slots=1,
        tokens_per_s=arguments.rate,
        prefill_s=arguments.prefill_ms / 1000,
        tokens=arguments.tokens,
        is_stamped=arguments.stamp,
    )
    try:
        allow_many_sockets(1000)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(arguments.addr, script))
    except OSError as error:
        return complain(
            StartError(f"cannot listen on {arguments.addr.text}: {error.strerror}"), EXIT_FAILURE
        )
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
