"""Server-sent events: how one is put on the wire (WHATWG HTML §9.2)."""

import re
from typing import Final

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")

KEEP_ALIVE: Final = b": keep-alive\n\n"
DONE: Final = b"data: [DONE]\n\n"


def encode_event(data: bytes, *, event: str | None = None, event_id: int | None = None) -> bytes:
    """One event; ``data`` of several lines becomes several ``data`` fields.

    ``event`` is a name of ours: one line, checked by nobody.
    """
    name = b"" if event is None else b"event: %b\n" % event.encode()
    number = b"" if event_id is None else b"id: %d\n" % event_id
    return b"%b%bdata: %b\n\n" % (number, name, _LINE_END.sub(b"\ndata: ", data))
