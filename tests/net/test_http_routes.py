"""Which handler a request finds."""

import pytest

from paddler.net.connection import Exchange
from paddler.net.http import (
    Match,
    MethodNotAllowed,
    Response,
    Router,
    json,
    render_plain_error,
    text,
)


async def first(exchange: Exchange) -> Response:
    return text(200, "first")


async def second(exchange: Exchange) -> Response:
    return text(200, "second")


def router() -> Router:
    router = Router()
    router.add("GET", "/agents/all", first)
    router.add("GET", "/agents/{id}", second, max_body_bytes=5)
    router.add("POST", "/agents/{id}", second)
    router.add("GET", "/agents/{id}/models/{model}", first)
    return router


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/agents/all", Match(first, {}, None)),
        ("GET", "/agents/a", Match(second, {"id": "a"}, 5)),
        ("POST", "/agents/a%2Fb%C3%A9", Match(second, {"id": "a/b\u00e9"}, None)),
        ("GET", "/agents/a/models/m", Match(first, {"id": "a", "model": "m"}, None)),
        ("PUT", "/agents/a", MethodNotAllowed("GET, POST")),
        ("HEAD", "/agents/all", MethodNotAllowed("GET")),
        ("GET", "/agents/", None),
        ("GET", "/agents", None),
        ("GET", "/agents/a/", None),
        ("GET", "/other/a", None),
        ("GET", "", None),
    ],
)
def test_router_finds_handler_allowed_methods_or_nothing(
    method: str, path: str, found: Match | MethodNotAllowed | None
) -> None:
    assert router().resolve(method, path) == found


def test_two_handlers_for_one_route_are_a_bug() -> None:
    with pytest.raises(ValueError, match="GET /agents/all has a handler already"):
        router().add("GET", "/agents/all", second)


def test_plain_errors_have_a_text_unless_the_path_is_unknown() -> None:
    assert render_plain_error(404, "not_found", "no such path", ()) == Response(404)
    assert render_plain_error(404, "no_agent", "no agent", ()) == text(404, "no agent")
    assert render_plain_error(405, "x", "y", (("allow", "GET"),)).headers == (("allow", "GET"),)


def test_helpers_set_the_content_type() -> None:
    assert text(200, "\u00e9") == Response(200, b"\xc3\xa9", "text/plain; charset=utf-8")
    assert json(201, b"{}") == Response(201, b"{}", "application/json")


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/agents/all", Match(first, {}, None)),
        ("GET", "/agents/a/b/c", Match(second, {}, None)),
        ("GET", "/", Match(second, {}, None)),
        ("POST", "/other", MethodNotAllowed("GET")),
        ("PUT", "/agents/a", MethodNotAllowed("GET, POST")),
        ("GET", "/api/other", None),
        ("POST", "/api/", None),
    ],
)
def test_the_rest_is_what_nobody_else_answers(
    method: str, path: str, found: Match | MethodNotAllowed | None
) -> None:
    routes = router()
    routes.add_rest("GET", second, except_under="/api/")
    assert routes.resolve(method, path) == found
