"""A file server, and the environment without what would lead away from it."""

import os
from collections.abc import Iterator

import pytest

from tests.hub import FileServer

LEADS_AWAY = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server of files and of Hub repositories on the loopback interface."""
    with FileServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may be behind a proxy."""
    for name in LEADS_AWAY:
        for variant in (name, name.upper()):
            if variant in os.environ:
                monkeypatch.delenv(variant)
