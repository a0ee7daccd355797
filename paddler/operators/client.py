"""Talks HTTP to a balancer, for commands that end after it."""

import contextlib
import http.client
import json
import os
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from paddler.config import Address, Dialling, split_address
from paddler.errors import StartError
from paddler.keys import read_key
from paddler.text import printable
from paddler.tls import client_context, tls_reason

TIMEOUT_S: Final = 10.0
"""For a connection, and between two pieces of a short answer: whoever is slower hangs."""
SILENCE_S: Final = 35.0
"""Between two lines of an event stream: it says something every 10 s, be it nothing new."""
DIAL_AGAIN_S: Final = 1.0

OPENLY: Final = Dialling()

_PIECE_BYTES: Final = 1 << 16


class BalancerGone(StartError):
    """The balancer cannot be reached, or its answer broke off."""


class Client:
    """One service of a balancer. ``flag`` is where its address was given.

    All methods raise :class:`StartError` with one line for people.
    """

    def __init__(self, address: Address, *, flag: str, dialling: Dialling = OPENLY) -> None:
        """:class:`ConfigError` for files of ``dialling`` that cannot be used."""
        self._address = address
        self._flag = flag
        self._tls = client_context(dialling.tls) if dialling.tls is not None else None
        self._headers = {}
        if dialling.key_file is not None:
            key = read_key(dialling.key_file, flag=dialling.key_flag)
            self._headers["authorization"] = f"Bearer {key}"
        self._where = address.text

    def get(self, path: str) -> Any:
        """The JSON document at ``path``."""
        return self._request("GET", path)

    def put(self, path: str, document: Any) -> None:
        """Replace what is at ``path``."""
        self._request("PUT", path, document)

    def post(self, path: str, document: Any = None) -> Any:
        """Act; the answer's document, if it has one."""
        return self._request("POST", path, document)

    def stream(self, path: str, document: Any) -> Iterator[Any]:
        """The documents of a streamed answer, one a line, which may take as long as it likes."""
        with self._open("POST", path, document, timeout_s=None) as response:
            for line in _lines(response):
                yield self._decode(line)

    def follow(self, path: str) -> Iterator[Any]:
        """The documents of an event stream, for ever: dials again when the balancer is gone.

        What came meanwhile is caught up with, where events have ids.
        """
        last_id: str | None = None
        has_begun = False
        while True:
            headers = {} if last_id is None else {"last-event-id": last_id}
            try:
                with self._open("GET", path, headers=headers, timeout_s=SILENCE_S) as response:
                    has_begun = True
                    for line in _lines(response):
                        field, _, value = line.partition(": ")
                        if field == "id":
                            last_id = value
                        elif field == "data":
                            yield self._decode(value)
                raise BalancerGone(f"the balancer at {self._where} ended the stream")
            except BalancerGone as error:
                if not has_begun:
                    raise
                print(f"{error}; dialling again", file=sys.stderr)
            self._wait_back()
            print(f"the balancer at {self._where} is back", file=sys.stderr)

    def _wait_back(self) -> None:
        while True:
            time.sleep(DIAL_AGAIN_S)
            try:
                with self._open("GET", "/health", timeout_s=TIMEOUT_S):
                    return
            except BalancerGone:
                pass

    def _request(self, method: str, path: str, document: Any = None) -> Any:
        with self._open(method, path, document, timeout_s=TIMEOUT_S) as response:
            body = response.read()
        return self._decode(body) if body else None

    def _decode(self, text: str | bytes) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self.stranger() from None

    def stranger(self) -> StartError:
        """The error of an answer that no balancer gives."""
        return StartError(
            f"what answers at {self._where} is no balancer of this version; "
            f"is this its address? ({self._flag})"
        )

    @contextlib.contextmanager
    def _open(
        self,
        method: str,
        path: str,
        document: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None,
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer whose body is yet to come. ``timeout_s``: between two pieces of it."""
        connection = self._connection()
        with contextlib.closing(connection):
            try:
                connection.connect()
                connection.sock.settimeout(timeout_s)
                given = {**self._headers, **(headers or {})}
                response = _exchange(connection, method, path, document, given)
            except (OSError, http.client.HTTPException) as error:
                raise BalancerGone(
                    f"cannot reach the balancer at {self._where}: {_reason(error)}; is it "
                    f"running, and is this its address? ({self._flag})"
                ) from error
            try:
                if response.status >= HTTPStatus.BAD_REQUEST:
                    raise self._refusal(response)
                yield response
            except (OSError, http.client.HTTPException) as error:
                raise BalancerGone(
                    f"lost the balancer at {self._where}: {_reason(error)}"
                ) from error

    def _connection(self) -> http.client.HTTPConnection:
        # By its name: it may have several addresses, and a certificate is of a name mostly.
        host, port = split_address(self._address.text)
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=self._tls)

    def _refusal(self, response: http.client.HTTPResponse) -> StartError:
        text = response.read().decode(errors="replace").strip()
        is_text = response.headers.get_content_type() == "text/plain"
        if response.status == HTTPStatus.NOT_FOUND and not (text and is_text):
            return self.stranger()  # a balancer's unknown paths have no body
        return StartError(f"the balancer answered {response.status}: {text or response.reason}")


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    document: Any,
    headers: Mapping[str, str],
) -> http.client.HTTPResponse:
    body = None if document is None else json.dumps(document)
    content_type = {} if body is None else {"content-type": "application/json"}
    # Who refuses a body need not read it; the answer is there all the same.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request(method, path, body, {**headers, **content_type})
    return connection.getresponse()


def _lines(response: http.client.HTTPResponse) -> Iterator[str]:
    """The lines of a body, each as soon as it is there; ``HTTPException`` if it breaks off.

    Iterating over the response itself takes an end in mid-body for the end of the body.
    """
    rest = b""
    while piece := response.read1(_PIECE_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def _reason(error: Exception) -> str:
    """What the system says, without its number."""
    if isinstance(error, ssl.SSLError):
        return tls_reason(error)
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, http.client.IncompleteRead):
        return "its answer broke off"
    return printable(str(error).strip()) or type(error).__name__
