// @ts-check
// Markdown as elements. A text that grows is shown without making again what is complete, and
// what is not is changed in place, so that nothing flickers and selections stay.

import { copyButton, make } from "./dom.js";
import { MarkdownStream } from "./markdown.js";

/**
 * @typedef {import("./markdown.js").Block} Block
 * @typedef {import("./markdown_inline.js").Inline} Inline
 */

export class MarkdownView {
  constructor() {
    this.element = make("div", { class: "markdown" });
    this._stream = new MarkdownStream();
    this._text = "";
    this._settled = 0;
  }

  /** Show the whole text, which began as it was. @param {string} text */
  show(text) {
    if (text === this._text) return;
    if (!text.startsWith(this._text)) {
      this._stream = new MarkdownStream();
      this._settled = 0;
      this.element.replaceChildren();
    }
    this._text = text;
    const { settled, open } = this._stream.update(text);
    const nodes = [...settled, ...open].map(showBlock);
    patch(this.element, nodes, this._settled);
    this._settled += settled.length;
  }
}

/**
 * Make the children of `parent`, from `start` on, be like `nodes`.
 * @param {Element} parent
 * @param {readonly Node[]} nodes
 * @param {number} start
 */
function patch(parent, nodes, start) {
  nodes.forEach((node, index) => {
    const there = parent.childNodes[start + index];
    if (there === undefined) parent.append(node);
    else if (!there.isEqualNode(node)) patchNode(parent, there, node);
  });
  while (parent.childNodes.length > start + nodes.length) parent.lastChild?.remove();
}

/**
 * @param {Element} parent
 * @param {Node} there
 * @param {Node} wanted
 */
function patchNode(parent, there, wanted) {
  if (there instanceof Text && wanted instanceof Text) {
    // Growing text keeps what is selected in it.
    if (wanted.data.startsWith(there.data)) there.appendData(wanted.data.slice(there.data.length));
    else there.data = wanted.data;
  } else if (
    there instanceof Element &&
    wanted instanceof Element &&
    there.tagName === wanted.tagName &&
    haveSameAttributes(there, wanted) &&
    !there.matches("button")
  ) {
    patch(there, [...wanted.childNodes], 0);
  } else {
    parent.replaceChild(wanted, there);
  }
}

/**
 * @param {Element} one
 * @param {Element} other
 */
function haveSameAttributes(one, other) {
  return (
    one.attributes.length === other.attributes.length &&
    [...one.attributes].every(({ name, value }) => other.getAttribute(name) === value)
  );
}

/** @param {Block} block @returns {HTMLElement} */
function showBlock(block) {
  switch (block.type) {
    case "paragraph":
      return make("p", {}, ...block.children.map(showInline));
    case "heading":
      // One level below the turn's own, whichever the answer begins with; size tells the rest.
      return make("h4", { "data-level": block.level }, ...block.children.map(showInline));
    case "fence":
      return showFence(block.language, block.text);
    case "quote":
      return make("blockquote", {}, ...block.children.map(showBlock));
    case "list": {
      const items = block.items.map((item) => make("li", {}, ...item.map(showBlock)));
      return block.start === null ? make("ul", {}, ...items) : make("ol", { start: block.start }, ...items);
    }
    case "rule":
      return make("hr");
    case "table":
      return showTable(block);
  }
}

/**
 * @param {string} language
 * @param {string} text
 */
function showFence(language, text) {
  const code = make("code", { text });
  return make(
    "div",
    { class: "code-block" },
    make(
      "div",
      { class: "code-head" },
      make("span", { text: language }),
      copyButton(() => code.textContent ?? "", "this code"),
    ),
    make("pre", { tabindex: "0", "aria-label": language === "" ? "Code" : `Code, ${language}` }, code),
  );
}

/** @param {import("./markdown.js").Table} table */
function showTable({ head, rows }) {
  return make(
    "div",
    { class: "scroll", tabindex: "0" },
    make(
      "table",
      {},
      make(
        "thead",
        {},
        make("tr", {}, ...head.map((cell) => make("th", { scope: "col" }, ...cell.map(showInline)))),
      ),
      make(
        "tbody",
        {},
        ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, ...cell.map(showInline))))),
      ),
    ),
  );
}

/** @param {Inline} node @returns {Node} */
function showInline(node) {
  switch (node.type) {
    case "text":
      return document.createTextNode(node.text);
    case "code":
      return make("code", { text: node.text });
    case "break":
      return make("br");
    case "link":
      return make(
        "a",
        { href: node.href, target: "_blank", rel: "noopener noreferrer nofollow" },
        ...node.children.map(showInline),
      );
    default:
      return make(node.type, {}, ...node.children.map(showInline));
  }
}
