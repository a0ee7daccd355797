"""Who may call a listener: by keys, and from which web pages."""

import base64
import binascii
from typing import Final

from paddler.keys import Keys
from paddler.net.cors import Cors
from paddler.net.http import Refusal, Response, text
from paddler.proto.events import RequestHead

# What tells no secrets and is asked for by load balancers and service managers.
OPEN_PATHS: Final = frozenset({"/health", "/ready"})
BEARER: Final = "bearer"
BASIC: Final = "basic"


class KeyCheck:
    """Finds the owner of the key that a request carries, or refuses the request.

    A key is sent as ``Authorization: Bearer KEY``. ``for_browsers``: also as the password of
    HTTP Basic authentication (RFC 7617), which browsers ask their users for.
    """

    def __init__(self, keys: Keys, *, what: str, for_browsers: bool = False) -> None:
        """``what``: what the listener's keys are called, for people."""
        self._keys = keys
        self._what = what
        self._schemes = (BEARER, BASIC) if for_browsers else (BEARER,)
        # Every path of the panel is its page, with the services' addresses.
        self._open_paths: frozenset[str] = frozenset() if for_browsers else OPEN_PATHS
        challenge = "Basic" if for_browsers else "Bearer"
        self._headers = (("www-authenticate", f'{challenge} realm="paddler"'),)

    def __call__(self, head: RequestHead) -> str | Refusal:
        """The owner's name; empty where nobody need be known."""
        if head.path in self._open_paths and head.method in ("GET", "HEAD"):
            return ""
        fields = head.headers.get_all("authorization")
        if len(fields) > 1:
            return self._refusal(f"{len(fields)} Authorization fields; one is expected")
        if not fields:
            return self._refusal(f"this needs {self._what}: send it as Authorization: Bearer KEY")
        scheme, _, credentials = fields[0].partition(" ")
        key = credentials.strip()
        if scheme.lower() not in self._schemes:
            return self._refusal("the Authorization field is not of the form Bearer KEY")
        if scheme.lower() == BASIC:
            key = _password(key)
        owner = self._keys.owner(key)
        if owner is None:
            return self._refusal(f"{self._what} that was sent is not known here")
        return owner

    def _refusal(self, message: str) -> Refusal:
        return Refusal(401, "invalid_api_key", message, self._headers)


def _password(credentials: str) -> str:
    """The password of HTTP Basic credentials; empty if they are none."""
    try:
        decoded = base64.b64decode(credentials, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return ""
    return decoded.partition(":")[2]


class PageGuard:
    """Refuses what a page of another site could have a browser send without asking for leave.

    That is a POST without a body: draining an agent, say. What has a body has to be JSON here,
    for which browsers ask first.
    """

    def __init__(self, cors: Cors) -> None:
        self._cors = cors

    def __call__(self, head: RequestHead) -> Response | None:
        """The refusal; ``None``: there is none."""
        if head.method != "POST" or not self._cors.is_foreign(head.headers):
            return None
        origin = head.headers.get("origin", "")
        return text(403, f"a page of {origin[:200]!r} may not do this: its origin is not allowed")
