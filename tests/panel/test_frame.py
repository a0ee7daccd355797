"""The frame around every page: where one is, how the balancer is, what the browser allows."""

import pytest

from tests.panel.browser import NARROW, WIDE, Page


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
    page.open("/nowhere", is_dark=True)
    assert page.js(background) == light
    page.click("#theme", "light")
    page.find("#theme", "dark")
    assert page.js(background) == dark


def test_the_first_tab_skips_to_the_page(page: Page) -> None:
    page.open("/nowhere")
    page.find("main h1")
    link = page.tab_to(".skip", limit=1)
    assert link.text == "Skip to the page"
    assert link.is_displayed()
