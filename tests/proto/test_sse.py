"""Server-sent events."""

import pytest

from paddler.proto.sse import DONE, KEEP_ALIVE, encode_event


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        (b"{}", b"data: {}\n\n"),
        (b"", b"data: \n\n"),
        (b"a\nb", b"data: a\ndata: b\n\n"),
        (b"a\r\nb\rc", b"data: a\ndata: b\ndata: c\n\n"),
        (b"a\r", b"data: a\ndata: \n\n"),
        (b"\n\n", b"data: \ndata: \ndata: \n\n"),
    ],
)
def test_event_data_is_one_field_for_each_line(data: bytes, wire: bytes) -> None:
    assert encode_event(data) == wire


def test_event_name_comes_before_the_data() -> None:
    assert encode_event(b"1", event="response.created") == b"event: response.created\ndata: 1\n\n"


def test_constants_end_with_an_empty_line() -> None:
    assert encode_event(b"[DONE]") == DONE
    assert KEEP_ALIVE == b": keep-alive\n\n"
