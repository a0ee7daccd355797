"""Who may talk to the panel's listener: the panel's own page, by a name that is the panel's.

There is no login, so two things keep other web pages of an operator's browser out:

- DNS rebinding: a page whose name suddenly resolves to this machine speaks to it as its own
  origin, and only ``Host`` tells. Names that an attacker can own in the public DNS are
  refused, unless a flag allows them.
- Cross-site requests: what changes or costs something has to come from the panel's own origin.
  Programs that are no browsers say nothing of where they come from, and are let in.
"""

from collections.abc import Collection
from typing import Final

from paddler.net.host_names import is_name_of_ours, learn_own_names
from paddler.net.http import Response, text
from paddler.net.origins import is_from_own_page, split_host_field
from paddler.proto.events import Headers, RequestHead

ALLOWED_HOST_FLAG: Final = "--web-admin-panel-allowed-host"
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})


class PanelGuard:
    """Refuses what is not meant for this panel, before its body is read."""

    def __init__(self, allowed_names: Collection[str]) -> None:
        self._allowed_names = {*allowed_names}

    def learn_own_names(self) -> None:
        """Allow what this machine calls itself, as soon as it is known."""
        learn_own_names(self._allowed_names)

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
