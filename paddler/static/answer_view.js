// @ts-check
// One turn of a conversation as it is shown.

import { endingOf, paceOf } from "./answer.js";
import { copyButton, make, setAttribute, setHidden, setText } from "./dom.js";
import { failureWords } from "./failure_words.js";
import { formatCount, formatMilliseconds, formatNumber } from "./format.js";
import { MarkdownView } from "./markdown_view.js";

/**
 * @typedef {import("./answer.js").Answer} Answer
 * @typedef {import("./answer.js").ToolCall} ToolCall
 * @typedef {import("./chat_request.js").UserTurn} UserTurn
 * @typedef {import("./chat_request.js").ToolTurn} ToolTurn
 */

/** @param {UserTurn} turn @param {Node[]} actions */
export function userView({ text, images }, actions) {
  return make(
    "article",
    { class: "turn user", "aria-label": "You" },
    make("h3", { text: "You" }),
    images.length === 0
      ? null
      : make(
          "ul",
          { class: "previews", "aria-label": "Images" },
          ...images.map((url, index) => make("li", {}, make("img", { src: url, alt: `Image ${index + 1}` }))),
        ),
    make("p", { class: "typed", text }),
    make("div", { class: "turn-actions" }, ...actions),
  );
}

/** @param {ToolTurn} turn @param {Node[]} actions */
export function toolView({ name, text }, actions) {
  return make(
    "article",
    { class: "turn tool", "aria-label": `Result of ${name}` },
    make("h3", { text: `Result of ${name}` }),
    make("pre", { text }),
    make("div", { class: "turn-actions" }, ...actions),
  );
}

export class AnswerView {
  /**
   * @param {Answer} answer
   * @param {boolean} isPlain
   * @param {Node[]} actions
   * @param {(results: string[]) => void} onResults what the tools gave back, call by call
   */
  constructor(answer, isPlain, actions, onResults) {
    this.answer = answer;
    this._onResults = onResults;
    this._isPlain = isPlain;
    this._thought = make("p", { class: "typed" });
    this._thoughtSummary = make("summary");
    this._reasoning = make(
      "details",
      { class: "reasoning", hidden: true },
      this._thoughtSummary,
      this._thought,
    );
    this._markdown = new MarkdownView();
    this._plain = make("pre", { class: "plain" });
    this._calls = make("div", { class: "calls" });
    this._shownCalls = "";
    this._waiting = make("p", { class: "waiting faint", text: "Waits for the first token…" });
    this._figures = make("p", { class: "figures faint" });
    this._failure = make("div", { class: "failure" });
    this._actions = make(
      "div",
      { class: "turn-actions" },
      copyButton(() => answer.content, "this answer"),
      ...actions,
    );
    this.element = make(
      "article",
      { class: "turn model", "aria-label": "Model" },
      make("h3", { text: "Model" }),
      this._reasoning,
      this._markdown.element,
      this._plain,
      this._calls,
      this._waiting,
      this._failure,
      this._figures,
      this._actions,
    );
    this.show();
  }

  /** @param {boolean} isPlain */
  setPlain(isPlain) {
    this._isPlain = isPlain;
    this.show();
  }

  /** Show the answer as it is now. */
  show() {
    const { content, reasoning, calls, state, firstAt } = this.answer;
    const isRunning = state === "running";
    setAttribute(this.element, "aria-busy", isRunning ? "true" : null);
    setHidden(this._reasoning, reasoning === "");
    const isThinking = isRunning && content === "" && calls.length === 0;
    setText(this._thoughtSummary, isThinking ? "Reasons…" : "Reasoning");
    growText(this._thought, reasoning);
    setHidden(this._markdown.element, this._isPlain || content === "");
    setHidden(this._plain, !this._isPlain || content === "");
    if (this._isPlain) growText(this._plain, content);
    else this._markdown.show(content);
    setHidden(this._waiting, !isRunning || firstAt !== null);
    setHidden(this._actions, isRunning);
    this._showCalls();
    setText(this._figures, isRunning ? "" : figuresOf(this.answer));
    this._showFailure();
  }

  _showCalls() {
    const { calls, state } = this.answer;
    const key = JSON.stringify([calls, state]);
    if (key === this._shownCalls) return;
    this._shownCalls = key;
    const known = calls.filter((call) => call !== undefined && call !== null);
    const shown = known.map((call) =>
      make(
        "div",
        { class: "call" },
        make("h4", {}, "Calls ", make("code", { text: call.function.name || "…" })),
        make("pre", {
          "aria-label": `Arguments of ${call.function.name}`,
          text: pretty(call.function.arguments),
        }),
      ),
    );
    const canAnswer = state === "done" && known.length > 0;
    this._calls.replaceChildren(...shown, ...(canAnswer ? [this._resultsForm(known)] : []));
  }

  /** @param {ToolCall[]} calls */
  _resultsForm(calls) {
    const areas = calls.map((call, index) => {
      const id = `result-${call.id || index}`;
      const area = make("textarea", { id, rows: 2, spellcheck: "false" });
      const label = make(
        "label",
        { for: id },
        "What ",
        make("code", { text: call.function.name }),
        " returns",
      );
      return { area, field: make("div", { class: "field" }, label, area) };
    });
    const form = make(
      "form",
      { class: "results" },
      ...areas.map(({ field }) => field),
      make("button", { type: "submit" }, "Give back and go on"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      form.remove();
      this._onResults(areas.map(({ area }) => area.value));
    });
    return form;
  }

  /** The tools' results are given already: nobody is asked for them. */
  settleCalls() {
    this._calls.querySelector("form")?.remove();
  }

  _showFailure() {
    const { state, error, status } = this.answer;
    setHidden(this._failure, state !== "failed");
    if (state !== "failed" || this._failure.childElementCount > 0) return;
    const { title, advice } = failureWords(status, error);
    this._failure.append(
      make("p", {}, make("strong", { text: title })),
      make("p", { class: "said", text: error }),
      make("p", { text: advice }),
    );
  }
}

/** Tokens, pace and how it ended, in a line. @param {Answer} answer */
function figuresOf(answer) {
  const { usage } = answer;
  const { firstMs, perSecond } = paceOf(answer);
  const parts = [endingOf(answer)];
  if (usage !== null) {
    const { cached_tokens: cached } = usage.prompt_tokens_details;
    const { reasoning_tokens: reasoning } = usage.completion_tokens_details;
    parts.push(
      `prompt ${formatCount(usage.prompt_tokens, "token")}${cached > 0 ? ` (${formatNumber(cached)} cached)` : ""}`,
      `generated ${formatNumber(usage.completion_tokens)}${reasoning > 0 ? ` (${formatNumber(reasoning)} reasoning)` : ""}`,
    );
  }
  if (perSecond !== null) parts.push(`${formatNumber(perSecond)} tokens/s`);
  if (firstMs !== null) parts.push(`first token after ${formatMilliseconds(firstMs)}`);
  return parts.filter((part) => part !== "").join(" · ");
}

/** @param {string} text JSON, as far as it has come */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Set a text that mostly grows. @param {HTMLElement} target @param {string} text */
function growText(target, text) {
  const node = target.firstChild;
  if (node instanceof Text && text.startsWith(node.data)) {
    if (text.length > node.data.length) node.appendData(text.slice(node.data.length));
  } else {
    setText(target, text);
  }
}
