"""The frame around every page: where one is, how the balancer is, what the browser allows."""

from pathlib import Path

import pytest
from selenium import webdriver

from tests.panel.browser import NARROW, WIDE, Page, clean_page
from tests.panel.staged import StagedFleet


def test_an_unknown_page_says_so_within_the_frame(page: Page) -> None:
    page.open("/nowhere/at/all")
    assert page.text("main h1") == "Page not found"
    page.find("#connection", "Connected")
    assert not page.all("nav a[aria-current]")


def test_the_title_tells_the_state(page: Page) -> None:
    page.open("/nowhere")
    page.wait(lambda: page.driver.title == "1 agent · 0/4 slots - Paddler", "the title")


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("is_dark", [False, True])
def test_the_frame_is_accessible(page: Page, size: tuple[int, int], is_dark: bool) -> None:
    page.open("/nowhere", size=size, is_dark=is_dark)
    page.find("#connection", "Connected")
    assert page.violations() == []
    assert page.overflow() == 0


def test_the_theme_can_be_chosen_and_is_kept(page: Page) -> None:
    page.open("/nowhere", is_dark=True)
    background = "return getComputedStyle(document.documentElement).backgroundColor"
    dark = page.js(background)
    page.click("#theme", "system")
    page.find("#theme", "light")
    light = page.js(background)
    assert light != dark

    def is_kept() -> bool:
        page.open("/nowhere", is_dark=True)
        return bool(page.js(background) == light)

    page.wait(is_kept, "a page opened later has it")  # the browser stores it in its own time
    page.click("#theme", "light")
    page.find("#theme", "dark")
    assert page.js(background) == dark


def test_the_first_tab_skips_to_the_page(page: Page) -> None:
    page.open("/nowhere")
    page.find("main h1")
    link = page.tab_to(".skip", limit=1)
    assert link.text == "Skip to the page"
    assert link.is_displayed()


def test_a_browser_without_event_streams_is_told(page: Page) -> None:
    script = {"source": "delete window.EventSource"}
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    try:
        page.open("/")
        page.find("main h1", "This browser cannot show the panel")
        page.find("#connection", "Not connected")
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_a_panel_that_asks_for_a_token_works_by_it(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("operator s3cret-token-of-the-operator\n")
    tokens.chmod(0o600)
    with (
        StagedFleet("--management-token-file", str(tokens)) as staged,
        clean_page(browser, staged.panel) as page,
    ):
        plain = page.base
        page.base = plain.replace("//", "//anybody:s3cret-token-of-the-operator@")
        page.open("/")
        page.base = plain
        page.find("#connection", "Connected")
        command = "paddler agent --management-addr"
        assert "--management-token-file FILE" in page.find(".command code", command).text
        page.find(".services dd", "needs a management token")
        page.open("/model")
        page.click("label[for=model-local]")
        page.fill("#model-path", "/models/tiny.gguf")
        page.click("button[type=submit]")
        page.click("dialog button.primary", "Apply")
        page.find(".page-status", "Applied")
        page.open("/")
        page.find(".event-text", "operator (127.0.0.1) asked for /models/tiny.gguf")
