"""The WebSocket handshake of both sides (RFC 6455 §4), without extensions or subprotocols.

wsproto knows the negotiation rules. Heads are parsed by our own strict parser first, and
only the fields of the handshake are shown to it.
"""

import base64
import binascii
from typing import Final

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, RejectConnection, Request
from wsproto.utilities import RemoteProtocolError as HandshakeError

from paddler.errors import RemoteProtocolError
from paddler.proto.events import Fields, Headers, RequestHead, ResponseHead
from paddler.proto.http1 import encode_response_head

_NONCE_BYTES: Final = 16


def accept_upgrade(head: RequestHead) -> bytes:
    """The 101 response to an upgrade request.

    Anything else is a ``RemoteProtocolError`` with status 400, or 426 where the client speaks
    another WebSocket version.
    """
    if head.method != "GET" or head.upgrade is None:
        raise RemoteProtocolError(
            "this path speaks WebSocket only: send a GET request with "
            "'Connection: Upgrade' and 'Upgrade: websocket'"
        )
    keys = head.headers.get_all("sec-websocket-key")
    if len(keys) != 1 or not _is_nonce(keys[0]):
        raise RemoteProtocolError("there must be one Sec-WebSocket-Key, of 16 bytes in base64")
    # wsproto wants a Host but would decode the client's as IDNA; ours was checked already.
    fields = [(b"host", b"paddler"), *_handshake_fields(head.headers)]
    server = WSConnection(ConnectionType.SERVER)
    try:
        server.initiate_upgrade_connection(fields, "/")
    except HandshakeError as error:
        hint = error.event_hint
        status = hint.status_code if isinstance(hint, RejectConnection) else 400
        raise RemoteProtocolError(f"bad WebSocket handshake: {error}", status=status) from None
    return server.send(AcceptConnection())


class ClientHandshake:
    """One attempt to open a WebSocket: send ``request``, then ``check`` the 101 response."""

    __slots__ = ("_connection", "request")

    def __init__(self, host: str, target: str, headers: Fields = ()) -> None:
        self._connection = WSConnection(ConnectionType.CLIENT)
        extra = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        self.request: bytes = self._connection.send(
            Request(host=host, target=target, extra_headers=extra)
        )

    def check(self, head: ResponseHead) -> None:
        """Raise ``RemoteProtocolError`` unless the server did accept this very request."""
        try:
            self._connection.receive_data(encode_response_head(head.status, head.headers))
        except (HandshakeError, UnicodeError) as error:
            raise RemoteProtocolError(f"bad answer to a WebSocket handshake: {error}") from None


def _handshake_fields(headers: Headers) -> list[tuple[bytes, bytes]]:
    names = ("connection", "upgrade", "sec-websocket-key", "sec-websocket-version")
    return [
        (name.encode(), ",".join(headers.get_all(name)).encode("latin-1"))
        for name in names
        if name in headers
    ]


def _is_nonce(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == _NONCE_BYTES
    except (binascii.Error, ValueError):
        return False
