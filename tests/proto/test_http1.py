"""HTTP/1.1 framing of both sides: what is read, what is refused, however bytes arrive."""

import itertools
from collections.abc import Callable, Iterable

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.errors import RemoteProtocolError
from paddler.proto.events import BodyEnd, BodyPart, Headers, HttpEvent, RequestHead, ResponseHead
from paddler.proto.http1 import (
    LAST_CHUNK,
    MAX_CHUNK_LINE_BYTES,
    MAX_HEAD_BYTES,
    MAX_TRAILER_BYTES,
    ClientConnection,
    ServerConnection,
    State,
    encode_chunk,
    encode_request_head,
    encode_response_head,
)

Outcome = tuple[list[HttpEvent], int | None]


def merged(events: Iterable[HttpEvent]) -> list[HttpEvent]:
    """Events with adjacent body parts joined: where a body is cut means nothing."""
    result: list[HttpEvent] = []
    for event in events:
        if isinstance(event, BodyPart) and result and isinstance(result[-1], BodyPart):
            event = BodyPart(result.pop().data + event.data)
        result.append(event)
    return result


def read_all(wire: bytes, cuts: Iterable[int] = ()) -> Outcome:
    """All requests of ``wire``, fed in pieces; the status of the refusal that ended them.

    The same whether or not whole requests are read at once.
    """
    offsets = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    pieces = [wire[start:end] for start, end in itertools.pairwise(offsets)]
    outcome = read_pieces(pieces, ServerConnection.feed)
    assert read_pieces(pieces, feed_or_read_whole) == outcome
    return outcome


def feed_or_read_whole(connection: ServerConnection, piece: bytes) -> list[HttpEvent]:
    whole = connection.read_whole(memoryview(piece))
    if whole is None:
        return connection.feed(piece)
    head, body = whole
    return [head, BodyPart(body), BodyEnd()] if body else [head, BodyEnd()]


def read_pieces(
    pieces: Iterable[bytes], feed: Callable[[ServerConnection, bytes], list[HttpEvent]]
) -> Outcome:
    connection = ServerConnection()
    events: list[HttpEvent] = []
    try:
        for piece in pieces:
            events += feed(connection, piece)
            while connection.state is State.COMPLETE:
                events += connection.next_request()
    except RemoteProtocolError as error:
        assert connection.state is State.CLOSED
        return merged(events), error.status
    return merged(events), None


def read_head(wire: bytes) -> RequestHead:
    head = ServerConnection().feed(wire)[0]
    assert isinstance(head, RequestHead)
    return head


def status_of(wire: bytes) -> int | None:
    """With which status ``wire`` is refused, whole and byte by byte alike."""
    _, whole = read_all(wire)
    _, bytewise = read_all(wire, range(len(wire)))
    assert whole == bytewise
    return whole


def get(fields: str = "", line: str = "GET / HTTP/1.1", host: str = "Host: a\r\n") -> bytes:
    return f"{line}\r\n{host}{fields}\r\n".encode("latin-1")


def post(body: bytes, fields: str = "Transfer-Encoding: chunked\r\n") -> bytes:
    return get(fields, "POST /p HTTP/1.1") + body


# --- what is read --------------------------------------------------------------------------------


def test_request_without_body_is_a_head_and_an_end() -> None:
    connection = ServerConnection()
    assert connection.feed(get("Accept: x\r\n", "GET /a/b?c=d?e HTTP/1.1")) == [
        RequestHead(
            method="GET",
            target="/a/b?c=d?e",
            path="/a/b",
            query="c=d?e",
            version_minor=1,
            headers=Headers([("host", "a"), ("accept", "x")]),
            has_body=False,
            keep_alive=True,
            expects_continue=False,
            upgrade=None,
        ),
        BodyEnd(),
    ]
    assert connection.state is State.COMPLETE


def test_body_of_announced_length_is_handed_out_as_it_comes() -> None:
    connection = ServerConnection()
    events = connection.feed(post(b"abc", "Content-Length: 5\r\n"))
    assert events[1:] == [BodyPart(b"abc")]
    assert connection.state is State.LENGTH_BODY
    assert connection.feed(b"deXYZ") == [BodyPart(b"de"), BodyEnd()]
    assert connection.waiting_bytes == 3


def test_chunks_of_one_feed_are_one_part() -> None:
    events, status = read_all(post(b'3\r\nabc\r\n2;ext="1"\r\nde\r\n0\r\n\r\n'))
    assert status is None
    assert events[1:] == [BodyPart(b"abcde"), BodyEnd()]


def test_chunked_body_may_have_trailers() -> None:
    events, status = read_all(post(b"A\r\n0123456789\r\n000\r\nX-Sum: 1\r\nB: 2\r\n\r\n"))
    assert status is None
    assert events[1:] == [
        BodyPart(b"0123456789"),
        BodyEnd(Headers([("x-sum", "1"), ("b", "2")])),
    ]


def test_request_that_came_whole_is_read_at_once() -> None:
    connection = ServerConnection()
    for body in (b"first", b"second"):
        wire = post(body, f"Content-Length: {len(body)}\r\n")
        whole = connection.read_whole(memoryview(wire))
        assert whole == (read_head(wire), body)
        assert connection.state is State.COMPLETE
        assert connection.next_request() == []


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(post(b"12", "Content-Length: 3\r\n"), id="more is to come"),
        pytest.param(post(b"1234", "Content-Length: 3\r\n"), id="the next begins"),
        pytest.param(post(b"1\r\na\r\n0\r\n\r\n"), id="chunks"),
        pytest.param(get("A: b c\0\r\n"), id="an offence"),
        pytest.param(b"\r\n" + get(), id="an empty line before"),
        pytest.param(get()[:-2], id="half a head"),
        pytest.param(get(f"A: {'a' * 9_000}\r\n"), id="a long head"),
    ],
)
def test_what_is_no_whole_request_is_left_as_it_was(wire: bytes) -> None:
    connection = ServerConnection()
    assert connection.read_whole(memoryview(wire)) is None
    assert (connection.state, connection.waiting_bytes) == (State.IDLE, 0)


def test_whole_request_beyond_the_limit_is_refused() -> None:
    connection = ServerConnection()
    assert connection.read_whole(memoryview(post(b"1234", "Content-Length: 4\r\n"))) is not None
    with pytest.raises(RemoteProtocolError, match="limit: 3 bytes") as caught:
        connection.set_body_limit(3)
    assert (caught.value.status, connection.state) == (413, State.CLOSED)


def test_pipelined_requests_wait_for_their_turn() -> None:
    connection = ServerConnection()
    first = get(line="GET /1 HTTP/1.1")
    second = get(line="GET /2 HTTP/1.1")
    assert len(connection.feed(first + second)) == 2
    assert connection.feed(b"more") == []
    assert connection.waiting_bytes == len(second) + 4
    head, end = connection.next_request()
    assert isinstance(head, RequestHead)
    assert head.path == "/2"
    assert end == BodyEnd()


def test_one_empty_line_before_a_request_is_ignored() -> None:
    assert read_all(b"\r\n" + get())[1] is None
    assert read_all(b"\r\n" + get(), [1, 2])[0] == read_all(get())[0]
    assert status_of(b"\r\n\r\n" + get()) == 400
    assert status_of(b"\rX") == 400


def test_switch_hands_over_what_came_behind_the_request() -> None:
    connection = ServerConnection()
    head = connection.feed(get("Connection: x, Upgrade\r\nUpgrade: WebSocket\r\n") + b"\x81\x00")[0]
    assert isinstance(head, RequestHead)
    assert head.upgrade == "websocket"
    assert connection.switch() == b"\x81\x00"
    assert connection.state is State.SWITCHED


@pytest.mark.parametrize(
    ("line", "fields", "keep_alive"),
    [
        ("GET / HTTP/1.1", "", True),
        ("GET / HTTP/1.1", "Connection: Close\r\n", False),
        ("GET / HTTP/1.1", "Connection: a\r\nConnection: close, b\r\n", False),
        ("GET / HTTP/1.0", "", False),
        ("GET / HTTP/1.0", "Connection: keep-alive\r\n", True),
        ("GET / HTTP/1.0", "Connection: keep-alive, close\r\n", False),
    ],
)
def test_keep_alive_follows_version_and_connection_field(
    line: str, fields: str, keep_alive: bool
) -> None:
    assert read_head(get(fields, line)).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("wire", "expects"),
    [
        (post(b"", "Content-Length: 3\r\nExpect: 100-Continue\r\n"), True),
        (post(b"", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"), True),
        (post(b"", "Content-Length: 0\r\nExpect: 100-continue\r\n"), False),
        (post(b"", "Content-Length: 3\r\n"), False),
        (get("Content-Length: 3\r\nExpect: 100-continue\r\n", "PUT / HTTP/1.0"), False),
    ],
)
def test_expectation_matters_only_with_a_body_to_come(wire: bytes, expects: bool) -> None:
    assert read_head(wire).expects_continue is expects


@pytest.mark.parametrize(
    ("method", "target", "path", "query"),
    [
        ("GET", "/", "/", ""),
        ("GET", "/%2F?", "/%2F", ""),
        ("GET", "//x", "//x", ""),
        ("GET", "http://other:1/p?q", "/p", "q"),
        ("GET", "HTTPS://[::1]", "/", ""),
        ("GET", "http://a?q", "/", "q"),
        ("OPTIONS", "*", "*", ""),
    ],
)
def test_target_forms_give_a_raw_path_and_query(
    method: str, target: str, path: str, query: str
) -> None:
    head = read_head(get(line=f"{method} {target} HTTP/1.1"))
    assert (head.target, head.path, head.query) == (target, path, query)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400, id="bare LF"),
        pytest.param(b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400, id="bare CR"),
        pytest.param(get("A: b\r\n c\r\n"), 400, id="folded line"),
        pytest.param(get("A : b\r\n"), 400, id="space before colon"),
        pytest.param(get("A: \0\r\n"), 400, id="NUL"),
        pytest.param(get(line="GET / HTTP/2.0"), 505, id="version"),
        pytest.param(get("A: b\r\n" * 100), 431, id="too many fields"),
        pytest.param(get(host=""), 400, id="no Host"),
        pytest.param(get(host="Host: a\r\nHost: a\r\n"), 400, id="two Hosts"),
        pytest.param(get(host="Host: a\r\nHost: a\r\n", line="GET / HTTP/1.0"), 400, id="two, 1.0"),
        pytest.param(get(host="Host: a/b\r\n"), 400, id="Host with a slash"),
        pytest.param(get(host="Host: a@b\r\n"), 400, id="Host with a user"),
        pytest.param(get(host="Host: a:b\r\n"), 400, id="Host with a bad port"),
        pytest.param(get(host="Host: a b\r\n"), 400, id="Host with a space"),
        pytest.param(get(line="GET a HTTP/1.1"), 400, id="relative target"),
        pytest.param(get(line="GET * HTTP/1.1"), 400, id="asterisk with GET"),
        pytest.param(get(line="GET /a#b HTTP/1.1"), 400, id="fragment"),
        pytest.param(get(line="GET ftp://a/ HTTP/1.1"), 400, id="scheme"),
        pytest.param(get(line="GET http:///a HTTP/1.1"), 400, id="no authority"),
        pytest.param(get(line="GET http://u@a/ HTTP/1.1"), 400, id="user in authority"),
        pytest.param(get(line="CONNECT a:1 HTTP/1.1"), 400, id="CONNECT"),
        pytest.param(get("Expect: 200-ok\r\n"), 417, id="expectation"),
    ],
)
def test_bad_heads_are_refused(wire: bytes, status: int) -> None:
    assert status_of(wire) == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", 400),
        ("Content-Length: 3\r\nContent-Length: 3\r\n", 400),
        ("Content-Length: 3, 3\r\n", 400),
        ("Content-Length: +3\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: 0x3\r\n", 400),
        ("Content-Length: 3_0\r\n", 400),
        ("Content-Length: \xb2\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 9999999999999999999\r\n", 400),
        ("Transfer-Encoding:\r\n", 400),
        ("Transfer-Encoding: identity\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: xchunked\r\n", 400),
        ("Transfer-Encoding: chunked;q=1\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: CHUNKED\r\n", None),
        ("Content-Length: 007\r\n", None),
    ],
)
def test_doubtful_body_lengths_are_refused(fields: str, status: int | None) -> None:
    assert status_of(post(b"", fields)) == status


def test_chunks_are_refused_from_http_1_0() -> None:
    wire = get("Transfer-Encoding: chunked\r\n", "POST / HTTP/1.0")
    assert status_of(wire) == 400


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n",
        b";a\r\n",
        b"0x3\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"-1\r\n",
        b" 3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"3_0\r\n",
        b"00000000000000003\r\nabc\r\n",
        b"3;a\nb\r\nabc\r\n",
        b"3;a\rb\r\nabc\r\n",
        b"3;\0\r\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\rX",
        b"3\r\nabc0\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\n\nA: b\r\n\r\n",
    ],
)
def test_bad_chunks_are_refused(body: bytes) -> None:
    assert status_of(post(body)) == 400


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        pytest.param(
            b"GET /" + b"a" * 8178 + b" HTTP/1.1\r\nHost: a\r\n\r\n", None, id="line fits"
        ),
        pytest.param(b"GET /" + b"a" * 8179 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, id="line long"),
        pytest.param(b"G" * 8194, 414, id="line without end"),
        pytest.param(b"G" * 8200 + b"\n", 414, id="line without end, LF behind it"),
        pytest.param(b"G" * 80 + b"\n" + b"G" * 8200, 400, id="LF before the line is too long"),
        pytest.param(get(f"A: {'b' * (MAX_HEAD_BYTES - 32)}\r\n"), None, id="head fits"),
        pytest.param(get(f"A: {'b' * (MAX_HEAD_BYTES - 31)}\r\n"), 431, id="head long"),
        pytest.param(
            post(b"3;" + b"a" * (MAX_CHUNK_LINE_BYTES - 2) + b"\r\n"), None, id="chunk fits"
        ),
        pytest.param(
            post(b"3;" + b"a" * (MAX_CHUNK_LINE_BYTES - 1) + b"\r\n"), 400, id="chunk long"
        ),
        pytest.param(
            post(b"0\r\nA:" + b"a" * (MAX_TRAILER_BYTES - 6) + b"\r\n\r\n"), None, id="trailer"
        ),
        pytest.param(post(b"0\r\nA:" + b"a" * MAX_TRAILER_BYTES), 431, id="trailer long"),
    ],
)
def test_sizes_are_bounded_where_they_say(wire: bytes, status: int | None) -> None:
    step = range(0, len(wire), 997)
    assert read_all(wire)[1] == read_all(wire, step)[1] == status


def test_long_head_is_refused_before_it_ends() -> None:
    connection = ServerConnection()
    connection.feed(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_HEAD_BYTES // 6 - 3))
    with pytest.raises(RemoteProtocolError) as caught:
        connection.feed(b"a: b\r\n")
    assert caught.value.status == 431


def test_nothing_is_read_after_a_refusal() -> None:
    connection = ServerConnection()
    with pytest.raises(RemoteProtocolError):
        connection.feed(b"\n")
    assert connection.feed(get()) == []


# --- body limits ---------------------------------------------------------------------------------


def test_announced_body_beyond_the_limit_is_refused_at_once() -> None:
    connection = ServerConnection()
    connection.feed(post(b"", "Content-Length: 11\r\n"))
    with pytest.raises(RemoteProtocolError) as caught:
        connection.set_body_limit(10)
    assert caught.value.status == 413
    assert str(caught.value) == "body of 11 bytes is larger than allowed (limit: 10 bytes)"
    assert connection.state is State.CLOSED


def test_body_of_exactly_the_limit_is_read() -> None:
    connection = ServerConnection()
    connection.feed(post(b"", "Content-Length: 10\r\n"))
    connection.set_body_limit(10)
    assert connection.feed(b"x" * 10) == [BodyPart(b"x" * 10), BodyEnd()]


def test_chunked_body_is_refused_at_the_chunk_that_goes_beyond() -> None:
    connection = ServerConnection()
    connection.feed(post(b"6\r\nabcdef\r\n"))
    connection.set_body_limit(10)
    with pytest.raises(RemoteProtocolError) as caught:
        connection.feed(b"5\r\n")
    assert caught.value.status == 413


def test_chunks_that_came_before_the_limit_count() -> None:
    connection = ServerConnection()
    connection.feed(post(b"6\r\nabcdef\r\n0\r\n\r\n"))
    with pytest.raises(RemoteProtocolError):
        connection.set_body_limit(5)


def test_body_limit_holds_for_one_request_only() -> None:
    connection = ServerConnection()
    connection.feed(get())
    connection.set_body_limit(0)
    connection.next_request()
    assert connection.feed(post(b"ab", "Content-Length: 2\r\n"))[1:] == [BodyPart(b"ab"), BodyEnd()]


def test_moves_that_make_no_sense_are_bugs() -> None:
    connection = ServerConnection()
    with pytest.raises(RuntimeError, match="no way from IDLE to SWITCHED"):
        connection.switch()
    with pytest.raises(RuntimeError, match="no way from IDLE to IDLE"):
        connection.next_request()


# --- however bytes arrive ------------------------------------------------------------------------

tokens = st.text("abcXYZ-!", min_size=1, max_size=8)
values = st.text("abc ,;=\t\xe9", max_size=12).map(lambda value: value.strip(" \t"))
plain_fields = st.lists(st.tuples(tokens.map(lambda name: f"x-{name}"), values), max_size=5)
bodies = st.binary(max_size=60)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A well-formed request."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in draw(plain_fields))
    path = draw(st.text("abc/%?=&", max_size=10))
    match draw(st.sampled_from(["none", "length", "chunked"])):
        case "length":
            body = draw(bodies)
            fields += f"Content-Length: {len(body)}\r\n"
        case "chunked":
            fields += "Transfer-Encoding: chunked\r\n"
            body = b"".join(encode_chunk(part) for part in draw(st.lists(bodies, max_size=4)))
            body += LAST_CHUNK
        case _:
            body = b""
    return get(fields, f"POST /{path} HTTP/1.1") + body


@st.composite
def broken_requests(draw: st.DrawFn) -> bytes:
    """A request with a few bytes exchanged, put in or left out."""
    wire = bytearray(draw(requests()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(wire)))
        wire[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b":", b"\0", b"0", b"f", b"\xff"])
        )
    return bytes(wire)


cuts = st.lists(st.integers(0, 400), max_size=6)


@given(wires=st.lists(requests(), min_size=1, max_size=3), cuts=cuts)
def test_well_formed_requests_are_read_alike_however_bytes_arrive(
    wires: list[bytes], cuts: list[int]
) -> None:
    wire = b"".join(wires)
    one_by_one = [event for single in wires for event in read_all(single)[0]]
    assert read_all(wire) == (one_by_one, None)
    assert read_all(wire, cuts) == (one_by_one, None)
    assert read_all(wire, range(len(wire))) == (one_by_one, None)


@given(wire=broken_requests(), cuts=cuts)
def test_broken_requests_are_refused_alike_however_bytes_arrive(
    wire: bytes, cuts: list[int]
) -> None:
    whole, status = read_all(wire)
    for events, other_status in (read_all(wire, cuts), read_all(wire, range(len(wire)))):
        assert other_status == status
        if status is None:
            assert events == whole


@given(wire=st.binary(max_size=300), cuts=cuts)
def test_any_bytes_are_accepted_or_refused_with_a_status(wire: bytes, cuts: list[int]) -> None:
    assert read_all(wire)[1] == read_all(wire, cuts)[1]


@given(wire=requests())
def test_well_formed_requests_are_what_h11_reads(wire: bytes) -> None:
    oracle = h11.Connection(h11.SERVER)
    oracle.receive_data(wire)
    theirs = oracle.next_event()
    body = b""
    while isinstance(data := oracle.next_event(), h11.Data):
        body += data.data
    assert isinstance(theirs, h11.Request)
    assert isinstance(data, h11.EndOfMessage)

    ours, status = read_all(wire)
    head = ours[0]
    assert status is None
    assert isinstance(head, RequestHead)
    assert (head.method.encode(), head.target.encode()) == (theirs.method, theirs.target)
    assert [(n.encode(), v.encode("latin-1")) for n, v in head.headers] == list(theirs.headers)
    assert b"".join(event.data for event in ours if isinstance(event, BodyPart)) == body


# --- the client's side ---------------------------------------------------------------------------


def responses(wire: bytes, cuts: Iterable[int] = (), method: str = "GET") -> list[HttpEvent]:
    connection = ClientConnection(method)
    events: list[HttpEvent] = []
    offsets = [0, *cuts, len(wire)]
    for start, end in itertools.pairwise(offsets):
        events += connection.feed(wire[start:end])
    return merged(events + connection.feed_eof())


@pytest.mark.parametrize(
    ("wire", "method", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "GET", b"abc"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "GET",
            b"abc",
        ),
        (b"HTTP/1.0 200\r\n\r\nabc", "GET", b"abc"),
        (b"HTTP/1.1 200 \r\n\r\n", "GET", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", "GET", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HEAD", b""),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
            "PUT",
            b"a",
        ),
    ],
)
def test_response_body_ends_where_its_framing_says(wire: bytes, method: str, body: bytes) -> None:
    events = responses(wire, method=method)
    assert responses(wire, range(1, len(wire)), method) == events
    assert b"".join(event.data for event in events if isinstance(event, BodyPart)) == body
    assert events[-1] == BodyEnd()


def test_response_head_is_a_record() -> None:
    assert responses(b"HTTP/1.1 404 Nicht da\xe9\r\nA: b\r\nContent-Length: 0\r\n\r\n")[
        0
    ] == ResponseHead(
        status=404,
        reason="Nicht da\xe9",
        version_minor=1,
        headers=Headers([("a", "b"), ("content-length", "0")]),
    )


def test_next_response_is_read_after_the_first() -> None:
    connection = ClientConnection("HEAD")
    connection.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
    assert connection.next_response() == []
    events = connection.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
    assert events[1:] == [BodyPart(b"a"), BodyEnd()]


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 99 No\r\n\r\n",
        b"HTTP/1.1 200 O\x01K\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200",
    ],
)
def test_broken_responses_are_errors(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        responses(wire)


def test_end_of_the_connection_between_responses_is_no_error() -> None:
    assert ClientConnection().feed_eof() == []


# --- writing -------------------------------------------------------------------------------------


def test_response_head_is_written_with_its_status_line() -> None:
    assert encode_response_head(200, [("a", "b\xe9")]) == b"HTTP/1.1 200 OK\r\na: b\xe9\r\n\r\n"


def test_request_head_is_written_with_its_target() -> None:
    assert (
        encode_request_head("PUT", "/x?y", [("host", "h")])
        == b"PUT /x?y HTTP/1.1\r\nhost: h\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a", "b\r\nc: d"),
        ("a", "b\n"),
        ("a", "\0"),
        ("a", "\u20ac"),
        ("a b", "c"),
        ("", "c"),
        ("a:", "c"),
    ],
)
def test_fields_that_would_break_the_head_are_bugs(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="cannot carry"):
        encode_response_head(200, [(name, value)])


def test_unknown_status_is_a_bug() -> None:
    with pytest.raises(ValueError, match="unknown status 299"):
        encode_response_head(299, [])


def test_empty_chunk_is_not_written() -> None:
    assert encode_chunk(b"") == b""
    assert encode_chunk(memoryview(b"x" * 26)) == b"1a\r\n" + b"x" * 26 + b"\r\n"
