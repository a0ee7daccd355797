"""The compiled hot path and its plain twin, and how to compare what they do."""

from collections.abc import Callable

import pytest

from paddler import _fastpath
from paddler.errors import RemoteProtocolError
from tests import fastpath_twin

IMPLS = [pytest.param(_fastpath, id="c"), pytest.param(fastpath_twin, id="py")]


def outcome(call: Callable[..., object], *args: object, **kwargs: object) -> object:
    """The result of a call, or else what is promised about its error."""
    try:
        return call(*args, **kwargs)
    except RemoteProtocolError as error:
        return RemoteProtocolError, error.status, error.close_code
    except (BufferError, IndexError, OverflowError, TypeError, ValueError) as error:
        return type(error)
