"""Who may talk to the panel's listener: the panel's own page, by a name that is the panel's.

There is no login, so two things keep other web pages of an operator's browser out:

- DNS rebinding: a page whose name suddenly resolves to this machine speaks to it as its own
  origin, and only ``Host`` tells. Names that an attacker can own in the public DNS are
  refused, unless a flag allows them.
- Cross-site requests: what changes or costs something has to come from the panel's own origin.
  Programs that are no browsers say nothing of where they come from, and are let in.
"""

import ipaddress
import re
import socket
import threading
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from paddler.net.http import Response, text
from paddler.proto.events import Headers, RequestHead

ANY_HOST: Final = "*"
ALLOWED_HOST_FLAG: Final = "--web-admin-panel-allowed-host"

# Names that the public DNS cannot hold: RFC 6761, 6762, 8375, 9476, ICANN's .internal, and what
# home and office networks use.
PRIVATE_SUFFIXES: Final = (
    ".localhost",
    ".local",
    ".internal",
    ".home.arpa",
    ".test",
    ".lan",
    ".localdomain",
    ".home",
    ".corp",
    ".mail",
    ".intranet",
    ".private",
    ".alt",
)
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_HOST_FIELD: Final = re.compile(
    r"(?P<name>\[[0-9a-f:.]+(?:%[0-9a-z._~-]+)?\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{0,5}))?",
    re.IGNORECASE,
)


def split_host_field(field: str) -> tuple[str, int | None] | None:
    """Name (lower case, no brackets, no dot at its end) and port of a ``Host`` field.

    ``None``: it is no host, such as one with a user's name before it (RFC 9110 §7.2).
    """
    match = _HOST_FIELD.fullmatch(field.strip(" \t"))
    if match is None:
        return None
    name = match["name"].lower().strip("[]").removesuffix(".")
    if not name or "" in name.split("."):
        return None
    return name, int(match["port"]) if match["port"] else None


def is_name_of_ours(name: str, allowed_names: Collection[str]) -> bool:
    """Whether no stranger can make the host ``name`` point here."""
    if ANY_HOST in allowed_names or name in allowed_names or "." not in name:
        return True  # an IPv6 address has no dot, or is one of the next kind
    return name.endswith(PRIVATE_SUFFIXES) or is_address(name)


def is_address(name: str) -> bool:
    """Whether ``name`` is an IP address: browsers resolve nothing for it."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_from_own_page(headers: Headers) -> bool:
    """Whether a request comes from the panel's own page, or from no web page at all."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")  # the browser knows best, whatever proxies did
    origin = headers.get("origin")
    if origin is None:
        return True
    own = {headers.get("host", ""), *headers.tokens("x-forwarded-host")}
    return is_same_host(origin, own)


def is_same_host(origin: str, own_fields: Collection[str]) -> bool:
    """Whether ``origin`` has the host and port of one of these ``Host`` fields.

    A page cannot forge them: ``X-Forwarded-Host`` would need leave from a preflight. A port
    that is left out is the one that the origin's scheme has, since TLS may end at a proxy.
    """
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    default = DEFAULT_PORTS.get(parts.scheme)
    if default is None or not parts.hostname or parts.username is not None:
        return False
    wanted = (parts.hostname.removesuffix("."), port or default)
    for field in own_fields:
        own = split_host_field(field)
        if own is not None and (own[0], own[1] or default) == wanted:
            return True
    return False


class PanelGuard:
    """Refuses what is not meant for this panel, before its body is read."""

    def __init__(self, allowed_names: Collection[str]) -> None:
        self._allowed_names = {*allowed_names}

    def learn_own_names(self) -> None:
        """Allow what this machine calls itself. DNS may take its time, so nobody waits for it."""
        self._allowed_names.add(socket.gethostname().lower())

        def look_up() -> None:
            self._allowed_names.add(socket.getfqdn().lower())

        threading.Thread(target=look_up, name="own-name", daemon=True).start()

    def __call__(self, head: RequestHead) -> Response | None:
        """The refusal of a request; ``None``: it may go on."""
        field = head.headers.get("host")
        if field is not None:  # HTTP/1.0 may leave it out; no browser does
            host = split_host_field(field)
            if host is None or not is_name_of_ours(host[0], self._allowed_names):
                return text(421, explain_foreign_host(field, host[0] if host else None))
        if head.method not in SAFE_METHODS and not is_from_own_page(head.headers):
            return text(403, explain_foreign_page(head.headers))
        return None


def explain_foreign_host(field: str, name: str | None) -> str:
    """What was asked for, and how it can be allowed."""
    if name is None:
        return f"the Host field {field[:200]!r} is no host name with or without a port"
    return (
        f"the host name {name[:200]!r} is not known to be this panel's. Open the panel by the "
        f"machine's IP address or own name, or start the balancer with {ALLOWED_HOST_FLAG} "
        f"{name[:200]} (a proxy in front may also send another Host)"
    )


def explain_foreign_page(headers: Headers) -> str:
    """Whose request it is, and what would be the panel's."""
    origin = headers.get("origin", "another site")
    return (
        f"this request comes from a page of {origin[:200]!r}, and only the panel's own page may "
        f"send it: its origin has the host {headers.get('host', '')[:200]!r}. A proxy in front "
        "has to pass Host, or send X-Forwarded-Host"
    )
