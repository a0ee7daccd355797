"""The link's text messages, in both directions.

Invariants: a message is one of the protocol's, or a decoding error; what was read is written and
read again as the same.
"""

import msgspec

from paddler.messages.link import decode_from_agent, decode_from_balancer

SEEDS = (
    b'{"type":"hello","protocol":1,"name":"a","slots_total":4,"unknown":[]}',
    b'{"type":"status","slots_total":4,"desired_slots_total":4,"issues":[]}',
    b'{"type":"goodbye"}',
    b'{"type":"stop","stream_id":4294967295}',
    b'{"type":"refused","reason":"x","protocol":1}',
    b'{"type":"answer","id":1}',
    b'{"type":"set_state","state":{}}',
    b"[" * 2000,
)
DICTIONARY = (
    b'"type":',
    b'"hello"',
    b'"status"',
    b'"details"',
    b'"answer"',
    b'"set_state"',
    b'"start"',
    b'"stop"',
    b'"question"',
    b'"welcome"',
    b"null",
    b"1e999",
    b"-1",
    b"\\ud800",
    b"{}",
    b"[]",
)


def check(data: bytes) -> None:
    """The invariants for ``data`` as one message."""
    for decode in (decode_from_agent, decode_from_balancer):
        try:
            message = decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        assert decode(msgspec.json.encode(message)) == message
