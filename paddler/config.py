"""What a process is told at its start: frozen, checked, grouped by topic. No I/O."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from paddler.errors import ConfigError
from paddler.messages.link import MAX_MESSAGE_BYTES, MAX_NAME_CHARACTERS

DEFAULT_MANAGEMENT_ADDR: Final = "127.0.0.1:8060"
DEFAULT_INFERENCE_ADDR: Final = "127.0.0.1:8061"
DEFAULT_PANEL_ADDR: Final = "127.0.0.1:8062"
DEFAULT_OPENAI_ADDR: Final = "127.0.0.1:8070"
MAX_SLOTS: Final = 1024
MIN_BODY_BYTES: Final = 1024
MAX_BODY_BYTES: Final = MAX_MESSAGE_BYTES - 1024 * 1024

_DURATION = re.compile(r"([0-9]{1,15})(ms|s|m|h)?")
_UNIT_MS: Final = {None: 1, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


class Address(msgspec.Struct, frozen=True):
    """Where to listen or to dial. ``text`` is what was typed, ``host`` what it resolved to."""

    text: str
    host: str
    port: int


class Buffering(msgspec.Struct, frozen=True):
    """How long requests wait, and how many. ``max_requests`` 0: nobody waits."""

    max_requests: int
    timeout_ms: int
    item_timeout_ms: int


class Statsd(msgspec.Struct, frozen=True):
    """Where gauges are sent, how often, and what opens their names."""

    address: Address | None
    prefix: str
    interval_ms: int


class ServerTls(msgspec.Struct, frozen=True):
    """Paths of a listener's certificate chain and key. ``flag`` opens the names of their flags.

    ``client_ca``: who dials needs a certificate of one of these authorities.
    """

    flag: str
    cert: str
    key: str
    client_ca: str | None = None


class ClientTls(msgspec.Struct, frozen=True):
    """How a service is dialled by TLS. ``ca``: no other authority is trusted, the system's neither.

    ``flag`` opens the names of the flags that say so.
    """

    flag: str
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class Dialling(msgspec.Struct, frozen=True):
    """What is shown to a service that is dialled: a key of a file, a certificate; or nothing."""

    key_flag: str = ""
    key_file: str | None = None
    tls: ClientTls | None = None


class Access(msgspec.Struct, frozen=True):
    """Who may call: paths of files of keys; ``None``: anybody.

    ``requests_per_key``, ``waiting_per_key``: most that run and wait at once; 0: no limit.
    """

    api_key_file: str | None = None
    management_token_file: str | None = None
    requests_per_key: int = 0
    waiting_per_key: int = 0


class BalancerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that ``paddler balancer`` is told. ``tls``: by the flag of the listener.

    ``prefix_affinity``: of equally busy agents, prefer one that holds a prompt's beginning.
    """

    management: Address
    inference: Address
    openai: Address | None
    panel: Address | None
    buffering: Buffering
    inference_origins: frozenset[str]
    management_origins: frozenset[str]
    panel_hosts: frozenset[str]
    """Names that the panel answers to beside its own; ``*``: any."""
    access: Access
    tls: Mapping[str, ServerTls]
    state_database: str
    statsd: Statsd
    max_body_bytes: int
    prefix_affinity: bool
    drain_timeout_ms: int


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that ``paddler agent`` is told.

    ``kv_unified``: all slots share the context; else each has an equal part of it.
    """

    management: Address
    slots: int
    kv_unified: bool
    name: str | None
    dialling: Dialling
    drain_timeout_ms: int


def split_address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``; :class:`ConfigError` otherwise."""
    host, colon, port_text = text.rpartition(":")
    if "/" in text:
        raise ConfigError(f"{text!r}: expected host:port alone, for example 127.0.0.1:8060")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{text!r}: write an IPv6 address in brackets, as in [::1]:8060")
    if not colon or not host:
        raise ConfigError(f"{text!r}: expected host:port, for example 127.0.0.1:8060")
    if host == "*":  # some resolvers take it for a name
        raise ConfigError(f"{text!r}: * is no host; 0.0.0.0 or [::] listens on all addresses")
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or int(port_text) > 65535:
        raise ConfigError(f"{text!r}: the port must be a number from 0 to 65535")
    return host, int(port_text)


def join_address(host: str, port: int) -> str:
    """``host:port``, or ``[v6]:port``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_host_name(text: str) -> str:
    """A host name alone, in lower case, or ``*``."""
    if text != "*" and not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", text):
        raise ConfigError(
            f"{text!r}: expected a host name without scheme and port, for example "
            "panel.example.com, or * for any"
        )
    return text.lower().removesuffix(".")


def parse_duration_ms(text: str) -> int:
    """Milliseconds of ``1500``, ``1500ms``, ``3s``, ``5m`` or ``1h``."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{text!r}: expected milliseconds such as 1500, or a number with ms, s, m or h"
        )
    return int(match[1]) * _UNIT_MS[match[2]]


def parse_state_database(text: str) -> str:
    """``text`` if it names a state database: ``memory://`` or ``file:///absolute/path``."""
    if text.startswith("memory:"):
        return "memory://"
    if not text.startswith("file://"):
        raise ConfigError(f"{text!r}: expected memory:// or file:///absolute/path/to/state.json")
    path = text.removeprefix("file://").strip()
    if not path.startswith("/"):
        hint = path.removeprefix("~/").lstrip("/") or "paddler-state.json"
        raise ConfigError(
            f"{text!r}: the path must be absolute, for example file:///var/lib/{hint}"
        )
    return f"file://{path}"


def parse_name(text: str) -> str:
    """An agent's label, of a length and of characters that tables and logs can show."""
    if not text.isprintable() or not text.strip():
        raise ConfigError(f"{text!r}: expected a name of printable characters")
    if len(text) > MAX_NAME_CHARACTERS:
        raise ConfigError(
            f"a name of {len(text)} characters: expected at most {MAX_NAME_CHARACTERS}"
        )
    return text


def parse_slots(text: str) -> int:
    """A number of slots, at least 1."""
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_SLOTS:
        raise ConfigError(f"{text!r}: expected a number of slots from 1 to {MAX_SLOTS}")
    return int(text)
