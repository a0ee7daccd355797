"""A real browser on the panel: a page opened, waited for, used and looked at."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

BROWSER: Final = "chromium"
DRIVER: Final = "chromedriver"
FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--lang=en-GB",
)
AXE: Final = Path(__file__).parents[2] / ".cache/panel-checks/node_modules/axe-core/axe.min.js"
WAIT_S: Final = 20.0

WIDE: Final = (1280, 900)
NARROW: Final = (360, 740)


def give_up(reason: str) -> None:
    """Skip, but where everything has to be there."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextlib.contextmanager
def running_browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """Headless Chromium; skips where there is none."""
    browser, driver = shutil.which(BROWSER), shutil.which(DRIVER)
    if browser is None or driver is None:
        give_up(f"{BROWSER} and {DRIVER} are not installed: the panel is tested in a real browser")
    options = webdriver.ChromeOptions()
    options.binary_location = str(browser)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=str(driver))
    )
    try:
        yield chrome
    finally:
        chrome.quit()


class Page:
    """One tab on the panel of a balancer."""

    def __init__(self, driver: webdriver.Chrome, port: int) -> None:
        self.driver = driver
        self.base = f"http://127.0.0.1:{port}"

    # --- getting there ---

    def open(
        self, path: str = "/", *, size: tuple[int, int] = WIDE, is_dark: bool = False
    ) -> "Page":
        """Load a path of the panel in a window of this size."""
        self.resize(size)
        self.emulate_media(is_dark=is_dark)
        self.driver.get(self.base + path)
        return self

    def resize(self, size: tuple[int, int]) -> None:
        width, height = size
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def emulate_media(self, *, is_dark: bool = False, is_still: bool = True) -> None:
        """The system's theme, and whether it wants things to move."""
        self._cdp(
            "Emulation.setEmulatedMedia",
            features=[
                {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"},
                {"name": "prefers-reduced-motion", "value": "reduce" if is_still else ""},
            ],
        )

    # --- what is there ---

    def find(self, css: str, text: str | None = None) -> WebElement:
        """The first visible element that matches, with ``text`` in it; waits for it."""

        def look() -> WebElement | None:
            for found in self.driver.find_elements(By.CSS_SELECTOR, css):
                if found.is_displayed() and (text is None or text in found.text):
                    return found
            return None

        what = f"{css} is seen" + (f" with {text!r}" if text is not None else "")
        element: WebElement = self.wait(look, what)
        return element

    def all(self, css: str) -> list[WebElement]:
        """All visible elements that match right now."""
        return [
            one for one in self.driver.find_elements(By.CSS_SELECTOR, css) if one.is_displayed()
        ]

    def text(self, css: str) -> str:
        """What the first match shows; waits for it."""
        return self.find(css).text

    def js(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
        """The first truthy result; elements that are replaced meanwhile are looked up again."""
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(StaleElementReferenceException):
                if result := condition():
                    return result
            if time.monotonic() > deadline:
                shown = self.driver.find_element(By.TAG_NAME, "body").text
                raise AssertionError(f"not within {timeout_s:.0f} s: {what}\n--- shown:\n{shown}")
            time.sleep(0.02)  # between two looks at another process

    def wait_gone(self, css: str) -> None:
        self.wait(lambda: not self.all(css), f"{css} is gone")

    # --- using it ---

    def click(self, css: str, text: str | None = None) -> None:
        """Click the first visible match; again, if it is replaced at that moment."""

        def press() -> bool:
            self.find(css, text).click()
            return True

        self.wait(press, f"{css} can be clicked")

    def press(self, *keys: str) -> None:
        """Press keys where the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def press_with_shift(self, key: str) -> None:
        ActionChains(self.driver).key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT).perform()

    def fill(self, css: str, text: str) -> None:
        """Replace what a field holds."""
        field = self.find(css)
        field.clear()
        field.send_keys(text)

    @property
    def focused(self) -> WebElement:
        return self.driver.switch_to.active_element

    def tab_to(self, css: str, limit: int = 200) -> WebElement:
        """Press Tab until what matches has the focus, as who has no mouse does."""
        for _ in range(limit):
            self.press(Keys.TAB)
            if self.js("return document.activeElement.matches(arguments[0])", css):
                return self.focused
        raise AssertionError(f"Tab does not reach {css}")

    # --- judging it ---

    def console(self) -> list[str]:
        """Errors and warnings that the browser wrote down since the last look."""
        entries = self.driver.get_log("browser")
        return [one["message"] for one in entries if one["level"] in ("SEVERE", "WARNING")]

    def violations(self, css: str = "html") -> list[str]:
        """What axe-core finds wrong with accessibility, one line each."""
        if not AXE.is_file():
            give_up("axe-core is not installed: run `make .cache/panel-checks/.ready`")
        if not self.js("return 'axe' in window"):
            self._cdp("Runtime.evaluate", expression=AXE.read_text())
        result = self.driver.execute_async_script(
            "axe.run(arguments[0]).then(arguments[1], e => arguments[1]({error: String(e)}))", css
        )
        assert "error" not in result, result["error"]
        return [
            f"{found['id']}: {found['help']}: {json.dumps(node['target'])} {node['failureSummary']}"
            for found in result["violations"]
            for node in found["nodes"]
        ]

    def overflow(self) -> int:
        """How many pixels the page is wider than its window."""
        script = "return document.documentElement.scrollWidth - window.innerWidth"
        return max(0, int(self.js(script)))

    def screenshot(self, path: Path) -> None:
        path.write_bytes(self.driver.get_screenshot_as_png())

    def reset(self) -> None:
        """Forget what a test left behind."""
        self.driver.get("about:blank")
        self._cdp("Storage.clearDataForOrigin", origin=self.base, storageTypes="all")
        self._cdp("Network.setBlockedURLs", urls=[])
        self.driver.get_log("browser")

    def _cdp(self, command: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)


@contextlib.contextmanager
def clean_page(driver: webdriver.Chrome, port: int) -> Iterator[Page]:
    """A tab without a past; whoever expects errors in its console takes them out before."""
    page = Page(driver, port)
    page.reset()
    yield page
    complaints = page.console()
    assert complaints == [], "\n".join(complaints)
