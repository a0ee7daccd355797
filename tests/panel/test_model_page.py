"""The Model page: what is asked for, what it changes, and how it goes on the agents."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from tests.e2e.fleet import Fleet, get, request, wait_until
from tests.panel.browser import NARROW, WIDE, Page, clean_page
from tests.tiny_gguf import write_tiny_gguf

STATE = "/api/v1/balancer_desired_state"
HOSTILE = "/models/<script>window.hacked=1</script><img src=x onerror=window.hacked=1>.gguf"


@pytest.fixture(autouse=True)
def same_state_after(fleet: Fleet) -> Iterator[None]:
    """Whatever a test puts, the fleet serves what it served before."""
    before = desired(fleet)
    yield
    if desired(fleet) != before:
        fleet.put_state(before)
    wait_until(lambda: all_applied(fleet), "the former state runs")


@pytest.fixture
def form(page: Page) -> Page:
    """The Model page, its form filled in."""
    return opened(page)


def opened(page: Page, **options: Any) -> Page:
    page.open("/model", **options)
    page.find(".apply-bar", "Nothing is changed.")
    page.find(".rollout-summary", "The agent runs this state.")
    return page


def desired(fleet: Fleet) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(get(fleet.management, STATE)[1])
    return state


def all_applied(fleet: Fleet) -> bool:
    told = json.loads(get(fleet.management, "/api/v1/agent_details")[1])
    states = [(one["details"] or {}).get("applied_state") for one in told["agents"]]
    return bool(states) and all(state == told["desired_state"] for state in states)


def state_changes(fleet: Fleet) -> int:
    events = json.loads(get(fleet.management, "/api/v1/events")[1])["events"]
    return sum(event["kind"] == "state_changed" for event in events)


def use(page: Page, css: str, text: str | None = None) -> None:
    """Click what may be under the bar at the page's end."""
    page.js("arguments[0].scrollIntoView({block: 'center'})", page.find(css, text))
    page.click(css, text)


def retype(page: Page, css: str, text: str) -> None:
    """Replace what a field holds, key by key."""
    field = page.find(css)
    page.js("arguments[0].scrollIntoView({block: 'center'}); arguments[0].select()", field)
    field.send_keys(text or Keys.DELETE)


def value(page: Page, css: str) -> Any:
    return page.js("return document.querySelector(arguments[0]).value", css)


def review(page: Page) -> str:
    """What the dialog says of the changes."""
    use(page, "button.primary", "Review and apply")
    page.find("dialog .effect")
    return page.text("dialog")


def apply(page: Page) -> None:
    page.click("dialog .primary", "Apply")
    page.wait_gone("dialog")


# --- what is in force ---------------------------------------------------------------------------


def test_the_form_shows_what_is_in_force(form: Page, fleet: Fleet) -> None:
    state = desired(fleet)
    assert value(form, "#model-path") == state["model"]["LocalToAgent"]
    assert form.find("#model-local").is_selected()
    assert form.find("#projection-none").is_selected()
    for key, wanted in state["inference_parameters"].items():
        if not isinstance(wanted, bool):
            shown = value(form, f"#parameter-{key}")
            assert shown == str(wanted) or float(shown) == wanted, key
    assert form.all("[data-changed]") == []
    assert form.text(".rollout li") == "agent-1\nServes with 4 slots"


def test_explanations_ranges_and_defaults_are_seen_without_hovering(form: Page) -> None:
    seen = form.text("[data-parameter=top_p]")
    assert "together make up this share" in seen
    assert "0 to 1; 1 = off" in seen
    assert "Default: 0.8" in seen
    assert len(form.all("[data-parameter]")) == 17


def test_a_state_that_cannot_be_read_is_said_and_tried_again(page: Page) -> None:
    page.open("/nowhere")
    page.find("#connection", "Connected")
    page._cdp("Network.enable")
    page._cdp("Network.setBlockedURLs", urls=["*balancer_desired_state*"])
    page.click("nav a", "Model")
    page.find(".page-status", "The desired state cannot be read")
    page._cdp("Network.setBlockedURLs", urls=[])
    page.click("button", "Try again")
    page.find(".apply-bar", "Nothing is changed.")
    assert all("balancer_desired_state" in line for line in page.console())


# --- applying -----------------------------------------------------------------------------------


def test_a_model_is_swapped_and_put_back_with_its_progress_shown(
    form: Page, fleet: Fleet, tmp_path: Path
) -> None:
    before = desired(fleet)
    changes = state_changes(fleet)
    tiny = write_tiny_gguf(tmp_path / "tiny.gguf")
    retype(form, "#model-path", str(tiny))
    seen = review(form)
    assert "Model" in seen
    assert before["model"]["LocalToAgent"] in form.text("[data-change=model] del")
    assert str(tiny) in form.text("[data-change=model] ins")
    assert "slots are unavailable meanwhile" in seen
    assert "It concerns 1 agent." in seen
    apply(form)
    form.find(".page-status", "Applied: every agent runs it.")
    wait_until(lambda: all_applied(fleet), "the tiny model runs")
    assert desired(fleet)["model"] == {"LocalToAgent": str(tiny)}
    assert state_changes(fleet) == changes + 1, "one PUT"

    form.js(
        "window.words = []; new MutationObserver(() => window.words.push("
        "document.querySelector('.rollout-words').textContent)).observe("
        "document.querySelector('.rollout'), {subtree: true, childList: true, characterData: true})"
    )
    use(form, "button", "Put the former state back")
    assert before["model"]["LocalToAgent"] in form.text("[data-change=model] ins")
    apply(form)
    wait_until(lambda: desired(fleet) == before, "the former state is wanted")
    form.find(".page-status", "Applied: every agent runs it.")
    words = set(form.js("return window.words"))
    assert any(one.startswith(("Loads the model", "Warms")) for one in words), words
    assert form.text(".rollout li") == "agent-1\nServes with 4 slots"


def test_the_former_state_can_be_put_back_after_a_look_at_another_page(
    form: Page, fleet: Fleet
) -> None:
    before = desired(fleet)
    retype(form, "#parameter-top_k", "7")
    review(form)
    apply(form)
    form.find(".page-status", "Applied")
    form.click("nav a", "Prompt")
    form.find("#message")
    form.click("nav a", "Model")
    form.find(".apply-bar", "Nothing is changed.")
    use(form, "button", "Put the former state back")
    assert form.text("[data-change=top_k] del") == "7"
    assert form.text("[data-change=top_k] ins") == "80"
    apply(form)
    wait_until(lambda: desired(fleet) == before, "the former state is wanted")


def test_a_single_value_is_said_to_load_the_model_again_and_cancelling_changes_nothing(
    form: Page, fleet: Fleet
) -> None:
    before = desired(fleet)
    retype(form, "#parameter-temperature", "0.85")
    form.press(Keys.ENTER)
    assert "also for a single changed value" in form.text("dialog .effect")
    assert form.text("[data-change=temperature] del") == "0.8"
    assert form.text("[data-change=temperature] ins") == "0.85"
    form.press(Keys.ESCAPE)
    form.wait_gone("dialog")
    assert desired(fleet) == before
    assert form.find(".apply-bar", "1 change")
    form.click("button", "Discard changes")
    assert value(form, "#parameter-temperature") == "0.8"


def test_a_template_that_is_kept_for_later_touches_nothing(form: Page, fleet: Fleet) -> None:
    use(form, "#template-own")
    form.find("#template-text").send_keys("kept for later")
    use(form, "#template-models")
    assert "Agents go on as they are" in review(form)
    apply(form)
    wait_until(
        lambda: desired(fleet)["chat_template_override"] == {"content": "kept for later"}, "stored"
    )
    assert fleet.slots_ready() == 4


def test_a_model_is_unloaded_and_had_back(form: Page, fleet: Fleet) -> None:
    use(form, "#model-none")
    assert "unload the model" in review(form)
    apply(form)
    form.find(".rollout li", "Has no model to run, as asked for")
    assert fleet.slots_ready() == 0
    use(form, "button", "Put the former state back")
    apply(form)
    form.find(".rollout li", "Serves with 4 slots")


def test_what_the_balancer_refuses_is_shown_at_the_form(form: Page, fleet: Fleet) -> None:
    before = desired(fleet)
    use(form, "#template-own")
    form.js(
        "const area = document.getElementById('template-text');"
        "area.value = 'x'.repeat(2 * 1024 * 1024); area.dispatchEvent(new Event('input'))"
    )
    review(form)
    apply(form)
    said = form.find("form .failure", "The balancer refuses it").text
    assert "2097152" in said
    assert form.js("return document.activeElement.matches('.failure')")
    assert desired(fleet) == before
    assert any("413" in line for line in form.console())
    form.click("button", "Discard changes")


def test_an_issue_is_shown_with_what_to_do_and_hostile_names_stay_text(
    form: Page, fleet: Fleet
) -> None:
    retype(form, "#model-path", HOSTILE)
    review(form)
    assert form.text("[data-change=model] ins") == HOSTILE
    apply(form)
    issue = form.find(".rollout-issues")
    form.find(".rollout-issues", HOSTILE)
    assert "Put the file there" in issue.text
    form.find(".rollout-summary", "It has an issue.")
    assert form.js("return window.hacked") is None
    assert form.js("return document.querySelectorAll('main img, main script').length") == 0
    use(form, "button", "Put the former state back")
    apply(form)
    form.find(".rollout-summary", "The agent runs this state.")


# --- fields -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("temperature", "-1", "-1 is too small"),
        ("top_p", "1.5", "1.5 is too large"),
        ("top_k", "2.5", "2.5 is not whole"),
        ("n_batch", "", "Nothing is filled in"),
    ],
)
def test_a_value_that_cannot_be_is_named_at_its_field(
    form: Page, key: str, text: str, said: str
) -> None:
    retype(form, f"#parameter-{key}", text)
    form.press(Keys.ENTER)
    assert said in form.find(f"[data-parameter={key}] .field-error", said).text
    assert form.js("return document.activeElement.id") == f"parameter-{key}"
    assert form.focused.get_attribute("aria-invalid") == "true"
    described = str(form.focused.get_attribute("aria-describedby")).split()
    assert f"parameter-{key}-error" in described
    assert "1 field cannot be" in form.text("form .failure")
    assert form.all("dialog") == []
    use(form, "button", "Discard changes")
    assert form.all("[aria-invalid]") == []


def test_changed_values_are_marked_and_reset_one_by_one_or_all(form: Page) -> None:
    retype(form, "#parameter-top_k", "5")
    retype(form, "#parameter-min_p", "0.125")
    form.find("[data-parameter=top_k] .changed")
    assert len(form.all("[data-changed]")) == 2
    form.find(".apply-bar", "2 changes")
    use(form, "[data-parameter=top_k] .reset", "Reset to 80")
    assert value(form, "#parameter-top_k") == "80"
    assert form.js("return document.activeElement.id") == "parameter-top_k"
    assert len(form.all("[data-changed]")) == 1
    use(form, "button", "Reset all to the defaults")
    assert value(form, "#parameter-min_p") == "0.05"
    # What differs now is what the fleet has that is no default.
    assert value(form, "#parameter-context_size") == "8192"
    assert form.find("[data-parameter=context_size] .changed")
    use(form, "button", "Discard changes")


def test_the_models_own_numbers_give_hints(form: Page) -> None:
    retype(form, "#parameter-context_size", "99999")
    form.find("[data-parameter=context_size] .hint", "trained with 8192 tokens")
    # 100,096 cells of 30 layers, 3 heads of 64 numbers, keys and values, 34 bytes for 32 numbers.
    form.find("[data-parameter=context_size] .hint", "KV cache of all slots takes 1.1 GiB")
    retype(form, "#parameter-n_gpu_layers", "10")
    form.find("[data-parameter=n_gpu_layers] .hint", "The model has 30 layers")
    retype(form, "#model-path", "/another.gguf")
    form.wait_gone("[data-parameter=context_size] .hint")
    use(form, "button", "Discard changes")


def test_an_address_of_the_hub_is_taken_apart(form: Page) -> None:
    use(form, "#model-hub")
    form.js(
        "const field = document.getElementById('model-repo');"
        "field.value = 'https://huggingface.co/a/b/blob/refs%2Fpr%2F1/c/d.gguf';"
        "field.dispatchEvent(new Event('input'))"
    )
    assert value(form, "#model-repo") == "a/b"
    assert value(form, "#model-file") == "c/d.gguf"
    assert value(form, "#model-revision") == "refs/pr/1"
    link = form.find(".source a", "hf:a/b/c/d.gguf@refs/pr/1")
    assert link.get_attribute("href") == "https://huggingface.co/a/b/blob/refs%2Fpr%2F1/c/d.gguf"
    assert str(link.get_attribute("rel")).split() == ["noopener", "noreferrer"]
    use(form, "button", "Discard changes")


def choose_preset(page: Page, name: str) -> None:
    page.js(
        "const field = document.getElementById('preset');"
        "field.value = [...field.options].find((one) => one.text === arguments[0]).value;"
        "field.dispatchEvent(new Event('change'))",
        name,
    )


def test_a_preset_fills_the_form_and_applies_nothing(form: Page, fleet: Fleet) -> None:
    before = desired(fleet)
    choose_preset(form, "Qwen3 0.6B")
    assert value(form, "#parameter-penalty_presence") == "1.5"
    choose_preset(form, "SmolVLM2 256M")
    assert value(form, "#projection-file") == "mmproj-SmolVLM2-256M-Video-Instruct-Q8_0.gguf"
    assert value(form, "#parameter-penalty_presence") == "0.8"
    choose_preset(form, "Qwen3 0.6B")
    assert form.find("#projection-none").is_selected()
    assert value(form, "#model-repo") == "Qwen/Qwen3-0.6B-GGUF"
    assert value(form, "#parameter-temperature") == "0.6"
    form.find("#preset-about", "nothing is applied yet")
    assert "hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf" in review(form)
    form.press(Keys.ESCAPE)
    assert desired(fleet) == before
    use(form, "button", "Discard changes")


# --- the chat template --------------------------------------------------------------------------


def test_the_models_template_is_where_an_own_one_starts(form: Page) -> None:
    use(form, "#template-own")
    use(form, "button", "Start from the model's template")
    form.find(".template-editor .hint", "in the editor")
    template = value(form, "#template-text")
    assert "<|im_start|>" in template
    count = str(len(template.split("\n")))
    assert str(form.js("return document.querySelector('.gutter').textContent")).split()[-1] == count
    use(form, "button", "Try it")
    assert "And of Italy?" in form.text(".rendered")
    use(form, ".trial summary")
    form.find("#template-messages").send_keys('[{"role": "user", "content": "<b>Ho</b>"}]')
    use(form, "button", "Try it")
    form.find(".rendered", "<b>Ho</b>")
    form.find("#template-messages").send_keys("]")
    use(form, "button", "Try it")
    form.find(".trial-result", "The messages are no JSON")
    use(form, "button", "Discard changes")


def test_a_template_that_fails_has_its_line_marked(form: Page) -> None:
    use(form, "#template-own")
    form.find("#template-text").send_keys("a\n{% for m in %}\nb")
    use(form, "button", "Try it")
    form.find(".trial-result .failure", "Expected an expression")
    assert form.text(".error-line") == "Line 2: {% for m in %}"
    assert form.text(".gutter .at-fault") == "2"
    use(form, "button", "Go to line 2")
    assert form.js("return getSelection().toString()") == "{% for m in %}"
    form.press("b")
    assert form.all(".gutter .at-fault") == []
    use(form, "button", "Discard changes")


def test_tab_indents_and_the_keyboard_is_not_trapped(form: Page) -> None:
    use(form, "#template-own")
    area = form.find("#template-text")
    area.send_keys("x", Keys.ENTER, Keys.TAB, "y")
    assert value(form, "#template-text") == "x\n  y"
    area.send_keys(Keys.ESCAPE, Keys.TAB)
    assert form.js("return document.activeElement.textContent") == "Start from the model's template"
    form.press_with_shift(Keys.TAB)
    assert form.js("return document.activeElement.id") == "template-text"
    form.press_with_shift(Keys.TAB)
    assert form.js("return document.activeElement.id") != "template-text"
    use(form, "button", "Discard changes")


def test_an_empty_own_template_is_refused(form: Page) -> None:
    use(form, "#template-own")
    use(form, "button.primary", "Review and apply")
    form.find("form .failure", "Your own chat template is chosen, and empty")
    use(form, "button", "Discard changes")


# --- others -------------------------------------------------------------------------------------


def put(fleet: Fleet, **parameters: Any) -> None:
    state = desired(fleet)
    state["inference_parameters"] |= parameters
    fleet.put_state(state)


def test_somebody_elses_change_is_shown_at_once_if_nothing_is_edited(
    form: Page, fleet: Fleet
) -> None:
    put(fleet, top_k=11)
    form.find(".page-status", "Somebody else (127.0.0.1")
    assert value(form, "#parameter-top_k") == "11"


def test_somebody_elses_change_is_not_written_over(form: Page, fleet: Fleet) -> None:
    retype(form, "#parameter-top_p", "0.5")
    retype(form, "#parameter-top_k", "22")
    put(fleet, top_k=11, min_p=0.25)
    form.find(".notice", "Your changes are still here, and not applied.")
    assert value(form, "#parameter-top_k") == "22"
    use(form, "button.primary", "Review and apply")
    seen = form.find("dialog", "The state was changed meanwhile").text
    assert "You both changed: Top k." in seen
    assert desired(fleet)["inference_parameters"]["top_p"] == 0.8
    form.click("dialog button", "Keep mine on top of theirs")
    review(form)
    assert [one.get_attribute("data-change") for one in form.all("[data-change]")] == [
        "top_p",
        "top_k",
    ]
    apply(form)
    form.find(".page-status", "Applied")
    values = desired(fleet)["inference_parameters"]
    assert (values["top_p"], values["top_k"], values["min_p"]) == (0.5, 22, 0.25)


def test_theirs_can_be_loaded_in_place_of_mine(form: Page, fleet: Fleet) -> None:
    retype(form, "#parameter-top_p", "0.5")
    put(fleet, min_p=0.25)
    use(form, "button", "See what changed")
    form.find("dialog", "Your changes touch other fields.")
    form.click("dialog button", "Load theirs, drop mine")
    assert value(form, "#parameter-top_p") == "0.8"
    assert value(form, "#parameter-min_p") == "0.25"
    form.find(".apply-bar", "Nothing is changed.")


def test_leaving_with_changes_asks(form: Page) -> None:
    retype(form, "#parameter-top_k", "5")
    form.js("document.querySelector('nav a[href=\"/\"]').click()")
    question = form.driver.switch_to.alert
    assert "not applied yet" in question.text
    question.dismiss()
    assert value(form, "#parameter-top_k") == "5"
    assert form.js("return location.pathname") == "/model"
    form.js("document.querySelector('nav a[href=\"/\"]').click()")
    form.driver.switch_to.alert.accept()
    form.wait(lambda: form.js("return location.pathname") == "/", "the dashboard")


# --- for everybody ------------------------------------------------------------------------------


def test_a_value_is_changed_by_keyboard_alone(form: Page, fleet: Fleet) -> None:
    form.tab_to("#parameter-top_k")
    form.js("document.activeElement.select()")
    form.press("9", Keys.ENTER)
    form.find("dialog .effect")
    assert form.focused.text == "Apply"
    form.press(Keys.ENTER)
    form.wait_gone("dialog")
    form.find(".page-status", "Applied")
    assert desired(fleet)["inference_parameters"]["top_k"] == 9
    form.tab_to("button[type=button]:not([hidden])", limit=400)


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("is_dark", [False, True])
def test_the_page_is_accessible(page: Page, size: tuple[int, int], is_dark: bool) -> None:
    opened(page, size=size, is_dark=is_dark)
    use(page, "#model-hub")
    use(page, "#template-own")
    page.find("#template-text").send_keys("{% x %}")
    use(page, "button", "Try it")
    page.find(".trial-result .failure")
    retype(page, "#parameter-top_p", "7")
    use(page, "button.primary", "Review and apply")
    page.find("[aria-invalid]")
    assert page.violations() == []
    assert page.overflow() == 0
    use(page, "button", "Discard changes")
    retype(page, "#parameter-top_p", "0.7")
    review(page)
    assert page.violations() == []
    page.press(Keys.ESCAPE)
    use(page, "button", "Discard changes")


def test_the_state_of_an_empty_balancer_can_be_seen(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    with Fleet(tmp_path) as fleet, clean_page(browser, fleet.panel) as page:
        page.open("/model")
        page.find(".rollout-summary", "No agent is connected.")
        assert page.find("#model-none").is_selected()
        assert request(fleet.panel, "GET", STATE)[0] == 200
