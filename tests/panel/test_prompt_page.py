"""The Prompt page: a conversation with the real model, and what it takes along."""

import base64
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium.webdriver.common.keys import Keys

from tests.e2e.fleet import Fleet, get, wait_until
from tests.panel.browser import NARROW, WIDE, Page
from tests.tiny_gguf import write_tiny_mmproj

HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1> [x](javascript:hack)"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"place": {"enum": ["Rome", "Bern"]}},
            "required": ["place"],
        },
    },
}


@pytest.fixture
def chat(page: Page) -> Page:
    """The Prompt page without a past; what it sends is noted."""
    return opened(page)


def opened(page: Page, **options: Any) -> Page:
    # Where no conversation is that could be kept; the one of the last test may be written late.
    page.open("/nowhere", **options)
    page.js("sessionStorage.clear()")
    page.open("/prompt", **options)
    page.find("#message")
    page.js(
        "window.sent = []; const real = window.fetch; window.fetch = (path, options) => {"
        "  if (options?.body) window.sent.push(JSON.parse(options.body));"
        "  return real(path, options); };"
    )
    return page


def configure(page: Page, **settings: str) -> None:
    """Fill in how to ask."""
    if not page.all("#setting-temperature"):
        page.click(".settings-more summary")
    for key, text in settings.items():
        field = page.find(f"#setting-{key}")
        page.js("arguments[0].scrollIntoView({block: 'center'})", field)
        page.js(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
            field,
            text,
        )


def say(page: Page, text: str) -> None:
    page.find("#message").send_keys(text, Keys.ENTER)


def answers(page: Page) -> list[str]:
    return [one.text for one in page.all(".turn.model")]


def wait_answered(page: Page, count: int = 1) -> str:
    """The whole of the last answer, once there are so many and none goes on."""

    def look() -> str | None:
        turns = page.all(".turn.model")
        if len(turns) != count or page.all("[aria-busy=true]"):
            return None
        return turns[-1].text

    text: str = page.wait(look, f"{count} answers are complete", 60.0)
    return text


def sent(page: Page) -> list[dict[str, Any]]:
    bodies: list[dict[str, Any]] = page.js("return window.sent")
    return bodies


def announced(page: Page) -> str:
    return str(page.js("return document.getElementById('announcements').textContent"))


def png(color: str = "red", size: int = 32) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (size, size), color).save(data, "PNG")
    return data.getvalue()


def picture(folder: Path, name: str = "dot.png") -> Path:
    path = folder / name
    path.write_bytes(png())
    return path


# --- a conversation -----------------------------------------------------------------------------


def test_a_conversation_goes_on_with_its_history(chat: Page) -> None:
    configure(chat, temperature="0", max_tokens="12", system="You are brief.")
    say(chat, "What is the capital of France?")
    first = wait_answered(chat)
    said = chat.text(".turn.model .markdown")
    for figure in ("prompt ", "generated ", "tokens/s", "first token after"):
        assert figure in first
    say(chat, "And of Italy?")
    wait_answered(chat, 2)
    one, other = sent(chat)
    assert [message["role"] for message in one["messages"]] == ["system", "user"]
    assert [message["role"] for message in other["messages"]] == [
        *("system", "user", "assistant", "user")
    ]
    assert other["messages"][2]["content"].strip() == said
    assert other["temperature"] == 0
    assert other["stream"] is True
    assert "cached" in answers(chat)[1]


def test_an_answer_that_meets_the_limit_says_so(chat: Page) -> None:
    configure(chat, max_tokens="3")
    say(chat, "Tell me a long story.")
    assert "Cut: it reached the most tokens allowed." in wait_answered(chat)


def test_enter_sends_and_shift_with_it_breaks_the_line(chat: Page) -> None:
    configure(chat, max_tokens="2")
    area = chat.find("#message")
    area.send_keys("one")
    chat.press_with_shift(Keys.ENTER)
    area.send_keys("two", Keys.ENTER)
    wait_answered(chat)
    assert sent(chat)[0]["messages"] == [{"role": "user", "content": "one\ntwo"}]
    assert chat.text(".turn.user .typed") == "one\ntwo"
    assert chat.js("return document.activeElement.id") == "message"


def test_blanks_are_not_sent(chat: Page) -> None:
    say(chat, "   ")
    assert chat.all(".turn") == []
    assert not chat.find("button[type=submit]", "Send").is_enabled()


def test_stop_ends_the_answer_and_frees_its_slot(chat: Page, fleet: Fleet) -> None:
    configure(chat, max_tokens="4000", schema='{"type": "array", "minItems": 1900}')
    say(chat, "Count to two thousand.")
    chat.wait(lambda: len(chat.text(".turn.model .markdown")) > 2, "the answer begins")
    assert fleet.slots_busy() == 1
    assert announced(chat) == "The model answers"
    chat.click("button", "Stop")
    fleet.wait_idle()
    chat.find(".figures", "Stopped by you.")
    assert chat.all("button.danger") == []
    chat.wait(lambda: "The answer has ended. Stopped by you." in announced(chat), "it is told")


def test_leaving_the_page_lets_the_answer_go_on_and_a_reload_keeps_it(chat: Page) -> None:
    configure(chat, temperature="0", max_tokens="40")
    say(chat, "Count from one to ten.")
    chat.find(".turn.model")
    chat.click("nav a", "Model")
    chat.find(".apply-bar")
    chat.click("nav a", "Prompt")
    text = wait_answered(chat)
    assert chat.js("return document.querySelector('#setting-max_tokens').value") == "40"
    chat.find("#message").send_keys("not sent")
    chat.press(Keys.TAB)
    chat.driver.refresh()
    assert wait_answered(chat) == text
    assert chat.js("return document.querySelector('#message').value") == "not sent"
    assert chat.js("return Object.keys(localStorage)") == []


def test_an_answer_is_tried_again_and_a_message_edited(chat: Page) -> None:
    configure(chat, temperature="0", max_tokens="4")
    say(chat, "Say yes.")
    wait_answered(chat)
    chat.click(".turn-actions button", "Try again")
    chat.wait(lambda: len(sent(chat)) == 2, "it is asked again")
    wait_answered(chat)
    one, other = sent(chat)
    assert one == other
    chat.click(".turn-actions button", "Edit")
    chat.wait_gone(".turn")
    field = chat.find("#message")
    assert field.get_attribute("value") == "Say yes."
    field.send_keys(" Now.", Keys.ENTER)
    wait_answered(chat)
    assert sent(chat)[2]["messages"] == [{"role": "user", "content": "Say yes. Now."}]


def test_clearing_begins_anew(chat: Page) -> None:
    configure(chat, max_tokens="2")
    say(chat, "Hello")
    wait_answered(chat)
    chat.click(".toolbar button", "Clear")
    chat.find(".log", "Nothing has been said yet.")
    say(chat, "Again")
    wait_answered(chat)
    assert len(sent(chat)[1]["messages"]) == 1


def test_only_the_begin_and_the_end_of_an_answer_are_announced(chat: Page) -> None:
    chat.js(
        "window.told = []; new MutationObserver(() => window.told.push("
        "document.getElementById('announcements').textContent.trim())).observe("
        "document.getElementById('announcements'),"
        "{childList: true, characterData: true, subtree: true})"
    )
    configure(chat, max_tokens="20")
    say(chat, "Tell me a long story.")
    wait_answered(chat)
    chat.wait(lambda: len(chat.js("return window.told")) >= 2, "both are told")
    told = chat.js("return window.told")
    assert told[0] == "The model answers"
    assert told[1].startswith("The answer has ended.")
    assert len(told) == 2


# --- settings -----------------------------------------------------------------------------------


def test_settings_that_cannot_be_are_named_and_nothing_is_sent(chat: Page) -> None:
    configure(chat, temperature="3", schema="{")
    say(chat, "Hello")
    chat.find(".field-error", "3 is out of range")
    chat.find(".field-error", "This is no JSON")
    assert chat.js("return document.activeElement.id") == "setting-temperature"
    assert chat.find("#message").get_attribute("value") == "Hello"
    assert sent(chat) == []


def test_a_schema_shapes_the_answer_and_its_text_stays_text(chat: Page) -> None:
    configure(chat, schema=json.dumps({"const": HOSTILE}), max_tokens="400")
    say(chat, HOSTILE)
    answer = wait_answered(chat)
    assert HOSTILE in answer
    assert chat.text(".turn.user .typed") == HOSTILE
    assert chat.js("return window.hacked") is None
    assert chat.js("return document.querySelectorAll('.log script, .log img, .log a').length") == 0
    chat.click("label", "Answers as plain text")
    assert HOSTILE in chat.text(".turn.model .plain")


def test_a_schema_that_is_none_is_said_in_words(chat: Page) -> None:
    configure(chat, schema='{"type": "nonsense"}')
    say(chat, "Hello")
    failure = chat.find(".turn.model .failure").text
    assert failure.startswith("The JSON schema cannot be used.")
    assert "Correct the schema" in failure
    chat.wait(lambda: "The answer failed." in announced(chat), "it is told")
    assert all("400" in line for line in chat.console())


def test_a_tool_is_called_and_its_result_given_back(chat: Page) -> None:
    configure(chat, tools=json.dumps([WEATHER]), temperature="0", max_tokens="80")
    chat.js("document.getElementById('setting-mustCall').click()")
    say(chat, "What is the weather in Rome?")
    answer = wait_answered(chat)
    assert "Calls get_weather" in answer
    assert "waits for their results" in answer
    arguments = json.loads(chat.text(".call pre"))
    assert arguments["place"] in ("Rome", "Bern")
    chat.js("document.getElementById('setting-mustCall').click()")
    configure(chat, tools="")
    chat.find(".results textarea").send_keys("22 degrees <b>")
    chat.click(".results button", "Give back and go on")
    wait_answered(chat, 2)
    chat.find(".turn.tool", "22 degrees <b>")
    messages = sent(chat)[1]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    (call,) = messages[1]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert messages[2] == {
        "role": "tool",
        "tool_call_id": call["id"],
        "content": "22 degrees <b>",
    }
    assert chat.all(".results") == []


# --- images -------------------------------------------------------------------------------------


def test_images_are_chosen_dropped_pasted_and_taken_out(chat: Page, tmp_path: Path) -> None:
    files = chat.driver.find_element("css selector", "#image-files")
    files.send_keys(f"{picture(tmp_path, 'a.png')}\n{picture(tmp_path, 'b.png')}")
    chat.wait(lambda: len(chat.all(".composer .previews img")) == 2, "two previews")
    give = (
        "const bytes = Uint8Array.from(atob(arguments[0]), (one) => one.charCodeAt(0));"
        "const data = new DataTransfer();"
        "data.items.add(new File([bytes], 'c.png', {type: 'image/png'}));"
    )
    encoded = base64.b64encode(png("blue")).decode()
    chat.js(
        give + "document.querySelector('.chat').dispatchEvent(new DragEvent('drop',"
        "{dataTransfer: data, bubbles: true, cancelable: true}))",
        encoded,
    )
    chat.wait(lambda: len(chat.all(".composer .previews img")) == 3, "three previews")
    chat.js(
        give + "document.querySelector('#message').dispatchEvent(new ClipboardEvent('paste',"
        "{clipboardData: data, bubbles: true, cancelable: true}))",
        encoded,
    )
    chat.wait(lambda: len(chat.all(".composer .previews img")) == 4, "four previews")
    loaded = (
        "return [...document.querySelectorAll('.composer img')]"
        ".every((one) => one.naturalWidth === 32)"
    )
    chat.wait(lambda: chat.js(loaded), "the previews are drawn")
    chat.click(".composer .previews button[aria-label='Remove image 1']")
    chat.wait(lambda: len(chat.all(".composer .previews img")) == 3, "one is taken out")


def test_text_that_is_copied_with_its_picture_is_pasted_as_text(chat: Page) -> None:
    """As word processors and spreadsheets copy it."""
    is_taken = chat.js(
        """
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(9)], "c.png", {type: "image/png"}));
        data.setData("text/plain", "A1");
        data.setData("text/html", "<td>A1");
        const paste = new ClipboardEvent("paste", {
          clipboardData: data, bubbles: true, cancelable: true});
        document.querySelector("#message").dispatchEvent(paste);
        return paste.defaultPrevented;
        """
    )
    assert not is_taken
    assert not chat.all(".composer .previews img")


def test_images_that_come_at_once_stay_within_what_a_request_may_have(chat: Page) -> None:
    chat.js(
        """
        for (let count = 0; count < 4; count += 1) {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(15e6)], `${count}.png`, {type: "image/png"}));
          document.querySelector("#message").dispatchEvent(
            new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
        }
        """
    )
    chat.find(".composer .field-error", "With 3.png all images have more than 45 MiB.")
    assert len(chat.all(".composer .previews li")) == 3
    chat.reset()  # they are large


@pytest.mark.parametrize("kept", ["{}", "[]", '{"turns": [{"role": "x"}]}', '{"turns": 7}'])
def test_a_conversation_kept_by_another_version_is_left_alone(chat: Page, kept: str) -> None:
    chat.open("/nowhere")
    chat.js("sessionStorage.setItem('paddler-conversation', arguments[0])", kept)
    chat.open("/prompt")
    chat.find(".log", "Nothing has been said yet.")


def test_what_is_no_image_is_refused_in_words(chat: Page, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("x")
    empty = tmp_path / "empty.png"
    empty.touch()
    files = chat.driver.find_element("css selector", "#image-files")
    files.send_keys(f"{notes}\n{empty}")
    said = chat.find(".composer .field-error", "notes.txt").text
    assert "text/plain" in said
    assert "PNG, JPEG" in said
    assert "empty.png is empty." in said


def test_an_image_for_a_model_that_sees_none_is_said_in_words(chat: Page, tmp_path: Path) -> None:
    chat.driver.find_element("css selector", "#image-files").send_keys(str(picture(tmp_path)))
    chat.find(".composer .previews img")
    say(chat, "What is this?")
    failure = chat.find(".turn.model .failure").text
    assert failure.startswith("The model cannot see images.")
    assert "multimodal projection on the Model page" in failure
    parts = sent(chat)[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text"]
    assert parts[0]["image_url"]["url"].startswith("data:image/png;base64,")
    chat.find(".turn.user .previews img")
    assert chat.all(".composer .previews img") == []
    assert all("400" in line for line in chat.console())


def test_a_model_with_a_projection_is_asked_about_an_image(
    chat: Page, fleet: Fleet, tmp_path: Path
) -> None:
    before = json.loads(get(fleet.management, "/api/v1/balancer_desired_state")[1])
    projection = write_tiny_mmproj(tmp_path / "mmproj.gguf", projection_width=576)
    fleet.put_state(before | {"multimodal_projection": {"LocalToAgent": str(projection)}})
    try:
        wait_until(lambda: fleet.slots_ready() == 0, "the agent takes it up")
        fleet.wait_slots(4)
        chat.driver.find_element("css selector", "#image-files").send_keys(str(picture(tmp_path)))
        chat.find(".composer .previews img")
        configure(chat, max_tokens="4")
        say(chat, "What is this?")
        assert "tokens/s" in wait_answered(chat)
        assert chat.all(".failure") == []
    finally:
        fleet.put_state(before)
        wait_until(lambda: fleet.slots_ready() == 0, "the agent lets it go")
    fleet.wait_slots(4)


# --- taking it along ----------------------------------------------------------------------------


@pytest.fixture
def copied(chat: Page) -> Page:
    """The Prompt page, which notes what it copies."""
    chat.js("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    return chat


def test_the_request_runs_as_a_curl_line(copied: Page) -> None:
    configure(copied, max_tokens="3", temperature="0")
    say(copied, 'It\'s "quoted" $HOME `id` \\ !')
    wait_answered(copied)
    copied.click("button[aria-label='Copy the request as a curl line']")
    line = copied.wait(lambda: copied.js("return window.copied"), "it is copied")
    assert "/v1/chat/completions" in line
    done = subprocess.run(
        ["sh", "-c", line.replace("curl ", "curl --silent ", 1)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("data: [DONE]")
    assert '"usage"' in done.stdout


def test_the_conversation_and_an_answer_are_copied(copied: Page) -> None:
    configure(copied, max_tokens="3", temperature="0", system="Be brief.")
    say(copied, "Say yes.")
    wait_answered(copied)
    copied.click("button[aria-label='Copy this answer']")
    answer = copied.wait(lambda: copied.js("return window.copied"), "it is copied")
    copied.js("window.copied = ''")
    copied.click("button[aria-label='Copy the conversation as JSON']")
    whole = json.loads(copied.wait(lambda: copied.js("return window.copied"), "it is copied"))
    assert [one["role"] for one in whole["messages"]] == ["system", "user", "assistant"]
    assert whole["messages"][2]["content"] == answer
    assert whole["model"] == "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_the_conversation_is_saved_as_a_file(chat: Page, tmp_path: Path) -> None:
    chat._cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    configure(chat, max_tokens="2")
    say(chat, "Hello ü")
    wait_answered(chat)
    chat.click(".toolbar button", "Save as JSON")
    path = tmp_path / "conversation.json"
    chat.wait(path.exists, "the file is there")
    assert json.loads(path.read_text())["messages"][0] == {"role": "user", "content": "Hello ü"}


# --- Markdown -----------------------------------------------------------------------------------

MARKDOWN = (
    "# Title\n\nSome *text* with `code`, **bold** and https://a.b/c?d=1.\n\n"
    "- one\n- two\n  1. deep\n\n"
    "## Jump\n\n"
    "```html\n<script>window.hacked=1</script>\n```\n\n| a | b |\n|---|---|\n| 1 | <b>2</b> |\n\n"
    "> quoted\n\n<img src=x onerror=window.hacked=1> [bad](javascript:alert(1)) [good](https://x.y)\n\n---\n"
)
SHOW = (
    "const done = arguments[2]; import('/static/markdown_view.js').then(({MarkdownView}) => {"
    "  const [text, size] = arguments; const view = new MarkdownView();"
    "  const title = document.createElement('h3'); title.textContent = 'Model';"
    "  document.querySelector('.log').replaceChildren(title, view.element);"
    "  for (let end = 0; end < text.length; end += size) view.show(text.slice(0, end));"
    "  const first = view.element.firstElementChild; view.show(text);"
    "  done([view.element.innerHTML, first === null || first === view.element.firstElementChild]);"
    "});"
)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_markdown_that_grows_looks_like_the_whole_and_keeps_its_elements(
    chat: Page, size: int
) -> None:
    whole, _ = chat.driver.execute_async_script(SHOW, MARKDOWN, 100_000)
    grown, is_kept = chat.driver.execute_async_script(SHOW, MARKDOWN, size)
    assert grown == whole
    assert is_kept
    assert chat.js("return window.hacked") is None
    assert chat.js("return document.querySelectorAll('.log img, .log script').length") == 0
    links = chat.js(
        "return [...document.querySelectorAll('.log a')]"
        ".map((one) => [one.href, one.rel, one.target])"
    )
    assert links == [
        ["https://a.b/c?d=1", "noopener noreferrer nofollow", "_blank"],
        ["https://x.y/", "noopener noreferrer nofollow", "_blank"],
    ]
    assert chat.text(".code-block code") == "<script>window.hacked=1</script>"
    assert chat.text(".markdown td:nth-child(2)") == "<b>2</b>"
    assert [one.text for one in chat.all(".markdown li")][:2] == ["one", "two\ndeep"]


def test_what_is_selected_stays_while_the_text_grows(chat: Page) -> None:
    kept = chat.driver.execute_async_script(
        "const done = arguments[0]; import('/static/markdown_view.js').then(({MarkdownView}) => {"
        "  const view = new MarkdownView();"
        "  document.querySelector('.log').replaceChildren(view.element);"
        "  view.show('Some words here'); getSelection().selectAllChildren(view.element.firstChild);"
        "  view.show('Some words here, and **more**'); done(getSelection().toString());"
        "});"
    )
    assert kept.startswith("Some words here")


# --- embeddings ---------------------------------------------------------------------------------


def test_the_page_follows_the_fleet_to_embeddings_and_back(
    chat: Page, fleet: Fleet, smollm2_path: Path
) -> None:
    fleet.put_model(
        smollm2_path, context_size=512, n_batch=128, enable_embeddings=True, pooling_type="Mean"
    )
    try:
        chat.find(".embeddings", "The fleet makes embeddings")
        assert not chat.all("#message")
        fleet.wait_slots(4)
        assert chat.violations() == []
        chat.click("button", "Embed")
        chat.find(".field-error", "Nothing is filled in")
        chat.find("#embedding-texts").send_keys(
            "A cat sleeps.\nA cat sleeps.\n\n<img src=x onerror=window.hacked=1>"
        )
        chat.click("button", "Embed")
        chat.find(".embeddings-result", "576 dimensions")
        rows = chat.js(
            "return [...document.querySelectorAll('.matrix tbody tr')].map((row) =>"
            " [...row.cells].slice(1).map((cell) => Number(cell.textContent)))"
        )
        assert len(rows) == 3
        assert [rows[index][index] for index in range(3)] == [1, 1, 1]
        assert rows[0][1] == 1
        assert rows[0][2] < 1
        assert len(chat.all(".vectors li")) == 3
        assert chat.js("return window.hacked") is None
        assert chat.violations() == []
    finally:
        fleet.put_model(smollm2_path, context_size=4096)
    chat.find("#message")
    assert not chat.all(".embeddings")
    fleet.wait_slots(4)
    configure(chat, max_tokens="2")
    say(chat, "Hello")
    wait_answered(chat)


# --- for everybody ------------------------------------------------------------------------------


def test_a_conversation_is_had_by_keyboard_alone(chat: Page) -> None:
    chat.tab_to("#message")
    chat.press("Hi", Keys.ENTER)
    chat.find(".turn.model")
    if chat.all("button.danger"):
        chat.tab_to("button.danger", limit=5)
        chat.press(Keys.ENTER)
    wait_answered(chat)
    chat.tab_to(".turn.user button", limit=300)
    assert chat.focused.text == "Edit"
    chat.press(Keys.ENTER)
    assert chat.js("return document.activeElement.id") == "message"


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("is_dark", [False, True])
def test_the_page_is_accessible(
    page: Page, tmp_path: Path, size: tuple[int, int], is_dark: bool
) -> None:
    opened(page, size=size, is_dark=is_dark)
    configure(page, max_tokens="2")
    say(page, "x")
    wait_answered(page)
    configure(page, max_tokens="0")
    say(page, "y")
    page.find(".field-error", "out of range")
    page.driver.find_element("css selector", "#image-files").send_keys(str(picture(tmp_path)))
    page.find(".composer .previews img")
    page.driver.execute_async_script(SHOW, MARKDOWN, 1000)
    assert page.violations() == []
    assert page.overflow() == 0


def test_a_lost_balancer_is_said_in_words(chat: Page, fleet: Fleet) -> None:
    chat._cdp("Network.enable")
    chat._cdp("Network.setBlockedURLs", urls=["*chat/completions*"])
    say(chat, "Hello")
    assert chat.find(".turn.model .failure").text.startswith("The balancer cannot be reached.")
    chat._cdp("Network.setBlockedURLs", urls=[])
    assert all("chat/completions" in line for line in chat.console())
    configure(chat, max_tokens="2")
    chat.click(".turn-actions button", "Try again")
    wait_until(lambda: not chat.all(".failure"), "the failure is replaced")
    wait_answered(chat)
