"""Who may call a listener: by keys, and from which web pages."""

import base64
import binascii
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from paddler.config import split_address
from paddler.keys import Keys
from paddler.net.cors import Cors
from paddler.net.host_names import is_name_of_ours, learn_own_names
from paddler.net.http import Refusal, Response, text
from paddler.net.origins import is_same_host, split_host_field
from paddler.proto.events import RequestHead

# What tells no secrets and is asked for by load balancers and service managers.
OPEN_PATHS: Final = frozenset({"/health", "/ready"})
BEARER: Final = "bearer"
BASIC: Final = "basic"
# What browsers send for pages that hide where they are from, or come from nowhere.
OPAQUE_ORIGIN: Final = "null"
ORIGIN_FLAG: Final = "--management-cors-allowed-host"


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


class RebindingGuard:
    """Refuses web pages whose own name has been made to point here (DNS rebinding).

    To its browser such a page is at home and may do anything; only the name tells. Pages that
    came by https are safe: nobody has a certificate for our name and theirs (but not their frames
    in a sandbox, whose origin is ``null``). Requests without
    ``Origin``, as programs send them, are let through, and so is what a page merely GETs from its
    own host, since browsers do not mark that over http.

    ``address``: the listener's, as it was given.
    """

    def __init__(
        self,
        allowed_origins: Collection[str],
        address: str,
    ) -> None:
        self._allowed_origins = frozenset(allowed_origins)
        self._names = {split_address(address)[0].lower(), *map(host_of, allowed_origins)}

    def learn_own_names(self) -> None:
        """Allow what this machine calls itself, as soon as it is known."""
        learn_own_names(self._names)

    def __call__(self, head: RequestHead) -> Response | None:
        """The refusal; ``None``: there is none."""
        origin = head.headers.get("origin")
        if origin is None or origin in self._allowed_origins or origin.startswith("https:"):
            return None
        if Cors.is_preflight(head):
            return None  # asks for leave only, and gets none
        field = head.headers.get("host", "")
        if origin != OPAQUE_ORIGIN and not is_same_host(origin, (field,)):
            return None  # a page of another site, which its browser holds back
        host = split_host_field(field)
        if host is not None and is_name_of_ours(host[0], self._names):
            return None
        message = (
            f"a page of {origin[:200]!r} may not do this: {field[:200]!r} is not known to be a "
            f"name of this balancer. Use its IP address, or start it with {ORIGIN_FLAG} and the "
            "page's origin"
        )
        return text(403, message)


class PageGuard:
    """Refuses what a page of another site could have a browser send without asking for leave.

    That is a POST without a body: draining an agent, say. What has a body has to be JSON here,
    for which browsers ask first. ``rebinding``: asked as well, where there are no keys.
    """

    def __init__(self, cors: Cors, rebinding: RebindingGuard | None = None) -> None:
        self._cors = cors
        self._rebinding = rebinding

    def __call__(self, head: RequestHead) -> Response | None:
        """The refusal; ``None``: there is none."""
        if self._rebinding is not None and (refusal := self._rebinding(head)) is not None:
            return refusal
        if head.method != "POST" or not self._cors.is_foreign(head.headers):
            return None
        origin = head.headers.get("origin", "")
        return text(403, f"a page of {origin[:200]!r} may not do this: its origin is not allowed")


def host_of(origin: str) -> str:
    """The host name of an origin, in lower case; empty if there is none."""
    try:
        return (urlsplit(origin).hostname or "").removesuffix(".")
    except ValueError:
        return ""
