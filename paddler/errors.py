"""Every error that Paddler raises on purpose, in three families.

``ClientError``: whoever called made a mistake. ``RemoteProtocolError``: the peer on
a connection broke the protocol. Anything else is a bug of ours and is left to crash
the task that owns it. Messages are for people: what was seen, what is allowed, what
to do. ``status`` and ``code`` are for programs and stay stable.
"""


class PaddlerError(Exception):
    """Base of all errors raised on purpose."""

    status: int = 500
    code: str = "internal_error"


class ClientError(PaddlerError):
    """The caller asked for something that cannot be."""

    status = 400
    code = "bad_request"

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status
        if code is not None:
            self.code = code


class RemoteProtocolError(PaddlerError):
    """The peer broke the protocol; the connection cannot go on.

    ``status`` is the HTTP status to answer with where an answer is still possible,
    ``close_code`` the WebSocket close code (RFC 6455 §7.4.1).
    """

    status = 400
    code = "protocol_error"
    close_code: int = 1002

    def __init__(self, message: str, *, status: int = 400, close_code: int = 1002) -> None:
        super().__init__(message)
        self.status = status
        self.close_code = close_code


class ConfigError(PaddlerError):
    """The command line, environment or a file asks for something that cannot be (exit 2)."""

    code = "bad_config"


class StartError(PaddlerError):
    """The process cannot start or go on: a taken port, an unreadable state file (exit 1)."""

    code = "cannot_start"
