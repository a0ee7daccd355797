"""A fleet of 200 agents with 8 slots each: the page stays smooth, and touches what changed only."""

import asyncio
from collections.abc import Iterator

import pytest
from selenium import webdriver

from tests.panel.browser import Page, clean_page
from tests.panel.staged import StagedFleet

pytestmark = pytest.mark.slow

AGENTS = 200
SLOTS = 8

# Which rows change in a second, and how long the page was not free at a time.
WATCH = """
const done = arguments[0];
const rows = new Set();
const observer = new MutationObserver((records) => {
  for (const record of records) {
    const target = record.target;
    const row = (target instanceof Element ? target : target.parentElement)?.closest("tr");
    if (row) rows.add(row.dataset.agent);
  }
});
observer.observe(document.querySelector("[data-part=rows]"), {
  subtree: true, childList: true, attributes: true, characterData: true,
});
let frames = 0, longest = 0, before = performance.now();
const until = before + 2000;
requestAnimationFrame(function frame(now) {
  frames += 1;
  longest = Math.max(longest, now - before);
  before = now;
  if (now < until) requestAnimationFrame(frame);
  else { observer.disconnect(); done({ rows: [...rows], frames, longest }); }
});
"""


@pytest.fixture(scope="module")
def large() -> Iterator[StagedFleet]:
    with StagedFleet() as fleet:
        for number in range(AGENTS):
            fleet.join(f"id-{number:03}", f"gpu-{number:03}", slots=SLOTS)
        fleet.describe_all()
        yield fleet


@pytest.fixture
def page(browser: webdriver.Chrome, large: StagedFleet) -> Iterator[Page]:
    with clean_page(browser, large.panel) as page:
        yield page


def test_rows_of_agents_that_change_are_touched_and_no_others(
    page: Page, large: StagedFleet
) -> None:
    page.open("/")
    page.wait(lambda: len(page.all("tr[data-agent]")) == AGENTS, "all agents are listed")
    page.find(".count", f"{AGENTS} of {AGENTS} agents shown")

    async def change() -> None:
        for number in range(20):
            large.agents["id-007"].report(slots_total=number % SLOTS)
            large.agents["id-113"].report(slots_total=number % SLOTS)
            await asyncio.sleep(0.1)

    changing = asyncio.run_coroutine_threadsafe(change(), large._loop)
    seen = page.driver.execute_async_script(WATCH)
    changing.result()
    for agent_id in ("id-007", "id-113"):
        large.do(large.agents[agent_id].report, slots_total=SLOTS)
    # Their own details come every few seconds from all of them, and change nothing that is shown.
    assert set(seen["rows"]) == {"id-007", "id-113"}


def test_the_page_stays_smooth_while_every_slot_works(page: Page, large: StagedFleet) -> None:
    page.open("/")
    large.occupy(AGENTS * SLOTS // 2)
    large.babble(1)
    page.wait(lambda: f"{AGENTS * SLOTS // 2} / " in page.text(".tiles"), "half of the slots work")
    seen = page.driver.execute_async_script(WATCH)
    print(f"frames in 2 s: {seen['frames']}, longest {seen['longest']:.0f} ms")
    assert len(seen["rows"]) > AGENTS / 2
    # A busy machine draws fewer frames; a page that does too much draws nearly none.
    assert seen["frames"] > 10
    page.fill("[data-part=search]", "gpu-199")
    page.wait(lambda: len(page.all("tr[data-agent]")) == 1, "one is found")
    large.release()
    page.find("tr[data-agent] .slots[aria-label^='0 of']")
