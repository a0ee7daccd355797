"""TLS as listeners and dialling agents use it: 1.2 or newer, Python's own choice of ciphers."""

import contextlib
import ssl
from collections.abc import Iterator

from paddler.config import ClientTls, ServerTls
from paddler.errors import ConfigError


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """For a listener; :class:`ConfigError` names the file that is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    with _explained(f"{tls.flag}-cert", f"{tls.cert} with the key {tls.key}"):
        # Never asks at the terminal for the key's passphrase.
        context.load_cert_chain(tls.cert, tls.key, password=_no_password)
    if tls.client_ca is not None:
        with _explained(f"{tls.flag}-client-ca", tls.client_ca):
            context.load_verify_locations(tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def reload_context(context: ssl.SSLContext, tls: ServerTls) -> None:
    """Read the files of a listener's context again: handshakes to come use them.

    What cannot be used leaves the context as it was. A context made anew, as OpenSSL keeps one
    certificate for each type of key: one of another type would only join the old one.
    """
    fresh = server_context(tls)

    def take(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = fresh

    context.sni_callback = take  # called for each handshake, with a name or without


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """For who dials: against the system's authorities, or only those of ``ca``."""
    context = ssl.create_default_context() if tls.ca is None else _pinned(tls)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert is not None:
        with _explained(f"{tls.flag}-client-cert", f"{tls.cert} with the key {tls.key}"):
            context.load_cert_chain(tls.cert, tls.key, password=_no_password)
    return context


def _pinned(tls: ClientTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with _explained(f"{tls.flag}-ca", str(tls.ca)):
        context.load_verify_locations(tls.ca)
    return context


def tls_reason(error: ssl.SSLError) -> str:
    """What went wrong in a handshake, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    reason = (error.reason or "").lower().replace("_", " ")
    return reason or str(error)


def _no_password() -> str:
    return ""


@contextlib.contextmanager
def _explained(flag: str, what: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise ConfigError(f"{flag}: {what} cannot be used: {tls_reason(error)}") from error
    except OSError as error:
        raise ConfigError(f"{flag}: {what} cannot be read: {error.strerror}") from error
