"""Pictures of the panel for the documentation: ``python -m tests.panel.screenshots FOLDER``.

The fleet is played, so that a picture shows much at once and looks the same next time.
"""

import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from selenium.webdriver.common.keys import Keys

from paddler.balancer.history import MAX_SAMPLES, Sample
from paddler.messages.agents import AgentIssue, ModelPath
from tests.clients.scripted import answer, call, content, reasoning
from tests.panel.browser import NARROW, WIDE, Page, running_browser
from tests.panel.staged import StagedFleet

MODEL = {
    "HuggingFace": {
        "filename": "Qwen3-0.6B-Q8_0.gguf",
        "repo_id": "Qwen/Qwen3-0.6B-GGUF",
        "revision": "main",
    }
}
PATH = "/root/.cache/huggingface/hub/Qwen3-0.6B-Q8_0.gguf"
TALL = (WIDE[0], 1180)


def stage(fleet: StagedFleet) -> None:
    """Agents in many states, and a quarter of an hour behind them."""
    fleet.put_model(MODEL)
    for number, slots in ((1, 16), (2, 16), (3, 8)):
        agent = fleet.join(f"kQ{number}vX0mDw7", f"gpu-{number}", slots=slots, model_path=PATH)
        fleet.do(agent.describe, host=f"node-{number}", devices=(f"NVIDIA L4 #{number}",))
    loading = fleet.join("pA9cX2rLs1q", "gpu-4", slots=8, slots_total=0, model_path=None)
    fleet.do(
        loading.report,
        state_application_status="Fresh",
        download_filename="Qwen3-0.6B-Q8_0.gguf",
        download_current=412_000_000,
        download_total=639_446_688,
        download_indeterminate=False,
    )
    fleet.do(
        loading.describe,
        host="node-4",
        phase="downloading",
        bytes_per_s=38_000_000,
        seconds_left=6.0,
        applied_state=None,
    )
    stuck = fleet.join(
        "zT5hW8nYb3e",
        "cpu-1",
        slots=4,
        slots_total=0,
        model_path=None,
        state_application_status="Stuck",
        issues=(AgentIssue(cache_storage_is_full=ModelPath("Qwen/Qwen3-0.6B-GGUF")),),
    )
    fleet.do(stuck.describe, host="node-9", phase="retrying", applied_state=None)
    drained = fleet.join("eR2uJ6oKc4i", "gpu-5", slots=8, model_path=PATH)
    fleet.do(drained.describe, host="node-5")
    pool = fleet.running.balancer.pool
    fleet.do(lambda: pool.set_drained(pool.agents[-1], True))
    fleet.occupy(23)
    fleet.babble()
    fleet.do(remember, fleet.running.balancer._history._samples)


def remember(samples: list[Sample]) -> None:
    """A quarter of an hour with a rush in the middle."""
    samples.clear()
    now = time.time()
    for second in range(MAX_SAMPLES):
        rush = math.exp(-(((second - 500) / 130) ** 2))
        swing = 0.5 + 0.5 * math.sin(second / 23) * math.cos(second / 61)
        busy = min(40, round(8 + 34 * rush + 7 * swing))
        samples.append(
            Sample(
                at=now - MAX_SAMPLES + second,
                slots_busy=busy,
                slots_total=40 if second > 120 else 32,
                waiting=max(0, round(14 * rush - 6 + 3 * swing)),
                tokens=round(busy * (31 - 9 * rush) + 20 * swing),
                first_token_ms=round(180 + 900 * rush**2 + 60 * swing, 1),
                requests=busy // 6,
                errors=0,
            )
        )


def take(page: Page, folder: Path, name: str) -> None:
    """One picture, of few colours: what it shows has few."""
    page.js("document.activeElement?.blur()")
    path = folder / f"{name}.png"
    page.screenshot(path)
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE)
        few.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KiB")


def take_dashboard(page: Page, folder: Path) -> None:
    """The dashboard in both themes and widths, and a dialog."""
    for name, size, is_dark in (
        ("dashboard", TALL, False),
        ("dashboard-dark", TALL, True),
        ("dashboard-narrow", (NARROW[0], 1400), False),
        ("dashboard-narrow-dark", (NARROW[0], 1400), True),
    ):
        page.open("/", size=size, is_dark=is_dark)
        page.find("tr[data-agent]")
        page.wait(lambda: page.text(".chart .chart-now")[:2] == "23", "the newest sample")
        take(page, folder, name)
    page.open("/")
    page.click("button.issues")
    page.find("dialog[open]")
    take(page, folder, "dashboard-issues")


def take_model(page: Page, folder: Path) -> None:
    """The Model page in both themes and widths, and what is asked before a change."""
    for name, size, is_dark in (
        ("model", TALL, False),
        ("model-dark", TALL, True),
        ("model-narrow", (NARROW[0], 1400), False),
    ):
        page.open("/model", size=size, is_dark=is_dark)
        page.find(".rollout-summary", "4 of 6")
        page.find(".apply-bar", "Nothing is changed.")
        take(page, folder, name)
    page.open("/model")
    page.find(".apply-bar", "Nothing is changed.")
    for key, value in (("temperature", "0.6"), ("context_size", "16384")):
        page.js("document.getElementById(arguments[0]).select()", f"parameter-{key}")
        page.press(value)
    page.press(Keys.ENTER)
    page.find("dialog .effect")
    take(page, folder, "model-changes")


REASONING = "The user wants a table. Two rows are enough."
ANSWER = """Yes. **Slots** are requests that run at once:

| agent | slots | serves |
|---|---|---|
| gpu-1 | 16 | `Qwen3-0.6B-Q8_0.gguf` |
| cpu-1 | 4 | *loading* |

```sh
paddler agent --management-addr 10.0.0.1:8060 --slots 16
```
"""


def take_prompt(page: Page, folder: Path) -> None:
    """The Prompt page, with a conversation that has a bit of all."""
    with StagedFleet() as fleet:
        fleet.put_model(MODEL)
        agent = fleet.join("kQ1vX0mDw7", "gpu-1", slots=16, model_path=PATH)
        fleet.do(agent.describe)
        own = Page(page.driver, fleet.panel)
        agent.turns += [
            answer(*reasoning(REASONING), *content(ANSWER)),
            answer(*call(0, "get_weather", '{"city": "Rome"}', given_id="c0"), reason="tool_calls"),
        ]
        own.open("/prompt", size=WIDE)
        own.find("#message").send_keys("Does every agent have its slots?", Keys.ENTER)
        own.find(".turn.model .figures")
        own.find("#message").send_keys("How warm is Rome?", Keys.ENTER)
        own.find(".results")
        for name, size, is_dark in (
            ("prompt", TALL, False),
            ("prompt-dark", TALL, True),
            ("prompt-narrow", (NARROW[0], 1400), False),
        ):
            own.open("/prompt", size=size, is_dark=is_dark)
            own.find(".results")
            take(own, folder, name)


TAKERS: tuple[Callable[[Page, Path], None], ...] = (take_dashboard, take_model, take_prompt)


def main(folder: Path) -> None:
    """All pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as profile,
        StagedFleet("--buffered-request-timeout", "90s") as fleet,
        running_browser(Path(profile)) as browser,
    ):
        stage(fleet)
        for taker in TAKERS:
            page = Page(browser, fleet.panel)
            page.reset()
            taker(page, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
