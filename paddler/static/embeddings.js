// @ts-check
// What the Prompt page shows while the fleet makes embeddings: texts in, vectors out, compared.

import { announce, copyButton, make, setText } from "./dom.js";
import { errorOf, showError } from "./field_error.js";
import { failureWords } from "./failure_words.js";
import { formatCount, formatMilliseconds } from "./format.js";
import { outsideAddress, requestAsCurl } from "./request_as_curl.js";
import { similarityMatrix } from "./similarity.js";
import { PATHS } from "./wire.js";

/** @typedef {import("./panel.js").Context} Context */

const MAX_COMPARED = 20;
const SHOWN_VALUES = 8;
const EXAMPLE = "The cat sits on the mat.\nA kitten rests on a rug.\nStock prices fell sharply today.";

/** What is typed, kept while other pages are shown. */
let typed = "";

export class EmbeddingsPanel {
  /**
   * @param {Context} context
   * @param {() => string} modelName
   */
  constructor({ api, configuration }, modelName) {
    this._api = api;
    this._modelName = modelName;
    this._aborter = new AbortController();
    this._area = make("textarea", {
      id: "embedding-texts",
      rows: 5,
      placeholder: EXAMPLE,
      "aria-describedby": "embedding-texts-error",
      onInput: () => {
        typed = this._area.value;
        showError(this._area, "");
      },
      onKeydown: (event) => {
        const key = /** @type {KeyboardEvent} */ (event);
        if (key.key === "Enter" && (key.ctrlKey || key.metaKey)) this._run();
      },
    });
    this._area.value = typed;
    this._go = make("button", { type: "submit", class: "primary" }, "Embed");
    this._result = make("div", { class: "embeddings-result" });
    const form = make(
      "form",
      { class: "card" },
      make(
        "div",
        { class: "field" },
        make("label", { for: "embedding-texts", text: "Texts, one a line" }),
        this._area,
        errorOf("embedding-texts"),
      ),
      make(
        "p",
        { class: "embeddings-actions" },
        this._go,
        " curl ",
        copyButton(() => {
          const outside = outsideAddress(configuration, location, "/embeddings");
          return requestAsCurl(outside, this._body());
        }, "the request as a curl line"),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this._run();
    });
    this.element = make(
      "div",
      { class: "embeddings" },
      make(
        "p",
        { class: "notice" },
        "The fleet makes embeddings and generates no text. To chat, turn off “Embeddings instead of text” on the ",
        make("a", { href: "/model", text: "Model page" }),
        ".",
      ),
      form,
      this._result,
    );
  }

  close() {
    this._aborter.abort();
  }

  _texts() {
    return this._area.value
      .split("\n")
      .map((line) => line.trim())
      .filter((line) => line !== "");
  }

  _body() {
    return { model: this._modelName(), input: this._texts() };
  }

  async _run() {
    const texts = this._texts();
    if (texts.length === 0) {
      showError(this._area, "Nothing is filled in: write a text on each line.");
      this._area.focus();
      return;
    }
    if (this._go.disabled) return;
    this._go.disabled = true;
    setText(this._go, "Embeds…");
    const startedAt = performance.now();
    try {
      const response = await this._api.post(PATHS.embeddings, this._body(), this._aborter.signal);
      const answer = await response.json();
      this._show(texts, answer, performance.now() - startedAt);
    } catch (error) {
      if (!this._api.isAbort(error)) this._showFailure(error);
    } finally {
      this._go.disabled = false;
      setText(this._go, "Embed");
    }
  }

  /**
   * @param {string[]} texts
   * @param {{data: {embedding: number[]}[], usage: {prompt_tokens: number}}} answer
   * @param {number} spentMs
   */
  _show(texts, answer, spentMs) {
    const vectors = answer.data.map(({ embedding }) => embedding);
    const width = vectors[0]?.length ?? 0;
    const summary =
      `${formatCount(vectors.length, "text")} in ${formatMilliseconds(spentMs)} · ` +
      `${formatCount(width, "dimension")} · ${formatCount(answer.usage.prompt_tokens, "token")}`;
    announce(`Done: ${summary}`);
    const compared = texts.slice(0, MAX_COMPARED);
    this._result.replaceChildren(
      make(
        "section",
        { class: "card", "aria-labelledby": "similarity-title" },
        make("h2", { id: "similarity-title", text: "Cosine similarity" }),
        make("p", { class: "faint", text: summary }),
        texts.length > MAX_COMPARED
          ? make("p", { class: "hint", text: `Compared are the first ${MAX_COMPARED}.` })
          : null,
        matrixTable(compared, similarityMatrix(vectors.slice(0, MAX_COMPARED))),
      ),
      make(
        "section",
        { class: "card", "aria-labelledby": "vectors-title" },
        make("h2", { id: "vectors-title", text: "Vectors" }),
        make("p", {}, "JSON ", copyButton(() => JSON.stringify(vectors), "all vectors as JSON")),
        make(
          "ol",
          { class: "vectors" },
          ...vectors.map((vector, index) =>
            make(
              "li",
              {},
              make("span", { text: texts[index] ?? "" }),
              make("code", {
                text: `[${vector
                  .slice(0, SHOWN_VALUES)
                  .map((value) => value.toFixed(4))
                  .join(", ")}${width > SHOWN_VALUES ? ", …" : ""}]`,
              }),
            ),
          ),
        ),
      ),
    );
  }

  /** @param {unknown} error */
  _showFailure(error) {
    const said = this._api.messageOf(error);
    const status = error instanceof this._api.ApiError ? error.status : 0;
    const { title, advice } = failureWords(status, said);
    announce(title);
    this._result.replaceChildren(
      make(
        "div",
        { class: "failure" },
        make("p", {}, make("strong", { text: title })),
        make("p", { class: "said", text: said }),
        make("p", { text: advice }),
      ),
    );
  }
}

/**
 * @param {readonly string[]} texts
 * @param {readonly (readonly number[])[]} matrix
 */
function matrixTable(texts, matrix) {
  const heads = texts.map((text, index) =>
    make("th", { scope: "col", title: text, text: String(index + 1) }),
  );
  const rows = texts.map((text, row) =>
    make(
      "tr",
      {},
      make("th", { scope: "row", text: `${row + 1}. ${text}` }),
      ...(matrix[row] ?? []).map((value) => {
        const shown = make("td", { text: value.toFixed(3) });
        shown.style.setProperty("--alike", String(Math.max(0, Math.min(1, value))));
        return shown;
      }),
    ),
  );
  return make(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Similarity of each pair" },
    make(
      "table",
      { class: "matrix" },
      make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "Text" }), ...heads)),
      make("tbody", {}, ...rows),
    ),
  );
}
