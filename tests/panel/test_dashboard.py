"""The dashboard on a fleet that really serves: what is live, and what can be done."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.balancer.services.running import JSON_TYPE, request
from tests.e2e.fleet import Answer, Fleet, raw_prompt
from tests.panel.browser import NARROW, WIDE, Page, clean_page

ROW = "tr[data-agent]"


@pytest.fixture
def dashboard(page: Page) -> Page:
    """Opened, and live."""
    page.open("/")
    page.find(ROW)
    return page


@contextlib.contextmanager
def running_answers(fleet: Fleet, count: int) -> Iterator[list[Answer]]:
    """Answers that have begun and go on."""
    answers = [Answer(fleet.inference, raw_prompt("Count", 4000)) for _ in range(count)]
    try:
        for answer in answers:
            answer.first()
        yield answers
    finally:
        for answer in answers:
            answer.cut()


def test_an_agent_is_shown_with_all_that_is_known(dashboard: Page) -> None:
    assert dashboard.text(f"{ROW} [data-part=name]") == "agent-1"
    dashboard.find(f"{ROW} [data-part=status]", "Serving")
    assert dashboard.text(f"{ROW} [data-part=model]") == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert dashboard.find(f"{ROW} .slots").get_attribute("aria-label") == "0 of 4 slots busy"
    dashboard.click(f"{ROW} [data-part=name]")
    dialog = dashboard.find("dialog[open]")
    dashboard.wait(lambda: "llama-cpp-python" in dialog.text, "the engine is told")
    for label in ("Host", "Address", "Version", "Running for", "Memory", "Threads and cores"):
        assert label in dialog.text
    assert "unknown" not in dialog.text
    assert "127.0.0.1" in dialog.text
    assert "Runs what is wanted\nyes" in dialog.text


def test_slots_tokens_and_the_title_follow_requests(dashboard: Page, fleet: Fleet) -> None:
    with running_answers(fleet, 3):
        dashboard.wait(
            lambda: (
                dashboard.find(f"{ROW} .slots").get_attribute("aria-label") == "3 of 4 slots busy"
            ),
            "three slots are busy",
        )
        assert len(dashboard.all(f"{ROW} .slots i.busy")) == 3
        dashboard.wait(lambda: "3/4 slots" in dashboard.driver.title, "the title")
        dashboard.wait(
            lambda: dashboard.text(f"{ROW} [data-part=rate]")[0].isdigit(),
            "tokens per second",
        )
        dashboard.find(".tile", "3 / 4")
    dashboard.wait(lambda: not dashboard.all(f"{ROW} .slots i.busy"), "all slots are free")


def test_a_row_stays_the_same_element_while_it_changes(dashboard: Page, fleet: Fleet) -> None:
    dashboard.js("document.querySelector(arguments[0]).mark = 'kept'", ROW)
    with running_answers(fleet, 1):
        dashboard.find(f"{ROW} .slots i.busy")
    assert dashboard.js("return document.querySelector(arguments[0]).mark", ROW) == "kept"


def test_requests_that_wait_are_shown(dashboard: Page, fleet: Fleet) -> None:
    with running_answers(fleet, 4), socket.create_connection(("127.0.0.1", fleet.inference)) as one:
        body = b'{"raw_prompt": "Go", "max_tokens": 5}'
        one.sendall(request("POST", "/api/v1/continue_from_raw_prompt", body, JSON_TYPE))
        dashboard.find(".tile", "1 / 30")
        dashboard.find(".chart .chart-now", "1 waiting")
    dashboard.find(".tile", "0 / 30")


def test_metadata_is_searched_and_its_template_seen(dashboard: Page) -> None:
    dashboard.click(f"{ROW} [data-part=metadata]")
    dashboard.find("table.metadata code", "general.architecture")
    dashboard.fill("dialog input[type=search]", "context_length")
    dashboard.find("dialog [role=status]", "1 entry of")
    assert "8192" in dashboard.text("table.metadata tbody")
    dashboard.fill("dialog input[type=search]", "chat_template")
    dashboard.click("table.metadata button", "Chat template")
    assert "<|im_start|>" in dashboard.text("dialog pre.template")
    dashboard.click("dialog button", "Back to all metadata")
    dashboard.find("table.metadata")
    dashboard.press(Keys.ESCAPE)  # empties the field that has the focus
    dashboard.press(Keys.ESCAPE)
    dashboard.wait_gone("dialog")
    assert dashboard.focused.text == "Metadata"


def test_a_drain_is_seen_and_undone(dashboard: Page, fleet: Fleet) -> None:
    dashboard.click(f"{ROW} [data-part=drain]", "Drain")
    dashboard.find(f"{ROW} [data-part=status]", "Drained")
    dashboard.find(".alerts li", "all agents are drained")
    assert fleet.slots_ready() == 0
    dashboard.find(".event-text", "was drained")
    dashboard.click(f"{ROW} [data-part=drain]", "Resume")
    dashboard.find(f"{ROW} [data-part=status]", "Serving")
    dashboard.wait_gone(".alerts li[data-alert=no-slots]")
    fleet.wait_slots(4)


def test_a_disconnect_asks_first_and_the_agent_comes_back(dashboard: Page, fleet: Fleet) -> None:
    dashboard.click(f"{ROW} [data-part=disconnect]")
    assert "Disconnect agent-1?" in dashboard.text("dialog[open]")
    assert dashboard.focused.text == "Cancel"
    dashboard.press(Keys.ENTER)
    dashboard.wait_gone("dialog")
    assert len(fleet.snapshot()) == 1
    dashboard.click(f"{ROW} [data-part=disconnect]")
    dashboard.click("dialog button.danger", "Disconnect")
    dashboard.find(".event-text", "was disconnected by 127.0.0.1")
    dashboard.find(".event-text", "left")
    dashboard.find(f"{ROW} [data-part=status]", "Serving")


def test_a_reload_loses_nothing_of_history_and_events(dashboard: Page, fleet: Fleet) -> None:
    with running_answers(fleet, 2):
        dashboard.wait(
            lambda: "2 of 4" in dashboard.text(".chart .chart-now"), "the chart's newest value"
        )
    events = len(dashboard.all(".event"))
    _, *over = moments(dashboard)  # the newest one still grows
    dashboard.open("/")
    dashboard.find(ROW)
    dashboard.wait(lambda: len(dashboard.all(".event")) >= events, "all events are back")
    dashboard.wait(lambda: set(over[:8]) <= set(moments(dashboard)), "all moments are back")
    dashboard.click(".chart summary")
    assert "of 4 busy" in dashboard.text(".chart table")


def test_charts_are_read_by_keyboard(dashboard: Page) -> None:
    cursor = dashboard.tab_to(".chart-cursor")
    assert cursor.get_attribute("aria-label") == "Slots: choose a moment"
    dashboard.wait(
        lambda: "of 4 busy" in str(cursor.get_attribute("aria-valuetext")), "the newest moment"
    )
    dashboard.press(Keys.ARROW_LEFT)
    readout = dashboard.text(".chart-readout")
    assert cursor.get_attribute("aria-valuetext") == readout
    dashboard.press(Keys.HOME)
    dashboard.find(".chart-readout", "unknown")
    dashboard.press(Keys.ESCAPE)
    dashboard.wait(lambda: not dashboard.all(".chart-mark[d^=M]"), "the readout follows again")


def test_charts_are_read_by_pointer(dashboard: Page) -> None:
    plot = dashboard.find(".chart-plot")
    ActionChains(dashboard.driver).move_to_element_with_offset(
        plot, plot.size["width"] // 2 - 3, 0
    ).perform()
    dashboard.find(".chart-readout", "of 4 busy")


def test_events_are_filtered_by_kind_and_text(dashboard: Page) -> None:
    dashboard.find(".event-text", "joined")
    dashboard.js(
        "const s = document.querySelector('[data-part=event-kind]');"
        "s.value = 'Models'; s.dispatchEvent(new Event('change'))"
    )
    dashboard.wait(
        lambda: all(one.text in ("model", "wanted") for one in dashboard.all(".event-kind")),
        "events of models alone",
    )
    dashboard.find(".event-text", "SmolLM2")
    dashboard.fill("[data-part=event-search]", "no such thing")
    dashboard.find("[data-part=events-none]", "No event matches.")


def test_addresses_and_the_agent_command_can_be_copied(dashboard: Page, fleet: Fleet) -> None:
    dashboard.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"origin": dashboard.base, "permissions": ["clipboardReadWrite"]},
    )
    read = "navigator.clipboard.readText().then(arguments[0])"
    assert f"http://127.0.0.1:{fleet.inference}" in dashboard.text(".services")
    dashboard.click(".services button")
    dashboard.find(".services button", "Copied")
    copied = dashboard.driver.execute_async_script(read)
    assert copied == f"http://127.0.0.1:{fleet.inference}"
    dashboard.click("[data-part=add]")
    dashboard.click("dialog button.copy")
    dashboard.find("dialog button.copy", "Copied")
    command = f"paddler agent --management-addr 127.0.0.1:{fleet.management} --slots 4"
    assert dashboard.driver.execute_async_script(read) == command


def test_what_is_copied_without_a_clipboard_is_selected(dashboard: Page) -> None:
    """As on a page without TLS on another host."""
    dashboard.js(
        "Object.defineProperty(navigator, 'clipboard', {value: undefined});"
        "document.execCommand = command => { window.copied = "
        "document.activeElement.value + ' ' + command; return true; }"
    )
    dashboard.click(".services button")
    dashboard.find(".services button", "Copied")
    assert dashboard.js("return window.copied").endswith(" copy")
    assert dashboard.js("return window.copied").startswith("http://127.0.0.1:")


def test_a_hidden_tab_holds_no_stream_and_misses_nothing(
    dashboard: Page, fleet: Fleet, browser: webdriver.Chrome
) -> None:
    hide = (
        "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    before = panel_connections(fleet)
    dashboard.js(hide, True)
    dashboard.wait(lambda: panel_connections(fleet) < before, "the stream is closed")
    with running_answers(fleet, 2):
        pass
    dashboard.js(hide, False)
    dashboard.find("#connection", "Connected")
    dashboard.wait(
        lambda: any("2 of 4 busy" in words for words in moments(dashboard)),
        "what happened meanwhile is drawn",
    )


def moments(page: Page) -> list[str]:
    """What the first chart says of its last minute, the newest moment first."""
    words: list[str] = page.js(
        """
        const cursor = document.querySelector(".chart-cursor");
        const words = [];
        for (let back = 0; back < 12; back += 1) {
          cursor.value = String(cursor.max - back);
          cursor.dispatchEvent(new Event("input"));
          words.push(cursor.getAttribute("aria-valuetext"));
        }
        return words;
        """
    )
    return words


def panel_connections(fleet: Fleet) -> int:
    """Established connections of the panel's port, as the system counts them."""
    port = f":{fleet.panel:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] == "01" for row in rows)


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("is_dark", [False, True])
def test_the_dashboard_is_accessible(page: Page, size: tuple[int, int], is_dark: bool) -> None:
    page.open("/", size=size, is_dark=is_dark)
    page.find(f"{ROW} [data-part=status]", "Serving")
    assert page.violations() == []
    assert page.overflow() == 0
    page.click(f"{ROW} [data-part=name]")
    page.find("dialog[open] dd", "llama-cpp-python")
    assert page.violations() == []
    page.press(Keys.ESCAPE)
    page.click(f"{ROW} [data-part=metadata]")
    page.find("table.metadata")
    assert page.violations() == []
    assert page.overflow() == 0


def test_a_dialog_is_closed_by_its_button_and_from_outside(dashboard: Page) -> None:
    dashboard.click("[data-part=add]")
    dashboard.find("dialog[open]")
    dashboard.click("dialog [data-part=close]")
    dashboard.wait_gone("dialog")
    assert dashboard.focused.text == "Add an agent"
    dashboard.click("[data-part=add]")
    dashboard.find("dialog[open]")
    click_at(dashboard, 5, 400)
    dashboard.wait_gone("dialog")


def click_at(page: Page, x: int, y: int) -> None:
    for kind in ("mousePressed", "mouseReleased"):
        page.driver.execute_cdp_cmd(
            "Input.dispatchMouseEvent",
            {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1},
        )


def test_everything_is_reached_and_done_by_keyboard(dashboard: Page, fleet: Fleet) -> None:
    dashboard.find(f"{ROW} [data-part=status]", "Serving")
    assert dashboard.tab_to("[data-part=search]").is_displayed()
    dashboard.press("agent-1")
    dashboard.tab_to("th button.head")
    dashboard.press(Keys.ENTER)
    dashboard.wait(
        lambda: dashboard.all("th[aria-sort=descending]"), "the order was turned by keyboard"
    )
    dashboard.tab_to(f"{ROW} [data-part=drain]")
    dashboard.press(Keys.SPACE)
    dashboard.find(f"{ROW} [data-part=status]", "Drained")
    assert dashboard.focused.text == "Resume"
    dashboard.press(Keys.SPACE)
    dashboard.find(f"{ROW} [data-part=status]", "Serving")
    dashboard.tab_to(f"{ROW} [data-part=disconnect]")
    dashboard.press(Keys.ENTER)
    dashboard.find("dialog[open]", "Disconnect agent-1?")
    dashboard.press(Keys.ESCAPE)
    dashboard.wait_gone("dialog")
    assert dashboard.focused.text == "Disconnect"
    dashboard.tab_to(".event-list")


def test_a_page_works_by_another_local_name(browser: webdriver.Chrome, fleet: Fleet) -> None:
    with clean_page(browser, fleet.panel) as page:
        page.base = f"http://localhost:{fleet.panel}"
        page.open("/")
        page.find(f"{ROW} [data-part=drain]", "Drain").click()
        page.find(f"{ROW} [data-part=status]", "Drained")
        page.click(f"{ROW} [data-part=drain]", "Resume")
        page.find(f"{ROW} [data-part=status]", "Serving")
