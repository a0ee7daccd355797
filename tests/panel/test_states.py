"""The dashboard in every state that a fleet can be in, on a real balancer with played agents."""

from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from paddler.balancer.services import panel_stream
from paddler.messages.agents import AgentIssue, ModelPath, SlotError, TemplateError
from tests.panel.browser import NARROW, WIDE, Page, clean_page
from tests.panel.staged import StagedFleet

MODEL = {"HuggingFace": {"filename": "a/Tiny.gguf", "repo_id": "me/tiny", "revision": "main"}}
HOSTILE = '<script>document.title="owned"</script><img src=x onerror="document.title=1">'


@pytest.fixture
def staged() -> Iterator[StagedFleet]:
    """A balancer of its own, without agents; three requests may wait."""
    with StagedFleet("--max-buffered-requests", "3", "--buffered-request-timeout", "60s") as fleet:
        yield fleet


@pytest.fixture
def page(browser: webdriver.Chrome, staged: StagedFleet) -> Iterator[Page]:
    with clean_page(browser, staged.panel) as page:
        yield page


def row(agent_id: str, name: str = "") -> str:
    part = f" [data-part={name}]" if name else ""
    return f"tr[data-agent={agent_id}]{part}"


def expect_lost_connections(page: Page) -> None:
    """The browser complains of connections that failed, and of nothing else."""
    assert [one for one in page.console() if "ERR_" not in one] == []


def test_without_agents_the_command_to_start_one_is_shown(page: Page, staged: StagedFleet) -> None:
    page.open("/")
    page.find("[data-part=agents-empty]", "No agent is connected yet.")
    command = f"paddler agent --management-addr 127.0.0.1:{staged.ports[0]} --slots 4"
    assert page.text(".guide .command code") == command
    assert "0.0.0.0" in page.text(".guide .note")
    page.find(".alerts li", "No model is chosen yet.")
    assert page.violations() == []
    staged.join("id-1", "gpu-1")
    page.find(row("id-1"))
    page.wait_gone("[data-part=agents-empty]")


def test_a_lost_balancer_is_told_and_found_again(page: Page, staged: StagedFleet) -> None:
    staged.join("id-1", "gpu-1")
    page.open("/")
    page.find(row("id-1"))
    staged.stop()
    page.find("#lost-banner", "The balancer does not answer.")
    page.find("#lost-countdown", "Trying again")
    page.wait(lambda: page.driver.title == "Balancer lost - Paddler", "the title")
    # What was known last is still there, but greyed.
    assert page.text(row("id-1", "name")) == "gpu-1"
    assert "is-stale" in str(page.find("main").get_attribute("class"))
    assert page.violations() == []
    page.wait(lambda: "Trying again in" in page.text("#lost-countdown"), "a countdown")
    staged.start()
    staged.join("id-2", "gpu-2")
    page.find("#connection", "Connected")
    page.find(row("id-2"))
    page.wait_gone(row("id-1"))
    page.wait_gone("#lost-banner")
    assert "is-stale" not in str(page.find("main").get_attribute("class"))
    expect_lost_connections(page)


def test_a_lost_balancer_is_found_again_by_itself(page: Page, staged: StagedFleet) -> None:
    page.open("/")
    page.find("[data-part=agents-empty]")
    staged.stop()
    page.find("#lost-banner")
    staged.start()
    page.find("#connection", "Connected")
    page.wait_gone("#lost-banner")
    expect_lost_connections(page)


def test_what_a_slot_has_of_a_divided_context_is_shown(page: Page, staged: StagedFleet) -> None:
    agent = staged.join("id-1", "gpu-1")
    page.open("/")
    for most, shown in ((None, "8,192 tokens"), (8192, "8,192 tokens"), (2048, "2,048 for each")):
        staged.do(agent.describe, slot_context_size=most)
        page.click(row("id-1", "name"))
        page.find("dialog[open] dd", shown)
        page.press(Keys.ESCAPE)
        page.wait_gone("dialog[open]")


def test_a_page_of_another_version_offers_the_new_one(
    page: Page, staged: StagedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.open("/")
    page.find("[data-part=agents-empty]")
    assert not page.all("#upgrade-banner")
    staged.stop()
    monkeypatch.setattr(panel_stream, "__version__", "9.9.9")
    staged.start()
    page.find("#version", "9.9.9")
    page.find("#upgrade-banner", "The balancer has another version now")
    assert page.violations() == []
    page.click("#reload")
    page.wait_gone("#upgrade-banner")
    page.find("[data-part=agents-empty]")
    expect_lost_connections(page)


def test_a_page_that_was_never_connected_says_so_and_tries_when_told(
    page: Page, staged: StagedFleet
) -> None:
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/api/v1/panel/stream"]})
    page.open("/")
    page.find("#lost-banner", "Nothing is known of the fleet yet.")
    # The next attempt is seconds away: who does not want to wait presses the button.
    page.wait(lambda: "again in 7 s" in page.text("#lost-countdown"), "a long countdown")
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.click("#retry")
    page.find("[data-part=agents-empty]")
    expect_lost_connections(page)


def test_a_page_that_cannot_be_loaded_says_so(page: Page, staged: StagedFleet) -> None:
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/static/dashboard.js"]})
    page.open("/")
    page.find("main", "This page could not be loaded.")
    assert page.console() != []
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.click("main button", "Load again")
    page.find("[data-part=agents-empty]")


def test_a_page_that_missed_its_balancer_loads_by_itself(page: Page, staged: StagedFleet) -> None:
    urls = ["*/static/dashboard.js", "*/api/v1/panel/stream"]
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": urls})
    page.open("/")
    page.find("main", "This page could not be loaded.")
    page.find("#lost-banner")
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.find("[data-part=agents-empty]")
    assert page.console() != []


def test_issues_are_told_in_words_with_what_to_do(page: Page, staged: StagedFleet) -> None:
    staged.put_model(MODEL)
    agent = staged.join(
        "id-1",
        "gpu-1",
        slots_total=0,
        model_path=None,
        state_application_status="Stuck",
        issues=(
            AgentIssue(model_file_does_not_exist=ModelPath("/m/none.gguf")),
            AgentIssue(slot_cannot_start=SlotError("out of memory", 3)),
        ),
    )
    page.open("/")
    page.find(row("id-1", "status"), "Stuck")
    page.find(".alerts li[data-alert=bad]", "1 agent cannot go on (stuck): gpu-1.")
    page.find(".event-text", "gpu-1: The agent's machine has no file /m/none.gguf")
    page.find(".event-text", "asked for a/Tiny.gguf of me/tiny, main")
    page.click(row("id-1", "issues"), "2 issues")
    dialog = page.find("dialog[open]")
    assert "Issues of gpu-1" in dialog.text
    assert "The agent's machine has no file /m/none.gguf" in dialog.text
    assert "Put the file there, or correct the path" in dialog.text
    assert "Slot 3 cannot start: out of memory" in dialog.text
    assert page.violations() == []
    # An issue that goes is marked, not whisked away under the reader's eyes.
    staged.do(agent.report, issues=(agent.status.issues[1],))
    page.find("dialog .solved", "Solved")
    assert len(page.all("dialog .solved")) == 1
    page.press(Keys.ESCAPE)
    page.find(row("id-1", "issues"), "1 issue")


def test_an_agent_that_needs_help_is_named(page: Page, staged: StagedFleet) -> None:
    staged.put_model(MODEL)
    template = TemplateError("line 2: expected 'endif'", ModelPath("/m/a.gguf"), "{% if %}\n")
    staged.join(
        "id-1",
        "gpu-1",
        state_application_status="AttemptedAndNotAppliable",
        issues=(AgentIssue(chat_template_does_not_compile=template),),
    )
    page.open("/")
    page.find(row("id-1", "status"), "Needs your help")
    page.click(row("id-1", "issues"))
    page.find("dialog h3", "line 2: expected 'endif'")
    page.click("dialog summary")
    page.find("dialog pre", "{% if %}")


def test_a_full_buffer_and_refused_requests_are_told(page: Page, staged: StagedFleet) -> None:
    staged.put_model(MODEL)
    staged.join("id-1", "gpu-1", slots=1)
    page.open("/")
    page.find(row("id-1"))
    staged.occupy(4)
    page.find(".alerts li[data-alert=buffer-full]", "The buffer is full: 3 requests wait")
    page.find(".tile", "3 / 3")
    staged.occupy(2)
    page.find(".alerts li[data-alert=failed]", "2 of 2 requests failed or were refused")
    staged.do(staged.running.balancer._chronicle.sum_refusals)
    page.find(".event-text", "2 requests were refused")
    page.find(".alerts li[data-alert=failed]", "2 found the buffer full")
    staged.release()
    page.wait_gone(".alerts li[data-alert=buffer-full]")


def test_a_download_is_shown_with_all_that_is_known(page: Page, staged: StagedFleet) -> None:
    agent = staged.join(
        "id-1",
        "gpu-1",
        slots_total=0,
        model_path=None,
        state_application_status="Fresh",
        download_filename="Tiny.gguf",
        download_current=50 * 1024**2,
        download_total=200 * 1024**2,
        download_indeterminate=False,
    )
    staged.do(agent.describe, phase="downloading", bytes_per_s=10 * 1024**2, seconds_left=15)
    page.open("/")
    page.find(row("id-1", "status"), "Downloading")
    words = "Tiny.gguf · 25 % · 50 MiB of 200 MiB · 10 MiB/s · 15 s left"
    page.find(row("id-1", "download-text"), words)
    bar = page.find(row("id-1", "progress"))
    assert float(bar.get_attribute("value")) / float(bar.get_attribute("max")) == 0.25
    assert page.violations() == []
    staged.do(agent.report, download_total=0, download_indeterminate=True)
    page.find(row("id-1", "download-text"), "50 MiB · size unknown")
    assert page.find(row("id-1", "progress")).get_dom_attribute("value") is None
    staged.do(agent.report, download_filename=None)
    staged.do(agent.describe, phase="loading", load_fraction=0.4)
    page.find(row("id-1", "status"), "Loading 40 %")
    page.wait_gone(row("id-1", "download"))


def test_an_agent_that_hangs_is_silent(page: Page, staged: StagedFleet) -> None:
    agent = staged.join("id-1", "gpu-1")
    staged.do(agent.describe)
    page.open("/")
    page.find(row("id-1", "status"), "Serving")
    agent.is_hanging = True
    page.find(row("id-1", "status"), "Silent")
    page.find(".alerts li", "1 agent cannot go on (silent): gpu-1.")
    agent.is_hanging = False
    page.find(row("id-1", "status"), "Serving")


def test_agents_without_a_name_or_with_the_same_are_told_apart(
    page: Page, staged: StagedFleet
) -> None:
    for agent_id, name in (
        ("aaaaaa-1", None),
        ("bbbbbb-2", ""),
        ("cccccc-3", "x"),
        ("dddddd", "x"),
    ):
        staged.join(agent_id, name)
    page.open("/")
    page.find(row("dddddd"))
    assert page.text(row("aaaaaa-1", "name")) == "unnamed aaaaaa"
    assert page.text(row("bbbbbb-2", "name")) == "unnamed bbbbbb"
    assert page.text(row("cccccc-3", "place")) == "cccccc"
    assert page.text(row("dddddd", "place")) == "dddddd"
    staged.describe_all()
    page.find(row("cccccc-3", "place"), "node-1 · cccccc")
    page.find(row("dddddd", "place"), "node-1 · dddddd")
    assert page.text(row("aaaaaa-1", "place")) == "node-1"
    twin = staged.agents["dddddd"]
    staged.do(twin.leave)
    page.wait(lambda: page.text(row("cccccc-3", "place")) == "node-1", "it is alone with its name")


@pytest.mark.parametrize("query", ["sort=constructor", "status=toString", "sort=__proto__&order=x"])
def test_an_address_that_asks_for_what_is_not_there_shows_all(
    page: Page, staged: StagedFleet, query: str
) -> None:
    staged.join("id-1", "gpu-1")
    page.open(f"/?{query}")
    page.find(row("id-1"))


def test_markup_in_names_issues_and_metadata_stays_text(page: Page, staged: StagedFleet) -> None:
    agent = staged.join(
        "id-1",
        HOSTILE,
        model_path=f"/m/{HOSTILE}",
        issues=(AgentIssue(model_cannot_be_loaded=ModelPath(HOSTILE)),),
    )
    staged.do(agent.describe, host=HOSTILE, notes=(HOSTILE,))
    page.open("/")
    assert page.find(row("id-1", "name")).text == HOSTILE
    page.click(row("id-1", "issues"))
    page.find("dialog h3", HOSTILE)
    page.press(Keys.ESCAPE)
    page.click(row("id-1", "name"))
    page.find("dialog .notes li", HOSTILE)
    page.press(Keys.ESCAPE)
    page.click(row("id-1", "metadata"))
    page.find("dialog td", "Staged 1B <script>alert(1)</script>")
    assert page.driver.title.endswith("- Paddler")
    assert page.js("return document.querySelectorAll('main script, main img').length") == 0


def test_an_override_can_be_looked_at(page: Page, staged: StagedFleet) -> None:
    staged.join("id-1", "gpu-1", uses_chat_template_override=True)
    staged.join("id-2", "gpu-2")
    page.open("/")
    page.find(row("id-2"))
    assert not page.all(row("id-2", "template"))
    page.click(row("id-1", "template"))
    page.find("dialog", "No override is in force")
    page.press(Keys.ESCAPE)
    page.click(row("id-1", "metadata"))
    page.click("dialog button", "Chat template")
    page.find("dialog .note", "A chat template override is in force")


def test_a_question_to_an_agent_that_left_can_be_asked_again(
    page: Page, staged: StagedFleet
) -> None:
    agent = staged.join("id-1", "gpu-1")
    page.open("/")
    page.find(row("id-1"))
    page.js("window.fetch = () => Promise.resolve(new Response('', {status: 504}))")
    page.click(row("id-1", "metadata"))
    page.find("dialog .bad-text", "The agent did not answer in time.")
    page.find("dialog button", "Ask again")
    page.press(Keys.ESCAPE)
    page.click(row("id-1", "name"))
    staged.do(agent.leave)
    page.find("dialog .note", "no longer connected")


def test_a_refused_order_is_told(page: Page, staged: StagedFleet) -> None:
    staged.join("id-1", "gpu-1")
    page.open("/")
    page.find(row("id-1"))
    page.js(
        "window.fetch = () => Promise.resolve("
        "new Response(\"no agent with the id 'id-1' is connected\", {status: 404}))"
    )
    page.click(row("id-1", "drain"))
    page.find("dialog", "Could not drain the agent")
    page.find("dialog p", "no agent with the id 'id-1' is connected")


def names(page: Page) -> list[str]:
    return [one.text for one in page.all("tr[data-agent] [data-part=name]")]


def test_agents_are_found_filtered_and_sorted_and_the_address_keeps_it(
    page: Page, staged: StagedFleet
) -> None:
    for number in (10, 2, 1):
        staged.join(f"id-{number}", f"gpu-{number}", slots=number)
    staged.join("id-x", "cpu", slots=4, issues=(AgentIssue(download_interrupted=ModelPath("u")),))
    staged.occupy(7)
    page.open("/")
    page.wait(lambda: names(page) == ["cpu", "gpu-1", "gpu-2", "gpu-10"], "natural order by name")
    page.fill("[data-part=search]", "gpu-1")
    page.wait(lambda: names(page) == ["gpu-1", "gpu-10"], "found by name")
    assert "find=gpu-1" in page.driver.current_url
    page.click("th button.head", "Slots")
    page.wait(lambda: names(page) == ["gpu-10", "gpu-1"], "most busy first")
    assert page.find("th[aria-sort]").text.startswith("Slots")
    page.driver.refresh()
    page.wait(lambda: names(page) == ["gpu-10", "gpu-1"], "kept over a reload")
    page.fill("[data-part=search]", "nobody")
    page.find("[data-part=agents-none]", "No agent matches.")
    page.click("[data-part=clear]")
    page.wait(lambda: len(names(page)) == 4, "all are shown")
    page.js(
        "const s = document.querySelector('[data-part=status].status, select[data-part=status]');"
        "s.value = 'issues'; s.dispatchEvent(new Event('change'))"
    )
    page.wait(lambda: names(page) == ["cpu"], "those with issues")


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("is_dark", [False, True])
def test_every_state_is_accessible(
    page: Page, staged: StagedFleet, size: tuple[int, int], is_dark: bool
) -> None:
    staged.put_model(MODEL)
    staged.join("id-1", "gpu-1", slots=1)
    staged.join("id-2", "gpu-2", state_application_status="Stuck", slots_total=0)
    staged.join("id-3", "gpu-3", state_application_status="AttemptedAndRetrying", slots_total=0)
    issue = AgentIssue(download_interrupted=ModelPath("http://example.com/a.gguf"))
    staged.join(
        "id-4", "a" * 60, slots=40, slots_total=0, download_filename="a.gguf", issues=(issue,)
    )
    staged.describe_all()
    staged.occupy(6)
    page.open("/", size=size, is_dark=is_dark)
    page.find(".alerts li[data-alert=bad]")
    page.find(".alerts li[data-alert=issues]")
    page.find(row("id-4", "download"))
    assert page.violations() == []
    assert page.overflow() == 0
