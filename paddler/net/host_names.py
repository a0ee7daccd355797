"""Which host names a stranger can make point here, by the public DNS."""

import ipaddress
import socket
import threading
from collections.abc import Collection
from typing import Final

ANY_HOST: Final = "*"

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


def learn_own_names(names: set[str]) -> None:
    """Add what this machine calls itself. DNS may take its time, so nobody waits for it."""
    names.add(socket.gethostname().lower())

    def look_up() -> None:
        names.add(socket.getfqdn().lower())

    threading.Thread(target=look_up, name="own-name", daemon=True).start()


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
