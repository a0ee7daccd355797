"""Flags of who may call a balancer, and by what."""

import argparse
from collections.abc import Callable
from typing import Final

from paddler.config import Access, ServerTls
from paddler.errors import ConfigError

TLS_LISTENERS: Final = ("management", "inference", "compat-openai", "web-admin-panel")


def add_access(role: argparse.ArgumentParser, count: Callable[[str], int]) -> None:
    """Add them. ``count`` reads a number."""
    access = role.add_argument_group(
        "access", "SIGHUP reads these files again, where any is given; else it stops the balancer"
    )
    access.add_argument(
        "--inference-api-key-file",
        metavar="FILE",
        help="who calls the inference and OpenAI services sends a key of this file: KEY or NAME "
        "KEY a line (off: anybody may)",
    )
    access.add_argument(
        "--management-token-file",
        metavar="FILE",
        help="the same for the management service, the panel and agents (off: anybody may)",
    )
    access.add_argument(
        "--max-requests-per-key",
        metavar="N",
        type=count,
        default=0,
        help="requests of one key that may be under way at once; 0: any number "
        "(default: %(default)s)",
    )
    access.add_argument(
        "--max-buffered-requests-per-key",
        metavar="N",
        type=count,
        default=0,
        help="requests of one key that may wait at once (default: half of --max-buffered-requests "
        "where there are several keys)",
    )
    for name in TLS_LISTENERS:
        for part, what in (("cert", "certificate chain"), ("key", "private key")):
            access.add_argument(f"--{name}-tls-{part}", metavar="PEM", help=f"{what} of {name}")
    access.add_argument(
        "--management-tls-client-ca",
        metavar="PEM",
        help="who dials management needs a certificate of one of these authorities",
    )


def access_of(arguments: argparse.Namespace) -> Access:
    """Whose keys are asked for, and what one key may have."""
    return Access(
        api_key_file=arguments.inference_api_key_file,
        management_token_file=arguments.management_token_file,
        requests_per_key=arguments.max_requests_per_key,
        waiting_per_key=arguments.max_buffered_requests_per_key,
    )


def listeners_tls(arguments: argparse.Namespace) -> dict[str, ServerTls]:
    """Certificates by the flag of their listener; :class:`ConfigError` for half a pair."""
    given = {}
    for name in TLS_LISTENERS:
        flag = f"--{name}-tls"
        values = vars(arguments)
        cert, key = (values[f"{name}_tls_{part}".replace("-", "_")] for part in ("cert", "key"))
        if (cert is None) != (key is None):
            missing = "key" if key is None else "cert"
            raise ConfigError(f"{flag}-{missing} is missing: certificate and key go together")
        if cert is not None:
            client_ca = arguments.management_tls_client_ca if name == "management" else None
            given[f"--{name}-addr"] = ServerTls(flag, cert, key, client_ca)
    if arguments.management_tls_client_ca is not None and "--management-addr" not in given:
        raise ConfigError(
            "--management-tls-client-ca needs --management-tls-cert and --management-tls-key"
        )
    return given
