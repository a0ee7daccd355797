// @ts-check
// How the prompt page asks: system prompt, sampling, reasoning, schema and tools.

import { NUMBER_SETTINGS } from "./chat_request.js";
import { make, setText } from "./dom.js";
import { errorOf, showError } from "./field_error.js";

/**
 * @typedef {import("./chat_request.js").Settings} Settings
 * @typedef {import("./chat_request.js").SettingKey} SettingKey
 */

const TOOL_EXAMPLE = `[{
  "type": "function",
  "function": {
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {
      "type": "object",
      "properties": {"city": {"type": "string"}},
      "required": ["city"]
    }
  }
}]`;

export class SettingsFields {
  /**
   * @param {Settings} settings changed in place
   * @param {() => void} onChange
   */
  constructor(settings, onChange) {
    this._settings = settings;
    this._onChange = onChange;
    /** @type {Map<SettingKey, HTMLInputElement | HTMLTextAreaElement>} */
    this._controls = new Map();
    this._summary = make("span", { class: "hint" });
    this._folded = make(
      "details",
      { class: "settings-more" },
      make("summary", {}, "Sampling, schema and tools ", this._summary),
      make(
        "div",
        { class: "settings-grid" },
        ...NUMBER_SETTINGS.map(({ key, label, range }) =>
          this._field(
            key,
            label,
            `${range}. Empty: the fleet's.`,
            make("input", { type: "text", inputmode: "decimal" }),
          ),
        ),
      ),
      this._field(
        "stop",
        "Stop texts, one a line",
        "An answer ends before any of them.",
        make("textarea", { rows: 2 }),
      ),
      this._field(
        "schema",
        "JSON schema of the answer",
        "The answer is JSON that it allows.",
        make("textarea", {
          rows: 4,
          placeholder: '{"type": "object", "properties": {"city": {"type": "string"}}}',
        }),
      ),
      this._field(
        "tools",
        "Tools (JSON)",
        "Functions that the model may call; you give back what they return.",
        make("textarea", { rows: 6, placeholder: TOOL_EXAMPLE }),
      ),
      this._switch("mustCall", "The model must call a tool"),
    );
    this.element = make(
      "section",
      { class: "card settings", "aria-labelledby": "settings-title" },
      make("h2", { id: "settings-title", text: "How to ask" }),
      this._field(
        "system",
        "System prompt",
        "",
        make("textarea", { rows: 2, placeholder: "You are a helpful assistant." }),
      ),
      this._switch("thinks", "Let the model reason first, if it can"),
      this._folded,
    );
    this._show();
  }

  /** Say at each field what is wrong with it; the first of them gets the focus.
   * @param {Partial<Record<SettingKey, string>>} problems */
  showProblems(problems) {
    let isFirst = true;
    for (const [key, control] of this._controls) {
      showError(control, problems[key] ?? "");
      if (!problems[key] || !isFirst) continue;
      isFirst = false;
      if (key !== "system") this._folded.open = true;
      control.focus();
    }
  }

  /**
   * @param {"thinks" | "mustCall"} key
   * @param {string} label
   */
  _switch(key, label) {
    const input = make("input", { type: "checkbox", id: `setting-${key}` });
    input.checked = this._settings[key];
    input.addEventListener("change", () => {
      this._settings[key] = input.checked;
      this._changed();
    });
    return make("label", { for: input.id }, input, ` ${label}`);
  }

  /**
   * @param {SettingKey} key
   * @param {string} label
   * @param {string} help
   * @param {HTMLInputElement | HTMLTextAreaElement} control
   */
  _field(key, label, help, control) {
    const id = `setting-${key}`;
    control.id = id;
    control.value = this._settings[key];
    control.setAttribute("aria-describedby", `${id}-help ${id}-error`);
    control.setAttribute("autocomplete", "off");
    control.spellcheck = key === "system";
    control.addEventListener("input", () => {
      this._settings[key] = control.value;
      showError(control, "");
      this._changed();
    });
    this._controls.set(key, control);
    return make(
      "div",
      { class: "field" },
      make("label", { for: id, text: label }),
      control,
      make("p", { class: "help", id: `${id}-help`, text: help }),
      errorOf(id),
    );
  }

  _changed() {
    this._show();
    this._onChange();
  }

  _show() {
    const set = [...this._controls.keys()].filter((key) => key !== "system" && this._settings[key] !== "");
    setText(this._summary, set.length === 0 ? "" : `(set: ${set.join(", ")})`);
  }
}
