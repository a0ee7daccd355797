"""One origin for all cases."""

from collections.abc import Iterator

import pytest

from tests.smuggling.origin import Origin, running


@pytest.fixture(scope="session")
def origin() -> Iterator[Origin]:
    """What the requests are for."""
    with running() as origin:
        yield origin
