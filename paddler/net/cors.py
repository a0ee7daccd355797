"""Which browser origins may call a listener (WHATWG Fetch §3.2)."""

from typing import Final

from paddler.net.origins import is_from_own_page
from paddler.proto.events import Fields, Headers, RequestHead

ALLOWED_METHODS: Final = ("DELETE", "GET", "POST", "PUT", "OPTIONS")
ALLOWED_HEADERS: Final = ("accept", "authorization", "content-type")
MAX_AGE_S: Final = 3_600

PREFLIGHT_FIELDS: Final[Fields] = (
    ("access-control-allow-methods", ", ".join(ALLOWED_METHODS)),
    ("access-control-allow-headers", ", ".join(ALLOWED_HEADERS)),
    ("access-control-max-age", str(MAX_AGE_S)),
)
"""What the answer to an allowed preflight says beside ``origin_fields``."""


class Cors:
    """Cross-origin rules for a set of exact origins, such as ``http://example.com:8080``.

    Credentials are never allowed. A request of a foreign origin is served without CORS
    fields: it is the browser that keeps the answer from the page.
    """

    __slots__ = ("_allowed_origins",)

    def __init__(self, allowed_origins: frozenset[str]) -> None:
        self._allowed_origins = allowed_origins

    @staticmethod
    def is_preflight(head: RequestHead) -> bool:
        """Whether the request asks for leave only."""
        return (
            head.method == "OPTIONS"
            and "origin" in head.headers
            and "access-control-request-method" in head.headers
        )

    def refusal(self, headers: Headers) -> str | None:
        """Why a preflight is refused; ``None``: it is not."""
        origin = headers.get("origin", "")
        if origin not in self._allowed_origins:
            return f"origin {origin[:200]!r} is not allowed"
        method = headers.get("access-control-request-method", "")
        if method not in ALLOWED_METHODS:
            return f"method {method[:40]!r} is not allowed from other origins"
        for name in headers.tokens("access-control-request-headers"):
            if name not in ALLOWED_HEADERS:
                return f"header {name[:80]!r} is not allowed from other origins"
        return None

    def is_foreign(self, headers: Headers) -> bool:
        """Whether a request comes from a page that is neither this host's nor allowed.

        Browsers ask for no leave before they open a WebSocket: the server has to look.
        """
        origin = headers.get("origin")
        return (
            origin is not None
            and origin not in self._allowed_origins
            and not is_from_own_page(headers)
        )

    def origin_fields(self, headers: Headers) -> Fields:
        """Fields that every response to this request carries."""
        origin = headers.get("origin")
        if origin is None or origin not in self._allowed_origins:
            return ()
        return (("access-control-allow-origin", origin), ("vary", "origin"))
