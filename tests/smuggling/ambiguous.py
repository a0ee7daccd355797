"""Requests that two programs in a row could read differently, as data.

``wire`` is what a client sends; ``#`` in it stands for the number of the case. ``answered`` is what
our listener makes of it: the requests that reach the handler, by the first word of their path. A
case that is ``refused`` is answered with 4xx or 5xx, nothing behind it is read, and the connection
ends. All others are followed by one more request, which must be answered.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

NUMBER_CHARS: Final = 4
_HIDDEN: Final = b"GET /hidden/#### HTTP/1.1\r\nHost: a\r\n\r\n"
_CHUNKED: Final = b"0\r\n\r\n" + _HIDDEN
"""No body for whoever sees chunks, a whole one for whoever sees a length."""


class Case(NamedTuple):
    """One client's bytes and what they are."""

    name: str
    wire: bytes
    answered: tuple[str, ...] = ()
    is_refused: bool = True

    def sent(self, number: int) -> bytes:
        """The bytes of the case with this number."""
        return self.wire.replace(b"#" * NUMBER_CHARS, b"%0*d" % (NUMBER_CHARS, number))


def _post(fields: bytes, body: bytes, *, start: bytes = b"POST /case/#### HTTP/1.1") -> bytes:
    return start + b"\r\nHost: a\r\n" + fields + b"\r\n" + body


def _refused(name: str, *wires: bytes, answered: Sequence[str] = ()) -> Iterator[Case]:
    for wire in wires:
        yield Case(f"{name}: {wire[:160]!r}", wire, tuple(answered))


def _read(name: str, *wires: bytes, answered: Sequence[str] = ("case",)) -> Iterator[Case]:
    for wire in wires:
        yield Case(f"{name}: {wire[:160]!r}", wire, tuple(answered), is_refused=False)


# --- lengths -------------------------------------------------------------------------------------

_SIZE: Final = b"%d" % len(_HIDDEN)
_BAD_LENGTHS: Final = (
    b"", b"+%s", b"-%s", b"--%s", b"0x%s", b"0X%s", b"0b%s", b"0o%s", b"%s.0", b"%s.", b".%s",
    b"%se0", b"%s;", b"%s;a=b",
    b"%s,", b",%s", b"%s,%s", b"%s, %s", b"%s %s", b"%s\t%s", b"%s, 0", b"0, %s", b"%sa", b"a%s",
    b"'%s'", b'"%s"',
    b"%s\x0b", b"\x0b%s", b"\x0c%s", b"%s\x0c", b"\xa0%s", b"%s\xa0", b"%s\x85", b"%s\0",
    b"\0%s", b"%s_0", b"1_0", b"NaN",
    b"Infinity", b"\xef\xbc\x95", b"\xd9\xa5", b"\xb2", b"9" * 19, b"9" * 20, b"9" * 400,
    b"18446744073709551617",
    b"4294967296%s", b"(%s)", b"%s#", b"=%s", b"chunked", b"none", b"-0", b"+0", b"- 0",
)  # fmt: skip


def _lengths() -> Iterator[Case]:
    for value in _BAD_LENGTHS:
        spelled = value.replace(b"%s", _SIZE)
        if value == b"4294967296%s":
            spelled += b"0" * 10
        yield from _refused("length", _post(b"Content-Length: %s\r\n" % spelled, _HIDDEN))
    for first, second in (
        (b"0", _SIZE),
        (_SIZE, b"0"),
        (_SIZE, _SIZE),
        (b"", _SIZE),
        (_SIZE, b"x"),
    ):
        for name in (b"Content-Length", b"content-length", b"CONTENT-LENGTH"):
            fields = b"Content-Length: %s\r\n%s: %s\r\n" % (first, name, second)
            yield from _refused("two lengths", _post(fields, _HIDDEN))
    for field in (
        b"Content-Length:%s", b"Content-Length: \t%s \t", b"Content-Length: 000%s",
        b"content-LENGTH: %s",
        b"Content_Length: 0\r\nContent-Length: %s", b"X-Content-Length: 0\r\nContent-Length: %s",
        b"Content-Length: %s\r\nContent-Length-: 0",
        b"Connection: Content-Length\r\nContent-Length: %s",
        b"Connection: close-not, Host\r\nContent-Length: %s",
    ):  # fmt: skip
        yield from _read("length", _post(field.replace(b"%s", _SIZE) + b"\r\n", _HIDDEN))
    for method in (b"GET", b"DELETE", b"OPTIONS", b"HEAD"):
        wire = _post(
            b"Content-Length: %s\r\n" % _SIZE, _HIDDEN, start=method + b" /case/#### HTTP/1.1"
        )
        if method != b"HEAD":
            yield from _read("body of a " + method.decode(), wire)
    yield from _read("no length", _post(b"", _HIDDEN), answered=("case", "hidden"))
    yield from _read(
        "length 0", _post(b"Content-Length: 0\r\n", _HIDDEN), answered=("case", "hidden")
    )


# --- transfer codings ----------------------------------------------------------------------------

_BAD_CODINGS: Final = (
    b"", b",", b"identity", b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked",
    b"chunked, identity",
    b"identity, chunked", b"xchunked", b"chunkedx", b"x chunked", b"chunked x", b"chunked;q=1",
    b"chunked; a=b",
    b"chunked;", b'"chunked"', b"'chunked'", b"[chunked]", b"chun ked", b"chunk", b"cow",
    b"chunked\x0b", b"\x0bchunked",
    b"\x0cchunked", b"chunked\x0c", b"\xa0chunked", b"chunked\xa0", b"chunked\0", b"\0chunked",
    b"\x01chunked",
    b"chunked\x7f", b"ch\xc3\xbcnked", b"c\xe2\x84\xaaunked", b"chunked\r", b"\rchunked",
    b"\nchunked", b"chunked\n",
    b"\r\n chunked", b"\r\n\tchunked", b"gzip\r\n , chunked", b"chunked/1.0", b"=chunked",
    b"chunked:", b":chunked",
)  # fmt: skip
_HIDING_NAMES: Final = (
    b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked",
    b" Transfer-Encoding: chunked",
    b"\tTransfer-Encoding: chunked", b"Transfer-Encoding\0: chunked",
    b"\0Transfer-Encoding: chunked",
    b"Transfer-Encoding\x0b: chunked", b"\x0bTransfer-Encoding: chunked",
    b"\xa0Transfer-Encoding: chunked",
    b"Transfer Encoding: chunked", b"Transfer\rEncoding: chunked",
    b"Transfer-Encoding\r\n: chunked",
    b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked",
    b"X: y\r\r\nTransfer-Encoding: chunked",
    b"X: y\n\rTransfer-Encoding: chunked", b"X: y\r\n\x0bTransfer-Encoding: chunked",
    b": y\r\nTransfer-Encoding: chunked",
    b"X\r\nTransfer-Encoding: chunked", b"Transfer-Encoding", b"Transfer-Encoding chunked",
    b"Transfer-Encoding;: chunked",
    b"Transfer-Encoding(x): chunked", b'"Transfer-Encoding": chunked',
    b"Transfer-Encod\xc4\xb1ng: chunked",
    b"X: \0\r\nTransfer-Encoding: chunked", b"Transfer-Encoding=chunked",
    b"Transfer-Encoding/: chunked",
    b"X: y\x85Transfer-Encoding: chunked\r\n Z: z", b"@Transfer-Encoding: chunked",
)  # fmt: skip
_OTHER_NAMES: Final = (
    b"Transfer_Encoding",
    b"X-Transfer-Encoding",
    b"Transfer-Encodings",
    b"TransferEncoding",
    b"TE",
)


def _codings() -> Iterator[Case]:
    for value in _BAD_CODINGS:
        yield from _refused("coding", _post(b"Transfer-Encoding: %s\r\n" % value, _CHUNKED))
        both = b"Content-Length: %d\r\nTransfer-Encoding: %s\r\n" % (len(_CHUNKED), value)
        yield from _refused("length and coding", _post(both, _CHUNKED))
    for length in (b"0", b"3", b"%d" % len(_CHUNKED), b"5", b"", b"x"):
        for coding in (
            b"chunked",
            b"Chunked",
            b" chunked",
            b"\tchunked",
            b"chunked ",
            b"chunked,",
            b",chunked",
        ):
            pair = b"Content-Length: %s\r\n" % length, b"Transfer-Encoding: %s\r\n" % coding
            yield from _refused("length and coding", _post(b"".join(pair), _CHUNKED))
            yield from _refused("coding and length", _post(b"X: y\r\n".join(pair[::-1]), _CHUNKED))
    for line in _HIDING_NAMES:
        yield from _refused("name", _post(line + b"\r\n", _CHUNKED))
        fields = b"Content-Length: %d\r\n%s\r\n" % (len(_CHUNKED), line)
        yield from _refused("name and length", _post(fields, _CHUNKED))
    for name in _OTHER_NAMES:
        fields = b"%s: chunked\r\nContent-Length: %d\r\n" % (name, len(_CHUNKED))
        yield from _read("name", _post(fields, _CHUNKED))
    for first, second in (
        (b"chunked", b"chunked"),
        (b"chunked", b"identity"),
        (b"identity", b"chunked"),
        (b"chunked", b"x"),
    ):
        fields = b"Transfer-Encoding: %s\r\nTransfer-Encoding: %s\r\n" % (first, second)
        yield from _refused("two codings", _post(fields, _CHUNKED))
    old = b"POST /case/#### HTTP/1.0"
    yield from _refused(
        "coding in HTTP/1.0", _post(b"Transfer-Encoding: chunked\r\n", _CHUNKED, start=old)
    )
    keep = b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"
    yield from _refused("coding in HTTP/1.0", _post(keep, _CHUNKED, start=old))
    for value in (
        b"chunked",
        b"Chunked",
        b"CHUNKED",
        b"\tchunked",
        b"chunked \t",
        b"chunked,",
        b",chunked",
        b", chunked ,",
    ):
        wire = _post(b"Transfer-Encoding: %s\r\n" % value, _CHUNKED)
        yield from _read("coding", wire, answered=("case", "hidden"))
    wire = _post(b"Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n", _CHUNKED)
    yield from _read("coding", wire, answered=("case", "hidden"))


# --- chunks --------------------------------------------------------------------------------------

_BAD_CHUNKS: Final = (
    b"3\nabc\r\n0\r\n\r\n", b"3\r\nabc\n0\r\n\r\n", b"3\r\nabc\r\n0\n\r\n",
    b"3\r\nabc\r\n0\r\n\n", b"3\r\nabc0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n",
    b"3\r\nab\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"+3\r\nabc\r\n0\r\n\r\n",
    b"-3\r\nabc\r\n0\r\n\r\n", b" 3\r\nabc\r\n0\r\n\r\n",
    b"\t3\r\nabc\r\n0\r\n\r\n", b"3 \r\nabc\r\n0\r\n\r\n", b"3\t\r\nabc\r\n0\r\n\r\n",
    b"3 x\r\nabc\r\n0\r\n\r\n", b"3,\r\nabc\r\n0\r\n\r\n", b"3\0\r\nabc\r\n0\r\n\r\n",
    b"3g\r\nabc\r\n0\r\n\r\n", b"\r\nabc\r\n0\r\n\r\n", b"\r\n3\r\nabc\r\n0\r\n\r\n",
    b";a=b\r\nabc\r\n0\r\n\r\n", b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\nabc\r\n0\r\n\r\n", b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    b"8000000000000000\r\nabc\r\n0\r\n\r\n", b"0.\r\n\r\n", b"00x\r\n\r\n",
    b"3;\nabc\r\n0\r\n\r\n",
    b"3;a\nabc\r\n0\r\n\r\n", b"3;a\rb\r\nabc\r\n0\r\n\r\n", b"3;a\0\r\nabc\r\n0\r\n\r\n",
    b"3;a=\"\r\nabc\"\r\n0\r\n\r\n\n", b"0;\n\r\n", b"3_0\r\nabc\r\n0\r\n\r\n",
    b"\xef\xbc\x93\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\r\n0\r\n\r\n",
    b"3\r\nabc\r\n\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nX : y\r\n\r\n",
    b"3\r\nabc\r\n0\r\n X: y\r\n\r\n",
    b"3\r\nabc\r\n0\r\nX: y\n\r\n", b"3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n",
    b"3\r\nabc\r\n0\r\nX\r\n\r\n", b"3\r\nabc\r\n0\r\nX: \0\r\n\r\n",
    b"3\r\nabc\r\n0\r\n: y\r\n\r\n",
    b"0 \r\n\r\n", b"0\t\r\n\r\n", b"0\r\n\rX", b"0\r\n\n\n", b"0\r\r\n\r\n", b"0\n\n",
    b"3\rabc\r0\r\r",
)  # fmt: skip
_GOOD_CHUNKS: Final = (
    b"3\r\nabc\r\n0\r\n\r\n", b"03\r\nabc\r\n00\r\n\r\n",
    b"0000000000000003\r\nabc\r\n0000\r\n\r\n", b"A\r\n0123456789\r\n0\r\n\r\n",
    b"a\r\n0123456789\r\n0\r\n\r\n",
    b"3;a\r\nabc\r\n0;b\r\n\r\n", b"3;a=b\r\nabc\r\n0\r\n\r\n", b"3 ;a=b\r\nabc\r\n0\r\n\r\n",
    b"3;a=\";\"\r\nabc\r\n0\r\n\r\n", b"1\r\na\r\n1\r\nb\r\n0\r\nX: y\r\n\r\n",
    b"0\r\nContent-Length: 50\r\n\r\n", b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"0\r\nHost: b\r\n\r\n",
)  # fmt: skip


def _chunks() -> Iterator[Case]:
    for body in _BAD_CHUNKS:
        yield from _refused("chunks", _post(b"Transfer-Encoding: chunked\r\n", body + _HIDDEN))
    for body in _GOOD_CHUNKS:
        wire = _post(b"Transfer-Encoding: chunked\r\n", body + _HIDDEN)
        yield from _read("chunks", wire, answered=("case", "hidden"))


# --- heads ---------------------------------------------------------------------------------------

_GET: Final = b"GET /case/#### HTTP/1.1"


def _lines() -> Iterator[Case]:
    yield from _refused(
        "line ends",
        _GET + b"\nHost: a\n\n", _GET + b"\nHost: a\r\n\r\n", _GET + b"\r\nHost: a\n\r\n",
        _GET + b"\r\nHost: a\r\n\n" + _HIDDEN,
        _GET + b"\r\nHost: a\n\n" + _HIDDEN, _GET + b"\rHost: a\r\r" + _HIDDEN,
        _GET + b"\r\nHost: a\r\r\n\r\n", _GET + b"\r\r\nHost: a\r\n\r\n",
        _GET + b"\n\rHost: a\n\r\n\r", _GET + b"\r\nHost: a\r\nX: a\rb\r\n\r\n",
        _GET + b"\r\nHost: a\r\nX: a\nb: c\r\n\r\n",
        _GET + b"\r\n\nHost: a\r\n\r\n", b"\n" + _GET + b"\r\nHost: a\r\n\r\n",
        b"\r" + _GET + b"\r\nHost: a\r\n\r\n", b"\n\n" + _HIDDEN,
        b"\r\n\r\n" + _HIDDEN, b"\r\n\n" + _HIDDEN, b" \r\n" + _HIDDEN, b"\0" + _HIDDEN,
        b"\xef\xbb\xbf" + _HIDDEN,
    )  # fmt: skip
    yield from _refused(
        "folding",
        _GET + b"\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        _GET + b"\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", _GET + b"\r\n Host: a\r\n\r\n",
        _GET + b"\r\nHost:\r\n a\r\n\r\n", _GET + b"\r\nHost: a\r\n \r\n\r\n",
        _GET + b"\r\nHost: a\r\n\t\r\nX: y\r\n\r\n",
        _post(b"X: y\r\n Content-Length: 50\r\n", _HIDDEN),
        _post(b"Content-Length:\r\n %s\r\n" % _SIZE, _HIDDEN),
    )  # fmt: skip
    yield from _refused(
        "bytes",
        _GET + b"\r\nHost: a\r\nX: a\0b\r\n\r\n", _GET + b"\r\nHost: a\r\nX\0: b\r\n\r\n",
        _GET + b"\r\nHost: a\0\r\n\r\n", b"GET /case/####\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        _GET + b"\r\nHost: a\r\nX: \x7f\r\n\r\n", _GET + b"\r\nHost: a\r\nX: \x01\r\n\r\n",
        _GET + b"\r\nHost: a\r\nX: \x1b\r\n\r\n", _GET + b"\r\nHost: a\r\n\xff: y\r\n\r\n",
        _GET + b"\r\nHost: a\r\nX\x7f: y\r\n\r\n", _GET + b"\r\nHost: a\r\n: y\r\n\r\n",
        _GET + b"\r\nHost: a\r\nX\r\n\r\n", _GET + b"\r\nHost: a\r\n\x00\r\n\r\n",
    )  # fmt: skip
    yield from _refused(
        "sizes",
        _GET + b"\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        _GET + b"\r\nHost: a\r\n" + b"X: y\r\n" * 120 + b"\r\n",
        b"GET /case/####?" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    yield from _read("empty line", b"\r\n" + _HIDDEN, answered=("hidden",))
    yield from _read(
        "bytes", _GET + b"\r\nHost: a\r\nX: \x80\xff\ty\r\n\r\n", _GET + b"\r\nHost:a\r\nX:\r\n\r\n"
    )


def _hosts() -> Iterator[Case]:
    for fields in (
        b"", b"Host: a\r\nHost: a\r\n", b"Host: a\r\nHost: b\r\n", b"Host: a\r\nhost: a\r\n",
        b"Host: a\r\nX: y\r\nHOST: b\r\n", b"Host: a, b\r\n" * 2,
        b"Host: a b\r\n", b"Host: a/b\r\n", b"Host: a?b\r\n", b"Host: a@b\r\n", b"Host: a#b\r\n",
        b"Host: a\\b\r\n", b"Host: a\tb\r\n", b"Host: [::1\r\n", b"Host: ::1\r\n",
        b"Host: a:b\r\n", b"Host: a:80:80\r\n", b"Host: a:999999\r\n", b"Host: http://a\r\n",
        b"Host: \xc3\xa4\r\n", b"Host : a\r\n", b"Host\r\n", b"Hos\0t: a\r\n", b"Host: a\0b\r\n",
        b"Host: <a>\r\n", b'Host: "a"\r\n', b"Host: a|b\r\n", b"Host: {a}\r\n",
    ):  # fmt: skip
        yield from _refused("host", _GET + b"\r\n" + fields + b"\r\n" + _HIDDEN)
    yield from _read("host", *(
        _GET + b"\r\n" + fields + b"\r\n" for fields in (b"Host: a:80\r\n",
        b"Host: [::1]:80\r\n", b"Host:\ta \r\n")
    ))  # fmt: skip


def _targets() -> Iterator[Case]:
    for target in (
        b"", b" ", b"/a b", b" /a", b"/a ", b"\t/a", b"/a\tb", b"/a#b", b"/#", b"#", b"a",
        b"a/b", b"a:80", b"*", b"//", b"http://", b"http:///a", b"http://a b/", b"http://a@b/",
        b"ftp://a/", b"javascript:x", b"?a", b"/\x7f", b"/\x80", b"/\xff", b"/\0", b"/\x0b",
        b"http:/a", b"http:a", b"://a", b"\\a", b"http://[::1/", b"http://a:b/", b"/a\r",
        b"/a\x1f",
    ):  # fmt: skip
        if target != b"//":
            yield from _refused("target", b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % target + _HIDDEN)
    yield from _read(
        "target", *(
            b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % target
            for target in (
                b"http://a/case/####", b"HTTP://A:80/case/####?x", b"http://b/case/####",
                b"https://a/case/####", b"/case/####?a=%0d%0aHost:b", b"/case/####/%00",
                b"/case/####/..//./x", b"/case/####?a?b",
                b"/case/####/\\x", b"/case/####?<>\"`{}|^", b"/case/####/%",
            )
        )
    )  # fmt: skip


def _start_lines() -> Iterator[Case]:
    tail = b"\r\nHost: a\r\n\r\n" + _HIDDEN
    yield from _refused(
        "version", *(
            b"GET /case/####%s" % version + tail
            for version in (
                b"", b" ", b" HTTP/0.9", b" HTTP/1", b" HTTP/1.", b" HTTP/.1", b" HTTP/1.2",
                b" HTTP/1.9", b" HTTP/2", b" HTTP/2.0", b" HTTP/3.0", b" HTTP/1.10",
                b" HTTP/01.1", b" HTTP/1.01", b" HTTP/1.1.1",
                b" HTTP/1,1", b" HTTP/1.1 ", b" HTTP/1.1\t", b" HTTP/1.1x", b" http/1.1",
                b" Http/1.1", b" HTTP /1.1", b" HTTP/ 1.1", b" HTTP/1 .1", b"  HTTP/1.1",
                b"\tHTTP/1.1", b" \tHTTP/1.1", b"\x0bHTTP/1.1", b"\xa0HTTP/1.1",
                b" HTTP/1.1 HTTP/1.1", b" HTTPS/1.1", b" XHTTP/1.1", b" ICY/1.1", b" HTTP/+1.1",
                b" HTTP/1.-1", b" HTTP/\xb9.1", b" HTTP/9.9", b" HTTP/1.1\0", b" HTTP/1.1;a",
                b" HTTP/11", b" HTTP/1.1,HTTP/1.0",
            )
        )
    )  # fmt: skip
    yield from _refused(
        "HTTP/0.9", b"GET /case/####\r\n" + _HIDDEN, b"GET /case/####\r\n\r\n" + _HIDDEN
    )
    yield from _refused(
        "preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"\x04\x01\x00P\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + _HIDDEN, b"\r\n\r\n\0\r\nQUIT\n" + _HIDDEN,
        b"EHLO a\r\n" + _HIDDEN,
    )  # fmt: skip
    for method in (
        b"",
        b" GET",
        b"\tGET",
        b"G ET",
        b"GET\t",
        b"GET\0",
        b"GET ",
        b"(GET)",
        b"GE\xc3\x89T",
        b"GET,",
        b"GET/",
        b"GET:",
        b'"GET"',
        b"GET\x0b",
        b"\x0bGET",
        b"G\rET",
        b"G\nET",
        b"\x7fGET",
    ):
        yield from _refused("method", method + b" /case/#### HTTP/1.1" + tail)


def _bodies() -> Iterator[Case]:
    for rest in (
        b"garbage\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b" \r\n\r\n",
        b"GET\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ):
        wire = _post(b"Content-Length: 3\r\n", b"abc" + rest)
        yield from _refused("behind a body", wire, answered=("case",))
    for value in (b"100-continue, x", b"x", b"100-continue;a=b", b"101-continue", b""):
        fields = b"Expect: %s\r\nContent-Length: %s\r\n" % (value, _SIZE)
        yield from _refused("expectation", _post(fields, _HIDDEN))
    yield from _read(
        "two requests", _GET + b"\r\nHost: a\r\n\r\n" + _HIDDEN, answered=("case", "hidden")
    )
    upgrade = (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    )
    yield from _read("upgrade", _post(upgrade + b"Content-Length: %s\r\n" % _SIZE, _HIDDEN))
    yield from _read(
        "upgrade", _post(b"Upgrade: websocket\r\nContent-Length: %s\r\n" % _SIZE, _HIDDEN)
    )


CASES: Final = (
    *_lengths(), *_codings(), *_chunks(), *_lines(), *_hosts(), *_targets(), *_start_lines(),
    *_bodies(),
)  # fmt: skip
