"""One fleet with the real model for all tests that leave it as it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.openai_tap import Tap
from tests.e2e.fleet import PATIENT, Fleet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def shared_fleet(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path) -> Iterator[Fleet]:
    """A balancer and one agent of 4 slots that serves SmolLM2."""
    with Fleet(tmp_path_factory.mktemp("fleet"), *PATIENT) as fleet:
        fleet.start_agent("agent-1", 4)
        fleet.put_model(smollm2_path, context_size=4096)
        fleet.wait_slots(4)
        yield fleet


@pytest.fixture
def fleet(shared_fleet: Fleet) -> Iterator[Fleet]:
    """The shared fleet, idle before the test and idle again after it."""
    shared_fleet.wait_idle()
    yield shared_fleet
    shared_fleet.wait_idle()
    assert shared_fleet.slots_ready() == 4
    assert shared_fleet.buffered() == 0


@pytest.fixture
def tap(fleet: Fleet) -> Iterator[Tap]:
    """A way to the shared fleet's OpenAI-compatible service on which every answer is checked."""
    with Tap(fleet.openai) as tap:
        yield tap
