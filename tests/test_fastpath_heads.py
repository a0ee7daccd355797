"""HTTP heads: where one ends, what it says, and what is refused."""

import string
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paddler import _fastpath
from paddler.errors import RemoteProtocolError
from tests import fastpath_twin
from tests.fastpath_impls import IMPLS, outcome

REQUEST = b"GET /health?a=1 HTTP/1.1\r\nHost: a\r\nX-Tag:\t one two \r\n\r\n"
PARSERS = ["head_end", "parse_request_head", "parse_fields"]

wires = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"\0", b"a", b":"]), max_size=24).map(
    b"".join
)
token_text = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1)
value_bytes = [9, *range(0x20, 0x7F), *range(0x80, 0x100)]
value_text = st.text([chr(byte) for byte in value_bytes]).map(lambda text: text.strip(" \t"))
field_pairs = st.lists(st.tuples(token_text, value_text))


def arriving(impl: ModuleType, wire: bytes, cuts: list[int]) -> object:
    """What head_end() says in the end when ``wire`` comes in pieces, resumed each time."""
    seen = 0
    for stop in [*sorted(cuts), len(wire)]:
        verdict = outcome(impl.head_end, wire[:stop], max(0, seen - 3))
        if verdict != -1:
            return verdict
        seen = min(stop, len(wire))
    return -1


# --- where a head ends -----------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("wire", "end"),
    [
        (b"", -1),
        (b"\r", -1),
        (b"\r\n", -1),
        (b"\r\n\r", -1),
        (b"\r\n\r\n", 4),
        (b"a\r\n\r\n", 5),
        (b"a\r\n\r\nb\n\0", 5),
        (b"a\r\nb\r\n\r\n\r\n", 8),
        (b"a\r\nb\r\n", -1),
        (b"\x01\x80\xff", -1),
        (REQUEST, len(REQUEST)),
    ],
)
def test_head_ends_after_its_first_blank_line(impl: ModuleType, wire: bytes, end: int) -> None:
    assert impl.head_end(wire) == end


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    "wire",
    [
        b"\n",
        b"a\nb",
        b"a\r\n\n",
        b"a\rb",
        b"a\r\r\n",
        b"\r\0",
        b"\0",
        b"a\0\r\n\r\n",
        b"a\r\n\rb",
    ],
)
def test_head_end_refuses_bare_line_ends_and_nul(impl: ModuleType, wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        impl.head_end(wire)
    assert caught.value.status == 400


@pytest.mark.parametrize("impl", IMPLS)
def test_head_end_looks_at_the_byte_before_its_start(impl: ModuleType) -> None:
    assert impl.head_end(b"a\r\nb", 2) == -1
    assert outcome(impl.head_end, b"a\nb", 1) == (RemoteProtocolError, 400, 1002)


@pytest.mark.parametrize("impl", IMPLS)
def test_head_end_takes_no_second_look_before_its_start(impl: ModuleType) -> None:
    assert impl.head_end(b"\0\n\0\0a\r\n\r\n", 4) == 9


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("start", [-1, 5])
def test_head_end_refuses_a_start_outside_of_its_data(impl: ModuleType, start: int) -> None:
    with pytest.raises(ValueError, match="start"):
        impl.head_end(b"abcd", start)


@pytest.mark.parametrize("impl", IMPLS)
@settings(deadline=None)
@given(wire=wires, cuts=st.lists(st.integers(0, 60), max_size=6))
@example(wire=b"a\r\n\r\n", cuts=[1, 2, 3, 4])
@example(wire=b"a\r\r\n", cuts=[2])
def test_head_end_is_blind_to_how_bytes_arrive(
    impl: ModuleType, wire: bytes, cuts: list[int]
) -> None:
    assert arriving(impl, wire, cuts) == outcome(impl.head_end, wire)


@settings(deadline=None)
@given(wire=wires, start=st.integers(-1, 60))
def test_head_end_agrees_with_its_twin(wire: bytes, start: int) -> None:
    assert outcome(_fastpath.head_end, wire, start) == outcome(fastpath_twin.head_end, wire, start)


# --- what a head says ------------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
def test_request_head_is_taken_apart(impl: ModuleType) -> None:
    assert impl.parse_request_head(REQUEST) == (
        "GET",
        "/health?a=1",
        1,
        [("host", "a"), ("x-tag", "one two")],
    )


@pytest.mark.parametrize("impl", IMPLS)
def test_request_head_may_have_no_fields(impl: ModuleType) -> None:
    assert impl.parse_request_head(b"OPTIONS * HTTP/1.0\r\n\r\n") == ("OPTIONS", "*", 0, [])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("line", "pair"),
    [
        (b"A:", ("a", "")),
        (b"A: \t ", ("a", "")),
        (b"A:b", ("a", "b")),
        (b"A: \tb c\t ", ("a", "b c")),
        (b"A: b:c", ("a", "b:c")),
        (b"A: \xe4\xff", ("a", "\xe4\xff")),
        (b"!#$%&'*+-.^_`|~09AZaz: x", ("!#$%&'*+-.^_`|~09azaz", "x")),
    ],
)
def test_field_has_a_lower_case_name_and_a_trimmed_value(
    impl: ModuleType, line: bytes, pair: tuple[str, str]
) -> None:
    assert impl.parse_fields(line + b"\r\n\r\n") == [pair]


@pytest.mark.parametrize("impl", IMPLS)
def test_repeated_fields_keep_their_order(impl: ModuleType) -> None:
    assert impl.parse_fields(b"b: 1\r\na: 2\r\nB: 3\r\n\r\n") == [
        ("b", "1"),
        ("a", "2"),
        ("b", "3"),
    ]


@pytest.mark.parametrize("impl", IMPLS)
def test_no_fields_are_an_empty_list(impl: ModuleType) -> None:
    assert impl.parse_fields(b"\r\n") == []


@pytest.mark.parametrize("impl", IMPLS)
@settings(deadline=None)
@given(pairs=field_pairs)
def test_well_formed_fields_come_out_as_they_went_in(
    impl: ModuleType, pairs: list[tuple[str, str]]
) -> None:
    pairs = pairs[: impl.MAX_FIELDS]
    wire = "".join(f"{name}: {value}\r\n" for name, value in pairs).encode("latin-1") + b"\r\n"
    assert impl.parse_fields(wire) == [(name.lower(), value) for name, value in pairs]


# --- what is refused -------------------------------------------------------------------------

MALFORMED_LINES = [
    (b"", 400, "does not begin with a method"),
    (b" / HTTP/1.1", 400, "does not begin with a method"),
    (b"G\xc3T / HTTP/1.1", 400, "not allowed in a request method"),
    (b"GET\t/ HTTP/1.1", 400, "not allowed in a request method"),
    (b"GET", 400, "without a target"),
    (b"GET ", 400, "without a target"),
    (b"GET  / HTTP/1.1", 400, "without a target"),
    (b"GET /", 400, "without an HTTP version"),
    (b"GET /\t HTTP/1.1", 400, "not allowed in a request target"),
    (b"GET \xff HTTP/1.1", 400, "not allowed in a request target"),
    (b"GET /\x7f HTTP/1.1", 400, "not allowed in a request target"),
    (b"GET / ", 400, "malformed HTTP version"),
    (b"GET /  HTTP/1.1", 400, "malformed HTTP version"),
    (b"GET / HTTP/1.1 ", 400, "malformed HTTP version"),
    (b"GET / http/1.1", 400, "malformed HTTP version"),
    (b"GET / HTTP/1.10", 400, "malformed HTTP version"),
    (b"GET / HTTP/11", 400, "malformed HTTP version"),
    (b"GET / HTTP/x.1", 400, "malformed HTTP version"),
    (b"GET / HTTP/1.x", 400, "malformed HTTP version"),
    (b"GET / HTTP/1-1", 400, "malformed HTTP version"),
    (b"GET / HTTP/1.2", 505, "other than HTTP/1.1"),
    (b"GET / HTTP/0.9", 505, "other than HTTP/1.1"),
    (b"GET / HTTP/2.0", 505, "other than HTTP/1.1"),
]

MALFORMED_FIELDS = [
    (b" a: b\r\n\r\n", 400, "line folding"),
    (b"a: b\r\n c\r\n\r\n", 400, "line folding"),
    (b"a: b\r\n\tc\r\n\r\n", 400, "line folding"),
    (b"a : b\r\n\r\n", 400, "space before the colon of a header field"),
    (b"a\t: b\r\n\r\n", 400, "space before the colon of a header field"),
    (b": b\r\n\r\n", 400, "without a name"),
    (b"a\r\n\r\n", 400, "without a colon"),
    (b"a(b: c\r\n\r\n", 400, "not allowed in the name"),
    (b"\xe4: c\r\n\r\n", 400, "not allowed in the name"),
    (b"a\0: c\r\n\r\n", 400, "not allowed in the name"),
    (b"a: b\0\r\n\r\n", 400, "not allowed in the value"),
    (b"a: \x01\r\n\r\n", 400, "not allowed in the value"),
    (b"a: \x7f\r\n\r\n", 400, "not allowed in the value"),
    (b"a: b\nc: d\r\n\r\n", 400, "not allowed in the value"),
    (b"a: b\rc: d\r\n\r\n", 400, "not allowed in the value"),
    (b"a: b\r\n\r\na", 400, "after the blank line"),
    (b"", 400, "stops before its blank line"),
    (b"a", 400, "stops before its blank line"),
    (b"a:", 400, "stops before its blank line"),
    (b"a: b\r\n", 400, "stops before its blank line"),
    (b"a: b\r\n" * 101 + b"\r\n", 431, "more than 100 header fields"),
]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("line", "status", "_seen"), MALFORMED_LINES)
def test_malformed_request_line_is_refused(
    impl: ModuleType, line: bytes, status: int, _seen: str
) -> None:
    verdict = outcome(impl.parse_request_head, line + b"\r\nHost: a\r\n\r\n")
    assert verdict == (RemoteProtocolError, status, 1002)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("wire", "status", "_seen"), MALFORMED_FIELDS)
def test_malformed_fields_are_refused(
    impl: ModuleType, wire: bytes, status: int, _seen: str
) -> None:
    refused = (RemoteProtocolError, status, 1002)
    assert outcome(impl.parse_fields, wire) == refused
    assert outcome(impl.parse_request_head, b"GET / HTTP/1.1\r\n" + wire) == refused


@pytest.mark.parametrize(("line", "_status", "seen"), MALFORMED_LINES)
def test_refused_request_line_is_told_why(line: bytes, _status: int, seen: str) -> None:
    with pytest.raises(RemoteProtocolError, match=seen):
        _fastpath.parse_request_head(line + b"\r\n\r\n")


@pytest.mark.parametrize(("wire", "_status", "seen"), MALFORMED_FIELDS)
def test_refused_fields_are_told_why(wire: bytes, _status: int, seen: str) -> None:
    with pytest.raises(RemoteProtocolError, match=seen):
        _fastpath.parse_fields(wire)


@pytest.mark.parametrize(
    ("wire", "seen"),
    [
        (b"a\nb", r"LF without CR .* \(at byte 1\)"),
        (b"ab\rc", r"CR without LF .* \(at byte 2\)"),
        (b"\0", r"NUL .* \(at byte 0\)"),
    ],
)
def test_refused_line_end_is_told_why_and_where(wire: bytes, seen: str) -> None:
    with pytest.raises(RemoteProtocolError, match=seen):
        _fastpath.head_end(wire)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("wire", [b"GET / HTTP/1.1", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\ra\r\n"])
def test_request_line_without_its_line_end_is_refused(impl: ModuleType, wire: bytes) -> None:
    assert outcome(impl.parse_request_head, wire) == (RemoteProtocolError, 400, 1002)


@pytest.mark.parametrize("impl", IMPLS)
def test_request_line_may_be_8192_bytes_and_no_more(impl: ModuleType) -> None:
    target = "/" + "a" * (impl.MAX_REQUEST_LINE_BYTES - len("GET / HTTP/1.1"))
    assert impl.parse_request_head(f"GET {target} HTTP/1.1\r\n\r\n".encode())[1] == target
    too_long = f"GET {target}a HTTP/1.1\r\n\r\n".encode()
    assert outcome(impl.parse_request_head, too_long) == (RemoteProtocolError, 414, 1002)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_hundred_fields_are_allowed(impl: ModuleType) -> None:
    assert len(impl.parse_fields(b"a: b\r\n" * impl.MAX_FIELDS + b"\r\n")) == impl.MAX_FIELDS


@settings(deadline=None)
@given(
    wire=st.lists(
        st.sampled_from(
            [b"GET", b" ", b"/", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/3.0", b"\r\n", b"a: b\r\n"]
            + [bytes([byte]) for byte in b"a:\t\r\n\0\x7f\xe4("]
        ),
        max_size=16,
    ).map(b"".join)
)
def test_heads_of_any_shape_are_judged_as_the_twin_does(wire: bytes) -> None:
    for parser in PARSERS:
        for data in (wire, b"GET / HTTP/1.1\r\n" + wire, b"GET / HTTP/1.1\r\na: b\r\n" + wire):
            assert outcome(getattr(_fastpath, parser), data) == outcome(
                getattr(fastpath_twin, parser), data
            )


@settings(deadline=None)
@given(at=st.integers(0, len(REQUEST) - 1), byte=st.integers(0, 255))
def test_a_head_with_one_changed_byte_is_judged_as_the_twin_does(at: int, byte: int) -> None:
    wire = REQUEST[:at] + bytes([byte]) + REQUEST[at + 1 :]
    assert outcome(_fastpath.parse_request_head, wire) == outcome(
        fastpath_twin.parse_request_head, wire
    )


# --- buffers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
def test_head_may_lie_in_any_contiguous_buffer(impl: ModuleType) -> None:
    expected = impl.parse_request_head(REQUEST)
    surrounded = memoryview(b"\0\0" + REQUEST + b"\0\0")[2:-2]
    for data in (bytearray(REQUEST), memoryview(REQUEST), surrounded):
        assert impl.head_end(data) == len(REQUEST)
        assert impl.parse_request_head(data) == expected


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("parser", PARSERS)
def test_head_may_not_lie_in_pieces(impl: ModuleType, parser: str) -> None:
    with pytest.raises(BufferError):
        getattr(impl, parser)(memoryview(REQUEST)[::2])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("parser", PARSERS)
def test_head_is_bytes_not_text(impl: ModuleType, parser: str) -> None:
    with pytest.raises(TypeError):
        getattr(impl, parser)("GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize("parser", PARSERS)
def test_parser_gives_its_buffer_back_even_when_it_refuses(parser: str) -> None:
    for wire in (REQUEST, b"\n"):
        data = bytearray(wire)
        outcome(getattr(_fastpath, parser), data)
        data.append(0)  # BufferError while somebody still holds the buffer
