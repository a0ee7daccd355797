"""Where a request comes from, as browsers tell: ``Host``, ``Origin``, ``Sec-Fetch-Site``."""

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from paddler.proto.events import Headers

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
