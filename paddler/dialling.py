"""Flags of whoever dials a protected service: what to send, and whom to trust."""

import argparse
from typing import Final

from paddler.config import ClientTls, Dialling
from paddler.errors import ConfigError

SECRET_FILES: Final = {"management": "token", "inference": "api-key"}
"""What the service's keys are called, by the service."""


def add_dialling(role: argparse.ArgumentParser, service: str) -> None:
    """Add them for ``service``: ``management`` or ``inference``."""
    role.add_argument(
        f"--{service}-{SECRET_FILES[service]}-file",
        metavar="FILE",
        help="the first key of this file is sent along",
    )
    role.add_argument(
        f"--{service}-tls",
        action="store_true",
        help="dial by TLS, trusting the system's authorities",
    )
    role.add_argument(
        f"--{service}-tls-ca",
        metavar="PEM",
        help="dial by TLS, trusting these authorities and no other",
    )
    for part, what in (("cert", "certificate chain"), ("key", "private key")):
        role.add_argument(
            f"--{service}-tls-client-{part}", metavar="PEM", help=f"{what} to show by TLS"
        )


def dialling_of(arguments: argparse.Namespace, service: str) -> Dialling:
    """What they say; :class:`ConfigError` for half a pair of certificate and key."""
    given = vars(arguments)
    flag = f"--{service}-tls"
    cert, key = (given[f"{service}_tls_client_{part}"] for part in ("cert", "key"))
    if (cert is None) != (key is None):
        missing = "key" if key is None else "cert"
        raise ConfigError(f"{flag}-client-{missing} is missing: certificate and key go together")
    ca = given[f"{service}_tls_ca"]
    is_tls = given[f"{service}_tls"] or ca is not None or cert is not None
    secret = f"{service}_{SECRET_FILES[service]}_file".replace("-", "_")
    return Dialling(
        key_flag=f"--{secret.replace('_', '-')}",
        key_file=given[secret],
        tls=ClientTls(flag, ca, cert, key) if is_tls else None,
    )
