"""The keys and certificates of a balancer's listeners, read at its start and again when told."""

import ipaddress
import logging
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

from paddler.balancer.services.access import KeyCheck
from paddler.config import Access, Address, BalancerConfig, ServerTls
from paddler.errors import ConfigError
from paddler.keys import Keys
from paddler.tls import reload_context, server_context

log = logging.getLogger(__name__)

INFERENCE_KEYS_FLAG: Final = "--inference-api-key-file"
MANAGEMENT_KEYS_FLAG: Final = "--management-token-file"


class Protection:
    """What keeps callers out. :class:`ConfigError` for files that cannot be used."""

    def __init__(self, config: BalancerConfig) -> None:
        access = config.access
        self._access: Access = access
        self._most_waiting = config.buffering.max_requests
        self._api_keys = _keys(access.api_key_file, INFERENCE_KEYS_FLAG)
        self._tokens = _keys(access.management_token_file, MANAGEMENT_KEYS_FLAG)
        self._tls: dict[str, tuple[ServerTls, ssl.SSLContext]] = {
            flag: (tls, server_context(tls)) for flag, tls in config.tls.items()
        }

    @property
    def is_reloadable(self) -> bool:
        """Whether there is any file to read again."""
        return bool(self._tls) or self._api_keys is not None or self._tokens is not None

    @property
    def api_key_check(self) -> KeyCheck | None:
        """For the inference and OpenAI listeners."""
        return None if self._api_keys is None else KeyCheck(self._api_keys, what="an API key")

    @property
    def token_check(self) -> KeyCheck | None:
        """For the management listener."""
        return None if self._tokens is None else KeyCheck(self._tokens, what="a management token")

    @property
    def panel_check(self) -> KeyCheck | None:
        """For the panel, where browsers ask for the token as a password."""
        if self._tokens is None:
            return None
        return KeyCheck(self._tokens, what="a management token", for_browsers=True)

    def tls(self, flag: str) -> ssl.SSLContext | None:
        """For the listener of this flag."""
        return self._tls[flag][1] if flag in self._tls else None

    def waiting_per_key(self) -> int:
        """Most requests of one key that may wait: half the buffer, unless one has it alone."""
        if self._access.waiting_per_key:
            return self._access.waiting_per_key
        if self._api_keys is None or len(self._api_keys) < 2:
            return 0
        return max(1, self._most_waiting // 2)

    def reload(self) -> None:
        """Read all files again. What cannot be used is told, and what was there stays in force."""
        reloads = [keys.reload for keys in (self._api_keys, self._tokens) if keys is not None]
        reloads += [partial(reload_context, context, tls) for tls, context in self._tls.values()]
        were_read = [_has_read(reload) for reload in reloads]
        if all(were_read):
            log.info("read keys and certificates again")

    def warn(self, flag: str, address: Address, *, has_keys: bool) -> None:
        """Say so once where a listener that others can reach is open to all of them."""
        if _is_loopback(address.host):
            return
        tls = self._tls.get(flag)
        if not has_keys and (tls is None or tls[0].client_ca is None):
            log.warning(
                "%s %s can be reached from other machines and asks nobody who they are; see "
                "SECURITY.md, or listen on 127.0.0.1",
                flag,
                address.text,
            )
        elif tls is None:
            log.warning(
                "%s %s takes keys without TLS: whoever sees the network sees them",
                flag,
                address.text,
            )


def _keys(path: str | None, flag: str) -> Keys | None:
    if path is None:
        return None
    keys = Keys(path, flag=flag)
    if keys.is_open_to_others:
        log.warning("%s: %s can be read by other users of this machine: chmod 600", flag, path)
    return keys


def _has_read(reload: Callable[[], None]) -> bool:
    try:
        reload()
    except ConfigError as error:
        log.error("%s; what was read before stays in force", error)
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
