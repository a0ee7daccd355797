// @ts-check
// An editor of chat templates: line numbers, indentation by Tab, and trials on an agent.

import { make, setText } from "./dom.js";
import { PATHS } from "./wire.js";

/**
 * @typedef {import("./wire.js").TemplateResult} TemplateResult
 * @typedef {typeof import("./api.js")} Api
 */

const INDENT = "  ";
const LEAVE_HINT = "Tab indents. To leave with Tab, press Escape first; Shift+Tab always leaves.";

export class TemplateEditor {
  /**
   * @param {Api} api
   * @param {() => void} onChange
   * @param {() => Promise<string | null>} readModelTemplate the template of the model that is loaded
   */
  constructor(api, onChange, readModelTemplate) {
    this._api = api;
    this._onChange = onChange;
    this._readModelTemplate = readModelTemplate;
    this._escaped = false;
    this._errorLine = 0;
    this._trial = 0;
    this._gutter = make("pre", { class: "gutter", "aria-hidden": "true" });
    this._area = make("textarea", {
      id: "template-text",
      rows: 16,
      wrap: "off",
      spellcheck: "false",
      autocomplete: "off",
      autocapitalize: "off",
      "aria-describedby": "template-keys",
      onInput: () => this._typed(),
      onScroll: () => this._follow(),
      onKeydown: (event) => this._onKey(/** @type {KeyboardEvent} */ (event)),
      onFocus: () => {
        this._escaped = false;
      },
    });
    this._load = make(
      "button",
      { type: "button", onClick: () => this._start() },
      "Start from the model's template",
    );
    this._note = make("p", { class: "hint", role: "status" });
    this._messages = make("textarea", {
      id: "template-messages",
      rows: 5,
      spellcheck: "false",
      placeholder: '[{"role": "user", "content": "Hello"}]',
    });
    this._tools = make("textarea", { id: "template-tools", rows: 3, spellcheck: "false", placeholder: "[]" });
    this._addsPrompt = make("input", { type: "checkbox", id: "template-prompt", checked: true });
    this._thinks = make("input", { type: "checkbox", id: "template-thinks", checked: true });
    this._try = make("button", { type: "button", onClick: () => this.tryIt() }, "Try it");
    this._result = make("div", { class: "trial-result", "aria-live": "polite" });
    this.element = make(
      "div",
      { class: "template-editor" },
      make("label", { for: "template-text", text: "Own template (Jinja)" }),
      make("div", { class: "editor" }, this._gutter, this._area),
      make("p", { class: "help", id: "template-keys", text: LEAVE_HINT }),
      make("p", { class: "actions" }, this._load, this._try),
      this._note,
      this._trialFields(),
      this._result,
    );
    this._number();
  }

  get text() {
    return this._area.value;
  }

  /** @param {string} text */
  write(text) {
    this._area.value = text;
    this._markLine(0);
    this._number();
    this._result.replaceChildren();
  }

  /** Render the template on an agent and show what comes. */
  async tryIt() {
    const trial = ++this._trial;
    /** @type {unknown} */
    let messages;
    /** @type {unknown} */
    let tools;
    try {
      messages = readList(this._messages.value, "The messages");
      tools = readList(this._tools.value, "The tools");
    } catch (error) {
      this._showFailure(this._api.messageOf(error), 0);
      return;
    }
    this._try.setAttribute("aria-busy", "true");
    setText(this._try, "Trying…");
    try {
      const response = await this._api.post(PATHS.renderTemplate, {
        template: this.text,
        messages,
        tools,
        add_generation_prompt: this._addsPrompt.checked,
        enable_thinking: this._thinks.checked,
      });
      /** @type {TemplateResult} */
      const result = await response.json();
      if (trial === this._trial) this._showResult(result);
    } catch (error) {
      if (trial === this._trial) this._showFailure(this._api.messageOf(error), 0);
    } finally {
      if (trial === this._trial) {
        this._try.removeAttribute("aria-busy");
        setText(this._try, "Try it");
      }
    }
  }

  _trialFields() {
    return make(
      "details",
      { class: "trial" },
      make("summary", { text: "What to try it with" }),
      make(
        "div",
        { class: "field" },
        make("label", { for: "template-messages", text: "Messages (JSON; empty: a sample conversation)" }),
        this._messages,
      ),
      make(
        "div",
        { class: "field" },
        make("label", { for: "template-tools", text: "Tools (JSON; empty: none)" }),
        this._tools,
      ),
      make(
        "label",
        { for: "template-prompt" },
        this._addsPrompt,
        " Begin the answer (add_generation_prompt)",
      ),
      make("label", { for: "template-thinks" }, this._thinks, " Let the model reason (enable_thinking)"),
    );
  }

  async _start() {
    if (
      this.text.trim() !== "" &&
      !window.confirm("Replace what is in the editor by the model's template?")
    ) {
      return;
    }
    setText(this._note, "Asking an agent…");
    try {
      const template = await this._readModelTemplate();
      setText(
        this._note,
        template === null
          ? "No agent has loaded a model that carries a chat template."
          : "The model's template is in the editor.",
      );
      if (template !== null) {
        this.write(template);
        this._onChange();
        this._area.focus();
      }
    } catch (error) {
      setText(this._note, `The model's template cannot be had: ${this._api.messageOf(error)}`);
    }
  }

  /** @param {TemplateResult} result */
  _showResult({ text, error, line }) {
    if (text === null) {
      this._showFailure(error ?? "The template fails.", line ?? 0);
      return;
    }
    this._markLine(0);
    this._result.replaceChildren(
      make("h3", { text: `The prompt, ${text.length} characters` }),
      make("pre", { class: "rendered", tabindex: "0", "aria-label": "Rendered prompt", text }),
    );
  }

  /** @param {string} text @param {number} line 0: none in particular */
  _showFailure(text, line) {
    this._markLine(line);
    const parts = [make("p", { class: "failure", text })];
    const source = line > 0 ? this.text.split("\n")[line - 1] : undefined;
    if (source !== undefined) {
      parts.push(
        make(
          "p",
          { class: "error-line" },
          make("span", { text: `Line ${line}: ` }),
          make("code", { text: source }),
        ),
        make(
          "p",
          {},
          make("button", { type: "button", onClick: () => this._goTo(line) }, `Go to line ${line}`),
        ),
      );
    }
    this._result.replaceChildren(...parts);
  }

  /** @param {number} line */
  _goTo(line) {
    const lines = this.text.split("\n");
    const start = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
    this._area.focus();
    this._area.setSelectionRange(start, start + (lines[line - 1] ?? "").length);
    const height = this._area.scrollHeight / Math.max(1, lines.length);
    this._area.scrollTop = Math.max(0, (line - 4) * height);
  }

  _typed() {
    this._markLine(0);
    this._number();
    this._onChange();
  }

  /** @param {KeyboardEvent} event */
  _onKey(event) {
    if (event.key === "Escape") {
      this._escaped = true;
    } else if (event.key === "Tab" && !event.shiftKey && !this._escaped && !event.ctrlKey && !event.altKey) {
      event.preventDefault();
      // As if it was typed, so that it can be undone.
      document.execCommand("insertText", false, INDENT);
    } else if (event.key !== "Tab" && event.key !== "Shift") {
      this._escaped = false;
    }
  }

  _number() {
    const count = this._area.value.split("\n").length;
    if (this._gutter.childElementCount === count) return;
    const numbers = Array.from({ length: count }, (_, index) => make("span", { text: `${index + 1}\n` }));
    this._gutter.replaceChildren(...numbers);
    this._follow();
  }

  _follow() {
    this._gutter.scrollTop = this._area.scrollTop;
  }

  /** @param {number} line */
  _markLine(line) {
    this._number();
    this._gutter.children[this._errorLine - 1]?.classList.remove("at-fault");
    this._errorLine = line;
    this._gutter.children[line - 1]?.classList.add("at-fault");
  }
}

/** @param {string} text @param {string} what */
function readList(text, what) {
  if (text.trim() === "") return null;
  /** @type {unknown} */
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`${what} are no JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!Array.isArray(value)) throw new Error(`${what} must be a JSON list.`);
  return value;
}
