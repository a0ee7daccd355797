"""One browser and one fleet with the real model for all tests of the panel."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from tests.e2e.fleet import PATIENT, Fleet
from tests.panel.browser import Page, clean_page, running_browser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "panel" in item.path.parts and "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Headless Chromium."""
    with running_browser(tmp_path_factory.mktemp("browser")) as chrome:
        yield chrome


@pytest.fixture(scope="session")
def panel_fleet(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path) -> Iterator[Fleet]:
    """A balancer and one agent of 4 slots that serves SmolLM2."""
    with Fleet(tmp_path_factory.mktemp("panel-fleet"), *PATIENT) as fleet:
        fleet.start_agent("agent-1", 4)
        fleet.put_model(smollm2_path, context_size=4096)
        fleet.wait_slots(4)
        yield fleet


@pytest.fixture
def fleet(panel_fleet: Fleet) -> Iterator[Fleet]:
    """The shared fleet, idle and serving before the test and after it."""
    panel_fleet.wait_idle()
    yield panel_fleet
    panel_fleet.wait_slots(4)
    panel_fleet.wait_idle()


@pytest.fixture
def page(browser: webdriver.Chrome, fleet: Fleet) -> Iterator[Page]:
    """A tab on the shared fleet's panel; the browser has nothing to complain of at the end."""
    with clean_page(browser, fleet.panel) as page:
        yield page
