"""Reading JSON bodies and writing plain-text refusals, the way the native services do."""

import re
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from paddler.errors import ClientError
from paddler.net.http import Request

T = TypeVar("T")

JSON_TYPE: Final = re.compile(r"[^/;\s]+/(?:[^/;\s]+\+)?json\s*(?:;.*)?", re.IGNORECASE)


def read_json(request: Request, decode: Callable[[bytes], T]) -> T:
    """The request's body, decoded; :class:`ClientError` 400 that says what is wrong and where."""
    if not JSON_TYPE.fullmatch(request.headers.get("content-type") or ""):
        raise ClientError("Content type error", code="content_type")
    try:
        return decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClientError(f"Json deserialize error: {error}", code="json") from error
