"""Talks HTTP to a balancer, for commands that end after it."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

from paddler.config import Address, join_address
from paddler.errors import StartError

TIMEOUT_S: Final = 30.0


class Client:
    """One service of a balancer. ``flag`` is where its address was given.

    All methods raise :class:`StartError` with one line for people.
    """

    def __init__(self, address: Address, *, flag: str) -> None:
        self._address = address
        self._flag = flag

    def get(self, path: str) -> Any:
        """The JSON document at ``path``."""
        return self._request("GET", path)

    def put(self, path: str, document: Any) -> None:
        """Replace what is at ``path``."""
        self._request("PUT", path, document)

    def post(self, path: str, document: Any = None) -> Any:
        """Act; the answer's document, if it has one."""
        return self._request("POST", path, document)

    def lines(self, method: str, path: str, document: Any = None) -> Iterator[str]:
        """The lines of a streamed answer, until it ends."""
        with self._open(method, path, document, timeout_s=None) as response:
            for line in response:
                yield line.decode(errors="replace").rstrip("\r\n")

    def events(self, path: str) -> Iterator[Any]:
        """The documents of an event stream, until the balancer ends it."""
        for line in self.lines("GET", path):
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))

    def _request(self, method: str, path: str, document: Any = None) -> Any:
        with self._open(method, path, document, timeout_s=TIMEOUT_S) as response:
            body = response.read()
        return json.loads(body) if body else None

    @contextlib.contextmanager
    def _open(
        self, method: str, path: str, document: Any, *, timeout_s: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        address = self._address
        connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)
        body = None if document is None else json.dumps(document)
        headers = {} if body is None else {"content-type": "application/json"}
        where = join_address(address.host, address.port)
        with contextlib.closing(connection):
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise StartError(
                    f"cannot reach the balancer at {where}: {error}; is it running, "
                    f"and is this its address? ({self._flag})"
                ) from error
            if response.status >= HTTPStatus.BAD_REQUEST:
                reason = response.read().decode(errors="replace") or response.reason
                raise StartError(f"the balancer answered {response.status}: {reason}")
            try:
                yield response
            except (OSError, http.client.HTTPException) as error:
                raise StartError(f"lost the balancer at {where}: {error}") from error
