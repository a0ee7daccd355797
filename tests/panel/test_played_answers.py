"""The Model and Prompt pages on a fleet that is played: what a small real one never does."""

from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from paddler.messages import link as wire
from paddler.messages.agents import AgentIssue, ModelPath
from paddler.messages.link import FrameKind
from tests.balancer.services.running import Agent
from tests.clients.scripted import Turn, answer, call, content, failure, reasoning
from tests.panel.browser import Page, clean_page
from tests.panel.staged import StagedAgent, StagedFleet

HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"


@pytest.fixture
def staged() -> Iterator[StagedFleet]:
    with StagedFleet("--buffered-request-timeout", "10s") as fleet:
        yield fleet


@pytest.fixture
def tab(browser: webdriver.Chrome, staged: StagedFleet) -> Iterator[Page]:
    """A tab on the played fleet's panel."""
    with clean_page(browser, staged.panel) as page:
        yield page


@pytest.fixture
def agent(staged: StagedFleet) -> StagedAgent:
    return staged.join("a1", f"gpu-1 {HOSTILE}")


def ask(tab: Page, text: str = "Hello") -> None:
    tab.open("/prompt")
    tab.find("#message").send_keys(text, Keys.ENTER)


def last_answer(tab: Page) -> str:
    tab.find(".turn.model")
    tab.wait_gone("[aria-busy=true]")
    return tab.text(".turn.model")


# --- answers ------------------------------------------------------------------------------------


def test_reasoning_is_folded_beside_the_answer(tab: Page, agent: StagedAgent) -> None:
    agent.turns.append(answer(*reasoning("Let me ", HOSTILE), *content("**Yes** ", HOSTILE)))
    ask(tab)
    seen = last_answer(tab)
    assert seen.startswith("Model\nReasoning\nYes ")
    assert HOSTILE in seen
    assert "Let me" not in seen
    tab.click(".reasoning summary")
    assert tab.text(".reasoning .typed") == f"Let me {HOSTILE}"
    assert tab.text(".markdown strong") == "Yes"
    assert tab.js("return window.hacked") is None
    assert tab.js("return document.querySelectorAll('main script, main img').length") == 0


def test_usage_tells_what_was_cached(tab: Page, agent: StagedAgent) -> None:
    agent.turns.append(answer(*content("a", "b")))
    ask(tab)
    assert "Finished. · prompt 5 tokens (3 cached) · generated 3" in last_answer(tab)


def test_several_calls_are_answered_together(tab: Page, agent: StagedAgent) -> None:
    agent.turns += [
        answer(
            *call(0, "get_weather", '{"pla', 'ce":"Rome"}', given_id="c0"),
            *call(1, HOSTILE, "{}", given_id="c1"),
            reason="tool_calls",
        ),
        answer(*content("It is warm.")),
    ]
    tab.open("/prompt")
    tab.click(".settings-more summary")
    tab.js(
        "const field = document.getElementById('setting-tools'); field.value = arguments[0];"
        "field.dispatchEvent(new Event('input'))",
        '[{"type": "function", "function": {"name": "get_weather"}}]',
    )
    tab.find("#message").send_keys("Weather?", Keys.ENTER)
    tab.find(".results")
    assert [one.text for one in tab.all(".call h4")] == ["Calls get_weather", f"Calls {HOSTILE}"]
    assert tab.all(".call pre")[0].text == '{\n  "place": "Rome"\n}'
    areas = tab.all(".results textarea")
    assert len(areas) == 2
    areas[0].send_keys("30")
    areas[1].send_keys("none")
    tab.click(".results button")
    tab.find(".turn.model", "It is warm.")
    assert [one.text for one in tab.all(".turn.tool pre")] == ["30", "none"]
    assert tab.js("return window.hacked") is None


def drip(pieces: int) -> Turn:
    """An answer of many pieces, as fast as they are taken."""

    def play(agent: Agent, start: wire.StartStream) -> None:
        for number in range(pieces):
            mark = b"\\n\\n- item " if number % 40 == 0 else b" word"
            agent.say(start.stream_id, FrameKind.CONTENT, mark)
        agent.finish(start.stream_id)

    return play


def test_a_long_fast_answer_does_not_hold_up_the_page(tab: Page, agent: StagedAgent) -> None:
    agent.turns.append(drip(20_000))
    tab.open("/prompt")
    tab.js(
        "window.longest = 0; let last = performance.now(); const tick = () => {"
        "  const now = performance.now(); window.longest = Math.max(window.longest, now - last);"
        "  last = now; requestAnimationFrame(tick); }; requestAnimationFrame(tick);"
    )
    tab.find("#message").send_keys("Go on", Keys.ENTER)
    last_answer(tab)
    assert len(tab.js("return document.querySelectorAll('.markdown li')")) == 500
    assert tab.js("return window.longest") < 2000


# --- failures -----------------------------------------------------------------------------------


def test_an_agent_that_is_lost_leaves_what_it_said(tab: Page, agent: StagedAgent) -> None:
    def leave(link: Agent, start: wire.StartStream) -> None:
        link.say(start.stream_id, FrameKind.CONTENT, b"Half an ans")
        link.leave()

    agent.turns.append(leave)
    ask(tab)
    seen = last_answer(tab)
    assert "Half an ans" in seen
    assert "The agent was lost while it answered." in seen
    assert "Try again" in seen


@pytest.mark.parametrize(
    ("variant", "detail", "words"),
    [
        (
            "ChatTemplateError",
            "failed to render chat template: line 3: no",
            "The chat template cannot make a prompt",
        ),
        ("ImageExceedsBatchSize", {"image_tokens": 9, "n_batch": 4}, "more tokens than fit"),
        ("ImageDecodingFailed", "Failed to convert image to PNG: x", "An image cannot be used."),
        ("GrammarSyntaxError", f"Failed to create grammar sampler: {HOSTILE}", "The JSON schema"),
        ("SamplerError", HOSTILE, "The answer failed."),
    ],
)
def test_what_an_agent_refuses_is_said_in_words(
    tab: Page, agent: StagedAgent, variant: str, detail: Any, words: str
) -> None:
    agent.turns.append(failure(variant, detail))
    ask(tab)
    assert words in last_answer(tab)
    assert tab.js("return window.hacked") is None
    assert all("chat/completions" in line for line in tab.console())


def test_a_full_buffer_is_said_in_words(browser: webdriver.Chrome) -> None:
    with (
        StagedFleet("--max-buffered-requests", "0") as fleet,
        clean_page(browser, fleet.panel) as page,
    ):
        ask(page)
        page.find(".notice", "No agent is connected")
        assert "The buffer is full" in last_answer(page)
        assert all("503" in line for line in page.console())


def test_a_wait_that_is_too_long_is_said_in_words(browser: webdriver.Chrome) -> None:
    with (
        StagedFleet("--buffered-request-timeout", "200") as fleet,
        clean_page(browser, fleet.panel) as page,
    ):
        ask(page)
        assert "No slot became free in time." in last_answer(page)
        assert all("504" in line for line in page.console())


def test_a_request_that_waits_is_stopped_too(tab: Page, staged: StagedFleet) -> None:
    ask(tab)
    tab.find(".turn.model .waiting")
    waitline = staged.running.balancer._waitline
    tab.wait(lambda: waitline.waiting == 1, "it waits")
    tab.click("button.danger", "Stop")
    tab.wait(lambda: waitline.waiting == 0, "nobody waits")
    assert "Stopped by you." in last_answer(tab)


# --- the rollout --------------------------------------------------------------------------------


def test_a_download_is_shown_with_its_bar(
    tab: Page, staged: StagedFleet, agent: StagedAgent
) -> None:
    staged.put_model({"Url": {"url": "http://127.0.0.1:1/m.gguf"}})
    tab.wait(lambda: agent.state is not None, "the agent is told")
    staged.do(
        agent.report,
        download_filename="m.gguf",
        download_current=250_000_000,
        download_total=1_000_000_000,
        download_indeterminate=False,
    )
    staged.do(
        agent.describe,
        phase="downloading",
        bytes_per_s=1024.0**2,
        seconds_left=75.0,
        applied_state=None,
    )
    tab.open("/model")
    row = tab.find(".rollout li", "25%")
    assert "Downloads m.gguf · 25%, 238 MiB of 954 MiB · 1 MiB/s · 1 min 15 s left" in row.text
    assert HOSTILE in row.text
    assert float(tab.js("return document.querySelector('.rollout progress').value")) == 0.25
    staged.do(agent.describe, phase="retrying", applied_state=None)
    issue = AgentIssue(cache_storage_is_full=ModelPath(HOSTILE))
    staged.do(agent.report, download_filename=None, issues=(issue,))
    tab.find(".rollout-issues", HOSTILE)
    staged.do(agent.report, issues=())
    staged.do(agent.describe)
    tab.find(".rollout-summary", "The agent runs this state.")
    assert tab.js("return window.hacked") is None


def test_a_large_fleet_is_summed_up(tab: Page, staged: StagedFleet) -> None:
    for number in range(60):
        staged.join(f"id-{number}", f"gpu-{number:02}")
    staged.describe_all()
    late = staged.agents["id-59"]
    staged.do(late.describe, phase="loading", load_fraction=0.5, applied_state="other")
    tab.open("/model")
    tab.find(".rollout-summary", "59 of 60 agents run this state.")
    rows = tab.all(".rollout > li")
    assert len(rows) == 30
    assert rows[0].text.startswith("gpu-59")
    tab.find(".hint", "and 30 more")
