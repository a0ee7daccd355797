"""The WebSocket handshake, both sides against each other and against broken peers."""

import pytest

from paddler.errors import RemoteProtocolError
from paddler.proto.events import Headers, RequestHead, ResponseHead
from paddler.proto.http1 import ClientConnection, ServerConnection
from paddler.proto.ws_handshake import ClientHandshake, accept_upgrade

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3, as the accept value below
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

REQUEST = {
    "Host": "xn--a",  # no IDNA name: nobody may try to decode it
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "WebSocket",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Extensions": "permessage-deflate",
    "Sec-WebSocket-Protocol": "chat",
}


def request(changes: dict[str, str | None] | None = None, method: str = "GET") -> RequestHead:
    fields = {**REQUEST, **(changes or {})}
    lines = [f"{name}: {value}\r\n" for name, value in fields.items() if value is not None]
    wire = f"{method} /socket HTTP/1.1\r\n{''.join(lines)}\r\n"
    head = ServerConnection().feed(wire.encode("latin-1"))[0]
    assert isinstance(head, RequestHead)
    return head


def answer(wire: bytes) -> ResponseHead:
    head = ClientConnection().feed(wire)[0]
    assert isinstance(head, ResponseHead)
    return head


def test_upgrade_is_accepted_without_extensions_or_subprotocols() -> None:
    response = accept_upgrade(request())
    assert response.startswith(b"HTTP/1.1 101 ")
    assert answer(response).headers == Headers(
        [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-accept", ACCEPT.decode()),
        ]
    )


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Connection": None}, 400),
        ({"Upgrade": None}, 400),
        ({"Upgrade": "h2c"}, 400),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZQ=="}, 400),
        ({"Sec-WebSocket-Key": "not base64 at all!"}, 400),
        ({"Sec-WebSocket-Key": "\xe9"}, 400),
        ({"sec-websocket-key": KEY}, 400),
        ({"Sec-WebSocket-Version": None}, 400),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"sec-websocket-version": "13"}, 426),
    ],
)
def test_bad_upgrade_is_refused(changes: dict[str, str | None], status: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        accept_upgrade(request(changes))
    assert caught.value.status == status


def test_only_get_upgrades() -> None:
    with pytest.raises(RemoteProtocolError, match="send a GET request"):
        accept_upgrade(request(method="POST"))


def test_both_sides_agree() -> None:
    handshake = ClientHandshake("127.0.0.1:8060", "/api/v1/agent_socket/a?b=c")
    head = ServerConnection().feed(handshake.request)[0]
    assert isinstance(head, RequestHead)
    assert head.target == "/api/v1/agent_socket/a?b=c"
    assert head.headers.get("host") == "127.0.0.1:8060"
    handshake.check(answer(accept_upgrade(head)))


@pytest.mark.parametrize(
    "fields",
    [
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        "Connection: Upgrade\r\n",
        "",
    ],
)
def test_client_refuses_an_answer_that_proves_nothing(fields: str) -> None:
    with pytest.raises(RemoteProtocolError, match="bad answer"):
        ClientHandshake("a", "/").check(
            answer(f"HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n".encode())
        )


@pytest.mark.parametrize("field", ["Extensions: permessage-deflate", "Protocol: \xe9"])
def test_client_refuses_what_it_did_not_offer(field: str) -> None:
    handshake = ClientHandshake("a", "/")
    head = ServerConnection().feed(handshake.request)[0]
    assert isinstance(head, RequestHead)
    response = accept_upgrade(head)[:-2] + f"Sec-WebSocket-{field}\r\n\r\n".encode("latin-1")
    with pytest.raises(RemoteProtocolError, match="bad answer"):
        handshake.check(answer(response))
