"""The cases of the Autobahn test suite, by its numbers, as data for either role.

``frames`` are sent by the peer; ``answers`` are what an echoing side sends back, in order. A case
either ends with a close handshake (``code`` is ``None``) or breaks the protocol: then ``code`` is
what the connection is closed with. Performance cases (9) have sizes that a test can afford, and
compression (12, 13) is left out: it is never agreed on.
"""

import itertools
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
PROTOCOL_ERROR, NOT_UTF8, TOO_BIG = 1002, 1007, 1009


class Frame(NamedTuple):
    """A frame to be sent."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0


class Answer(NamedTuple):
    """A whole message or control frame that comes back."""

    opcode: int
    payload: bytes = b""


class Case(NamedTuple):
    """What the peer sends, and what it gets."""

    number: str
    frames: tuple[Frame, ...]
    answers: tuple[Answer, ...] = ()
    code: int | None = None


END: Final = Frame(CLOSE, b"\x03\xe8")


def _echoed(number: str, *frames: Frame, answers: tuple[Answer, ...] | None = None) -> Case:
    """A case that ends with a close handshake; what is no fragment comes back as it is."""
    if answers is None:
        kinds = {TEXT: TEXT, BINARY: BINARY, PING: PONG}
        answers = tuple(
            Answer(kinds[one.opcode], one.payload) for one in frames if one.opcode in kinds
        )
    return Case(number, (*frames, END), answers)


def _broken(
    number: str, *frames: Frame, code: int = PROTOCOL_ERROR, answers: tuple[Answer, ...] = ()
) -> Case:
    """A case that is an offence."""
    return Case(number, frames, answers, code)


def _fragments(opcode: int, *parts: bytes) -> list[Frame]:
    last = len(parts) - 1
    return [
        Frame(CONTINUATION if at else opcode, part, fin=at == last) for at, part in enumerate(parts)
    ]


def _split(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


HELLO: Final = Frame(TEXT, b"Hello, world!")
SAID: Final = Answer(TEXT, HELLO.payload)


def _framing() -> Iterator[Case]:
    for kind, opcode, byte in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for at, size in enumerate((0, 125, 126, 127, 128, 65_535, 65_536), 1):
            yield _echoed(f"1.{kind}.{at}", Frame(opcode, byte * size))


def _pings() -> Iterator[Case]:
    payload = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
    yield _echoed("2.1", Frame(PING))
    yield _echoed("2.2", Frame(PING, b"Hello, world!"))
    yield _echoed("2.3", Frame(PING, payload))
    yield _echoed("2.4", Frame(PING, b"\xfe" * 125))
    yield _broken("2.5", Frame(PING, b"\xfe" * 126))
    yield _echoed("2.7", Frame(PONG))
    yield _echoed("2.8", Frame(PONG, b"unsolicited"))
    yield _echoed("2.9", Frame(PONG, b"unsolicited"), Frame(PING, b"ping"))
    yield _echoed("2.10", *(Frame(PING, b"payload-%d" % at) for at in range(10)))


def _reserved_bits() -> Iterator[Case]:
    yield _broken("3.1", HELLO._replace(rsv=1))
    yield _broken("3.2", HELLO, HELLO._replace(rsv=2), Frame(PING), answers=(SAID,))
    yield _broken("3.3", HELLO, HELLO._replace(rsv=3), Frame(PING), answers=(SAID,))
    yield _broken("3.4", HELLO, HELLO._replace(rsv=4), Frame(PING), answers=(SAID,))
    yield _broken("3.5", Frame(BINARY, b"\xff" * 8, rsv=5))
    yield _broken("3.6", Frame(PING, b"x", rsv=6))
    yield _broken("3.7", Frame(CLOSE, b"\x03\xe8", rsv=7))


def _opcodes() -> Iterator[Case]:
    for group, opcodes in ((1, range(3, 8)), (2, range(11, 16))):
        for at, opcode in enumerate(opcodes, 1):
            if at < 3:
                yield _broken(f"4.{group}.{at}", Frame(opcode, b"x" * (at - 1)))
            else:
                frames = HELLO, Frame(opcode, b"x" * (at - 3)), Frame(PING)
                yield _broken(f"4.{group}.{at}", *frames, answers=(SAID,))


def _fragmentation() -> Iterator[Case]:
    first, second = _fragments(TEXT, b"fragment1", b"fragment2")
    whole = Answer(TEXT, b"fragment1fragment2")
    ping, pong = Frame(PING, b"ping"), Answer(PONG, b"ping")
    yield _broken("5.1", *_fragments(PING, b"fragment1", b"fragment2"))
    yield _broken("5.2", *_fragments(PONG, b"fragment1", b"fragment2"))
    yield _echoed("5.3", first, second, answers=(whole,))
    yield _echoed("5.6", first, ping, second, answers=(pong, whole))
    lone, open_lone = Frame(CONTINUATION, b"lone"), Frame(CONTINUATION, b"lone", fin=False)
    yield _broken("5.9", lone, HELLO)
    yield _broken("5.12", open_lone, HELLO)
    yield _broken("5.15", first, second, open_lone, HELLO, answers=(whole,))
    yield _broken("5.16", *[open_lone, first, second] * 2)
    yield _broken("5.17", *[lone, first, second] * 2)
    yield _broken("5.18", first, Frame(TEXT, b"fragment2"))
    parts = [b"fragment%d" % at for at in range(1, 6)]
    frames = _fragments(TEXT, *parts)
    answers = pong, pong, Answer(TEXT, b"".join(parts))
    yield _echoed("5.20", *frames[:2], ping, *frames[2:4], ping, frames[4], answers=answers)


# Markus Kuhn's stress test of UTF-8 decoders, in Autobahn's grouping.
_VALID: Final = {
    "6.5.1": "Hello-µ@ßöäüàá-UTF-8!!", "6.5.2": "κόσμε", "6.5.3": "\u0000", "6.5.4": "\u0080",
    "6.5.5": "\u0800",
    "6.7.1": "\U00010000", "6.9.1": "\u007f", "6.9.2": "\u07ff", "6.9.3": "\uffff",
    "6.9.4": "\U0010ffff",
    "6.11.1": "\ud7ff", "6.11.2": "\ue000", "6.11.3": "\ufffd", "6.11.4": "\U0010fffe",
    "6.22.1": "\ufffe", "6.22.2": "\U0001fffe", "6.22.3": "\U0001ffff", "6.22.4": "\U000ffffe",
    "6.23.1": "\ufdd0",
    "6.23.2": "\ufeff", "6.23.3": "\u202e\u200b\u2028\u2029",
}  # fmt: skip
_INVALID: Final = {
    "6.3.1": "cebae1bdb9cf83cebcceb5eda080656469746564", "6.6.1": "ce", "6.6.3": "ceba e1",
    "6.6.4": "ceba e1bd", "6.6.6": "cebae1bdb9cf", "6.6.8": "cebae1bdb9cf83ce",
    "6.6.10": "cebae1bdb9cf83cebcce", "6.8.1": "f888808080", "6.8.2": "fc8480808080",
    "6.10.1": "f7bfbfbf", "6.10.2": "fbbfbfbfbf", "6.10.3": "fdbfbfbfbfbf",
    "6.12.1": "80", "6.12.2": "bf", "6.12.3": "80bf", "6.12.4": "80bf80", "6.12.5": "80bf80bf",
    "6.12.8": "80bf80bf80bf80", "6.13.1": "c020c120c220", "6.13.2": "e020e120e220",
    "6.13.3": "f020f120f220",
    "6.13.4": "f820f920fa20", "6.13.5": "fc20", "6.14.1": "c0", "6.14.2": "e080",
    "6.14.3": "f08080", "6.14.4": "f8808080", "6.14.5": "fc80808080", "6.14.6": "df",
    "6.14.7": "efbf", "6.14.8": "f7bfbf",
    "6.14.9": "fbbfbfbf", "6.14.10": "fdbfbfbfbf",
    "6.15.1": "c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf", "6.16.1": "fe",
    "6.16.2": "ff", "6.16.3": "fefeffff", "6.17.1": "c0af", "6.17.2": "e080af",
    "6.17.3": "f08080af", "6.17.4": "f8808080af", "6.17.5": "fc80808080af", "6.18.1": "c1bf",
    "6.18.2": "e09fbf", "6.18.3": "f08fbfbf", "6.18.4": "f887bfbfbf", "6.18.5": "fc83bfbfbfbf",
    "6.19.1": "c080", "6.19.2": "e08080", "6.19.3": "f0808080", "6.19.4": "f880808080",
    "6.19.5": "fc8080808080", "6.20.1": "eda080", "6.20.2": "edadbf", "6.20.3": "edae80",
    "6.20.4": "edafbf",
    "6.20.5": "edb080", "6.20.6": "edbe80", "6.20.7": "edbfbf", "6.21.1": "eda080edb080",
    "6.21.2": "eda080edbfbf", "6.21.3": "edadbfedb080", "6.21.4": "edadbfedbfbf",
    "6.21.5": "edae80edb080",
    "6.21.6": "edae80edbfbf", "6.21.7": "edafbfedb080", "6.21.8": "edafbfedbfbf",
    "6.22.x": "f4908080", "6.4.1": "cebae1bdb9cf83cebcceb5f4908080656469746564",
}  # fmt: skip


def _utf8() -> Iterator[Case]:
    text = "Hello-µ@ßöäüàá-UTF-8!!".encode()
    whole = (Answer(TEXT, text),)
    yield _echoed("6.1.1", Frame(TEXT))
    yield _echoed("6.1.2", *_fragments(TEXT, b"", b"", b""), answers=(Answer(TEXT),))
    parts = _fragments(TEXT, b"", b"middle", b"")
    yield _echoed("6.1.3", *parts, answers=(Answer(TEXT, b"middle"),))
    yield _echoed("6.2.1", Frame(TEXT, text))
    yield _echoed("6.2.2", *_fragments(TEXT, text[:12], text[12:]), answers=whole)
    yield _echoed("6.2.3", *_fragments(TEXT, *_split(text, 1)), answers=whole)
    for number, valid in _VALID.items():
        yield _echoed(number, Frame(TEXT, valid.encode()))
    for number, octets in _INVALID.items():
        data = bytes.fromhex(octets)
        yield _broken(number, Frame(TEXT, data), code=NOT_UTF8)
        yield _broken(f"{number} in fragments", *_fragments(TEXT, *_split(data, 1)), code=NOT_UTF8)
        yield _echoed(f"{number} as binary", Frame(BINARY, data))


def _closing() -> Iterator[Case]:
    yield Case("7.1.1", (HELLO, END), (SAID,))
    yield Case("7.1.2", (END, END))
    yield Case("7.1.3", (END, Frame(PING)))
    yield Case("7.1.4", (END, HELLO))
    first, second = _fragments(TEXT, b"fragment1", b"fragment2")
    yield Case("7.1.5", (first, END, second))
    long = b"x" * 262_144
    yield Case("7.1.6", (Frame(TEXT, long), END, Frame(PING)), (Answer(TEXT, long),))
    yield Case("7.3.1", (Frame(CLOSE),))
    yield _broken("7.3.2", Frame(CLOSE, b"a"))
    yield Case("7.3.3", (Frame(CLOSE, _close(1000)),))
    yield Case("7.3.4", (Frame(CLOSE, _close(1000) + b"Hello, world!"),))
    yield Case("7.3.5", (Frame(CLOSE, _close(1000) + b"*" * 123),))
    yield _broken("7.3.6", Frame(CLOSE, _close(1000) + b"*" * 124))
    invalid = bytes.fromhex(_INVALID["6.3.1"])
    yield _broken("7.5.1", Frame(CLOSE, _close(1000) + invalid), code=NOT_UTF8)
    valid = *range(1000, 1004), *range(1007, 1012), 3000, 3999, 4000, 4999
    for at, code in enumerate(valid, 1):
        yield Case(f"7.7.{at}", (Frame(CLOSE, _close(code)),))
    for at, code in enumerate((0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999), 1):
        yield _broken(f"7.9.{at}", Frame(CLOSE, _close(code)))
    yield _broken("7.13.1", Frame(CLOSE, _close(5000)))
    yield _broken("7.13.2", Frame(CLOSE, _close(65_535)))


def _close(code: int) -> bytes:
    return struct.pack("!H", code)


LIMIT_BYTES: Final = 1_048_576
"""Of a message, as the sides under test are set up."""


def _limits() -> Iterator[Case]:
    numbers = itertools.count(1)
    for opcode in (TEXT, BINARY):
        for size in (65_536, 262_144, LIMIT_BYTES):
            data = b"*" * size
            yield _echoed(f"9.1.{next(numbers)}", Frame(opcode, data))
            for part in (4_096, 65_536):
                frames = _fragments(opcode, *_split(data, part))
                yield _echoed(f"9.3.{next(numbers)}", *frames, answers=(Answer(opcode, data),))
        yield _broken(f"9.x.{opcode}", Frame(opcode, b"*" * (LIMIT_BYTES + 1)), code=TOO_BIG)
        parts = _split(b"*" * (LIMIT_BYTES + 1), 65_536)
        yield _broken(f"9.x.{opcode} in fragments", *_fragments(opcode, *parts), code=TOO_BIG)
    for size in (0, 16, 64, 256, 1024):
        yield _echoed(f"9.7.{size}", *[Frame(TEXT, b"*" * size)] * 200)
        yield _echoed(f"9.8.{size}", *[Frame(BINARY, b"\xfe" * size)] * 200)
    data = b"*" * 65_536
    frames = _fragments(TEXT, *_split(data, 1_300))
    yield _echoed("10.1.1", *frames, answers=(Answer(TEXT, data),))


CASES: Final = (
    *_framing(), *_pings(), *_reserved_bits(), *_opcodes(), *_fragmentation(), *_utf8(),
    *_closing(), *_limits(),
)  # fmt: skip
