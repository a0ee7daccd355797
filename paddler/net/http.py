"""Requests, responses, routes: what a service sees of HTTP."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote

import msgspec

from paddler.net.cors import Cors
from paddler.proto.events import Fields, Headers, RequestHead

if TYPE_CHECKING:
    from paddler.net.connection import Exchange

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A complete request. ``path`` and ``query`` are raw, ``params`` are percent-decoded."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes
    params: Mapping[str, str]
    principal: str = ""
    """Who sent it, where the site knows its callers."""

    def query_value(self, name: str) -> str | None:
        """The first value of ``name`` in the query, decoded; ``None``: it is not there."""
        values = parse_qs(self.query, keep_blank_values=True).get(name)
        return values[0] if values else None


class Response(msgspec.Struct, frozen=True):
    """A complete response; framing and connection fields are added when it is sent."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Fields = ()


Handler = Callable[["Exchange"], Awaitable[Response | None]]
"""Answers one request: returns the response, or ``None`` after streaming or upgrading it.

Runs as a task that is cancelled when the client goes away. A ``PaddlerError`` raised before
the response began becomes a response with its status.
"""


def text(status: int, body: str) -> Response:
    """A plain-text response."""
    return Response(status, body.encode(), TEXT)


def json(status: int, body: bytes) -> Response:
    """A response of already encoded JSON."""
    return Response(status, body, JSON)


# --- routes --------------------------------------------------------------------------------------


class Match(msgspec.Struct, frozen=True):
    """Who answers a request. ``max_body_bytes`` is ``None`` where the site's default holds."""

    handler: Handler
    params: Mapping[str, str]
    max_body_bytes: int | None


class MethodNotAllowed(msgspec.Struct, frozen=True):
    """The path is known, the method is not."""

    allow: str
    """Value of the ``Allow`` field."""


class Router:
    """Finds the handler of a request.

    A pattern is a path whose segments may be ``{name}``, which matches one segment that is
    not empty. Literal paths win over patterns; patterns are tried in the order of ``add``.
    """

    def __init__(self) -> None:
        self._literal: dict[str, dict[str, Match]] = {}  # by path and method
        self._patterns: dict[tuple[str, ...], dict[str, Match]] = {}
        self._rest: dict[str, Match] = {}
        self._rest_except = ""

    def add(
        self, method: str, pattern: str, handler: Handler, *, max_body_bytes: int | None = None
    ) -> None:
        """Let ``handler`` answer ``method`` on ``pattern``."""
        if "{" in pattern:
            methods = self._patterns.setdefault(tuple(pattern.split("/")), {})
        else:
            methods = self._literal.setdefault(pattern, {})
        if method in methods:
            raise ValueError(f"{method} {pattern} has a handler already")
        methods[method] = Match(handler, {}, max_body_bytes)

    def add_rest(self, method: str, handler: Handler, *, except_under: str) -> None:
        """Let ``handler`` answer every path that nobody else does, but for those of a prefix."""
        self._rest[method] = Match(handler, {}, None)
        self._rest_except = except_under

    def resolve(self, method: str, path: str) -> Match | MethodNotAllowed | None:
        """Who answers; ``None`` for an unknown path."""
        params = None
        methods = self._literal.get(path)
        if methods is None:
            methods, params = self._find(path)
            if methods is None:
                return None
        match = methods.get(method)
        if match is None:
            return MethodNotAllowed(", ".join(sorted(methods)))
        return msgspec.structs.replace(match, params=params) if params else match

    def _find(self, path: str) -> tuple[dict[str, Match] | None, dict[str, str]]:
        segments = path.split("/")
        for pattern, methods in self._patterns.items():
            params = _match(pattern, segments)
            if params is not None:
                return methods, params
        if self._rest and not path.startswith(self._rest_except):
            return self._rest, {}
        return None, {}


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    params = {}
    for expected, segment in zip(pattern, segments, strict=True):
        if expected.startswith("{") and segment:
            params[expected[1:-1]] = unquote(segment)
        elif expected != segment:
            return None
    return params


# --- sites ---------------------------------------------------------------------------------------

RenderError = Callable[[int, str, str, Fields], Response]
"""``render_error(status, code, message, headers)``: an error in the shape of a site."""


def render_plain_error(status: int, code: str, message: str, headers: Fields) -> Response:
    """Errors as plain text; an unknown path has an empty body."""
    if code == "not_found":
        return Response(status, headers=headers)
    return Response(status, message.encode(), TEXT, headers)


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may take of time and memory."""

    head_timeout_s: float = 10.0
    """From a head's first byte to its last."""
    body_progress_timeout_s: float = 30.0
    """For each ``body_step_bytes`` of a body; also between two pieces read of our response."""
    body_step_bytes: int = 4_096  # 137 B/s; Apache's mod_reqtimeout asks for 500 B/s
    """What has to come of a body in that time, unless its end does."""
    keep_alive_timeout_s: float = 75.0  # nginx's default; most clients give up before
    """Between two requests, and before the first."""
    max_unsent_bytes: int = 1_048_576
    """What a client may leave unread of a stream before it is cut."""
    max_pipelined_bytes: int = 65_536
    """What may wait behind the request under way before reading stops."""
    linger_timeout_s: float = 2.0
    max_linger_bytes: int = 1_048_576
    """How long, and how much, input is thrown away so that a refused client reads why."""


Guard = Callable[[RequestHead], Response | None]
"""The refusal of a request that is not to be served; ``None``: it is."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a request is not served, in the site's own shape of errors."""

    status: int
    code: str
    message: str
    headers: Fields = ()


Authenticate = Callable[[RequestHead], str | Refusal]
"""The name of who sent a request, or the refusal of it."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What one listener serves."""

    router: Router
    render_error: RenderError = render_plain_error
    guard: Guard | None = None
    """Asked about every head, before its path is looked at."""
    authenticate: Authenticate | None = None
    """Asked about every head but preflights, which carry no credentials."""
    headers: Fields = ()
    """What every response carries."""
    cors: Cors | None = None
    """``None``: preflights are ordinary requests."""
    max_body_bytes: int = 67_108_864  # 64 MiB: images arrive within JSON
    limits: HttpLimits = HttpLimits()
