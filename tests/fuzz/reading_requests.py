"""All requests of a byte stream, as we read them and as h11 does."""

from collections.abc import Iterable

import h11

from paddler.errors import RemoteProtocolError
from paddler.proto.events import BodyEnd, BodyPart, HttpEvent, RequestHead
from paddler.proto.http1 import ServerConnection, State

Read = list[HttpEvent]


def read_requests(pieces: Iterable[bytes]) -> tuple[Read, int | None]:
    """What the server's side reads, bodies joined; the status with which it refused the rest."""
    connection = ServerConnection()
    events: Read = []
    try:
        for piece in pieces:
            # As a connection does it.
            whole = connection.read_whole(memoryview(piece))
            if whole is not None:
                head, body = whole
                events += [head, BodyPart(body), BodyEnd()] if body else [head, BodyEnd()]
            else:
                events += connection.feed(piece)
            while connection.state is State.COMPLETE:
                events += connection.next_request()
    except RemoteProtocolError as error:
        assert connection.state is State.CLOSED
        assert connection.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == []
        return joined(events), error.status
    return joined(events), None


def joined(events: Iterable[HttpEvent]) -> Read:
    """Events with adjacent parts of a body as one."""
    result: Read = []
    for event in events:
        if isinstance(event, BodyPart) and result and isinstance(result[-1], BodyPart):
            event = BodyPart(result.pop().data + event.data)
        result.append(event)
    return result


def summary(events: Read) -> list[tuple[object, ...]]:
    """What another parser can tell, too: method, target, fields, body, trailers."""
    told: list[tuple[object, ...]] = []
    for event in events:
        match event:
            case RequestHead():
                told.append((event.method, event.target, list(event.headers)))
            case BodyPart(data):
                told.append((data,))
            case BodyEnd(trailers):
                told.append(("end", list(trailers)))
    return told


def h11_summary(data: bytes) -> list[tuple[object, ...]]:
    """The same of h11; raises ``h11.RemoteProtocolError`` where that refuses."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    told: list[tuple[object, ...]] = []
    body = b""
    while True:
        event = connection.next_event()
        match event:
            case h11.Request():
                fields = [(n.decode(), v.decode("latin-1")) for n, v in event.headers]
                told.append((event.method.decode(), event.target.decode(), fields))
                body = b""
            case h11.Data():
                body += bytes(event.data)
            case h11.EndOfMessage():
                if body:
                    told.append((body,))
                trailers = [(n.decode(), v.decode("latin-1")) for n, v in event.headers]
                told.append(("end", trailers))
                body = b""
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE:
                    return told
                connection.start_next_cycle()
            case _:
                if body:
                    told.append((body,))
                return told


def assert_h11_reads(data: bytes, events: Read) -> None:
    """h11 reads what we accepted as the same requests, as far as it goes on.

    It stops after the first request that wants the connection closed or changed.
    """
    connection = ServerConnection()
    connection.feed(data)
    while connection.state is State.COMPLETE:
        connection.next_request()
    # What is incomplete it may refuse sooner.
    data = data[: len(data) - connection.waiting_bytes].removeprefix(b"\r\n")
    ours = summary(events)
    try:
        theirs = h11_summary(data)
    except h11.RemoteProtocolError as error:
        # Stricter than RFC 9112: blanks may stand before the ; of an extension (§7.1.1), an empty
        # line before a request (§2.2).
        assert str(error).startswith(("illegal chunk header", "no request line")), error
        return
    assert theirs == ours[: len(theirs)]
    requests = [event for event in events if isinstance(event, RequestHead)]
    if all(head.keep_alive and head.upgrade is None for head in requests):
        assert len(theirs) == len(ours)
