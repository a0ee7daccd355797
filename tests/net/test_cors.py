"""Cross-origin rules over a real connection."""

import pytest

from paddler.net.connection import Exchange
from paddler.net.cors import Cors
from paddler.net.http import Response, Router, Site, text
from tests.net.conftest import Run
from tests.net.peers import Answer, Client, get, serving

ORIGIN = "http://panel:8062"


async def health(exchange: Exchange) -> Response:
    return text(200, "OK")


async def stream(exchange: Exchange) -> None:
    exchange.start(200, "text/event-stream")


async def ask(wire: bytes, *, has_cors: bool = True) -> Answer:
    router = Router()
    router.add("GET", "/health", health)
    router.add("GET", "/stream", stream)
    site = Site(router=router, cors=Cors(frozenset({ORIGIN})) if has_cors else None)
    async with serving(site) as listener, await Client.connect(listener) as client:
        return await client.ask(wire)


def preflight(origin: str = ORIGIN, method: str = "POST", headers: str | None = None) -> bytes:
    asked = "" if headers is None else f"Access-Control-Request-Headers: {headers}\r\n"
    fields = f"Origin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n{asked}"
    return get("/no/such/path", fields, method="OPTIONS")


def test_preflight_of_an_allowed_origin_is_answered_on_any_path(run: Run) -> None:
    async def check() -> None:
        answer = await ask(preflight(headers="Content-Type, authorization,accept"))
        assert (answer.status, answer.body) == (200, b"")
        assert list(answer.headers) == [
            ("content-length", "0"),
            ("access-control-allow-methods", "DELETE, GET, POST, PUT, OPTIONS"),
            ("access-control-allow-headers", "accept, authorization, content-type"),
            ("access-control-max-age", "3600"),
            ("access-control-allow-origin", ORIGIN),
            ("vary", "origin"),
        ]

    run(check())


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (preflight(origin="http://panel"), b"origin 'http://panel' is not allowed"),
        (preflight(method="PATCH"), b"method 'PATCH' is not allowed from other origins"),
        (preflight(headers="accept, x-a"), b"header 'x-a' is not allowed from other origins"),
    ],
)
def test_preflight_is_refused_with_the_reason(run: Run, wire: bytes, reason: bytes) -> None:
    async def check() -> None:
        answer = await ask(wire)
        assert (answer.status, answer.body) == (400, reason)

    run(check())


@pytest.mark.parametrize(
    ("path", "origin", "allowed"),
    [
        ("/health", ORIGIN, ORIGIN),
        ("/stream", ORIGIN, ORIGIN),
        ("/missing", ORIGIN, ORIGIN),
        ("/health", "http://elsewhere", None),
    ],
)
def test_plain_request_is_served_and_allowed_origins_are_echoed(
    run: Run, path: str, origin: str, allowed: str | None
) -> None:
    async def check() -> None:
        answer = await ask(get(path, f"Origin: {origin}\r\n"))
        assert answer.status == (404 if path == "/missing" else 200)
        assert answer.headers.get("access-control-allow-origin") == allowed

    run(check())


def test_options_is_an_ordinary_method_without_cors(run: Run) -> None:
    async def check() -> None:
        assert (await ask(preflight(), has_cors=False)).status == 404

    run(check())
