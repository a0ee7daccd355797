"""Answers as lines of JSON and as server-sent events.

Invariants: what a client reads is what the model said, token by token; no text ends a line or an
event, or begins another one.
"""

import msgspec

from paddler._fastpath import FRAMING_RAW, Relay, Sink
from paddler.agent.worker.answer import escape
from paddler.balancer.services.native_encoding import (
    TOKEN_SUFFIX,
    error_message,
    result_message,
    token_prefixes,
)
from paddler.messages.inference import Failure
from paddler.messages.link import FrameKind, encode_data_frame
from paddler.proto.sse import encode_event
from tests.fuzz.pieces import cut_text

SEEDS = (
    b"Hello\nworld",
    b"data: x\n\n",
    b'"}}}}\n{"Error":1}',
    b"\r\n\r\nevent: done\rid: 1",
    "\u2028\u2029\x85\u0000".encode(),
    b"\xed\xa0\x80\xff",
    b": keep-alive\n\ndata: [DONE]\n\n",
)
DICTIONARY = (
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"data:",
    b"event:",
    b"id: 1",
    b"[DONE]",
    b'"',
    b"\\",
    b"}}}}",
    "\u2028".encode(),
    b"\0",
)


def check(data: bytes) -> None:
    """The invariants for ``data`` as a model's text, and as the data of one event."""
    text = data.decode(errors="replace")
    tokens = cut_text(text)
    check_lines(tokens, name=text[:20])
    check_events(tokens)
    wire = encode_event(data, event="kind", event_id=7)
    line_ends = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert read_events(wire) == [("kind", "7", line_ends)]


def check_lines(tokens: list[str], *, name: str) -> None:
    """Each token one line, between lines that are not the model's."""
    wire = relayed(tokens, token_prefixes(name, "r"), TOKEN_SUFFIX + b"\n")
    wire += error_message(Failure(502, "".join(tokens)), "r") + b"\n"
    wire += result_message(b'"x"', name, "".join(tokens)) + b"\n"
    *lines, last = wire.split(b"\n")
    assert last == b""
    assert len(lines) == len(tokens) + 2
    for token, line in zip(tokens, lines, strict=False):
        response = msgspec.json.decode(line)["Response"]
        assert response["generated_by"] == name
        assert response["response"]["GeneratedToken"] == {"ContentToken": token}
    assert msgspec.json.decode(lines[-2])["Error"]["error"]["description"] == "".join(tokens)
    assert msgspec.json.decode(lines[-1])["Response"]["request_id"] == "".join(tokens)


def check_events(tokens: list[str]) -> None:
    """Each token one event, as OpenAI's protocol has them."""
    wire = relayed(tokens, (b'data: {"delta":"',), b'"}\n\n')
    assert [msgspec.json.decode(data) for _, _, data in read_events(wire)] == [
        {"delta": token} for token in tokens
    ]


def relayed(tokens: list[str], prefixes: tuple[bytes, ...], suffix: bytes) -> bytes:
    """What the relay writes of an answer."""
    written: list[bytes] = []
    relay = Relay()
    relay.open(Sink(1, written.append, FRAMING_RAW, prefixes, suffix, 0.0, 1 << 20))
    for token in tokens:
        relay.feed(encode_data_frame(1, FrameKind.CONTENT, escape(token)), 0.0)
    return b"".join(written)


def read_events(wire: bytes) -> list[tuple[str, str, bytes]]:
    """Kind, id and data of each event, as WHATWG HTML §9.2.6 has a browser read them."""
    events = []
    kind, number, lines = "", "", []
    wire = wire.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert wire.endswith(b"\n")
    for line in wire[:-1].split(b"\n"):
        if not line:
            if lines:
                events.append((kind, number, b"\n".join(lines)))
            kind, lines = "", []
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match field:
            case b"data":
                lines.append(value)
            case b"event":
                kind = value.decode()
            case b"id":
                number = value.decode()
            case _:
                raise AssertionError(f"a field that nobody wrote: {line!r}")
    assert not lines, "an event without its end"
    return events
