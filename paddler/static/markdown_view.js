// @ts-check
// Markdown as elements. A text that grows is shown without making again what is complete. What is
// not is compared with what was shown, and only what differs is touched: nothing flickers,
// selections stay, and a long block costs little.

import { copyButton, make } from "./dom.js";
import { MarkdownStream } from "./markdown.js";

/**
 * @typedef {import("./markdown.js").Block} Block
 * @typedef {import("./markdown_inline.js").Inline} Inline
 */
/**
 * An element to be, or a text. The tag `copy` stands for a button that copies its code block.
 * @typedef {{tag: string, attributes: Record<string, string>, children: Piece[]}} Shape
 * @typedef {Shape | string} Piece
 */

export class MarkdownView {
  constructor() {
    this.element = make("div", { class: "markdown" });
    this._stream = new MarkdownStream();
    this._text = "";
    this._settled = 0;
    /** What is shown of the blocks that may yet change. @type {Piece[]} */
    this._open = [];
  }

  /** Show the whole text, which began as it was. @param {string} text */
  show(text) {
    if (text === this._text) return;
    if (!text.startsWith(this._text)) {
      this._stream = new MarkdownStream();
      this._settled = 0;
      this._open = [];
      this.element.replaceChildren();
    }
    this._text = text;
    const { settled, open } = this._stream.update(text);
    const pieces = [...settled, ...open].map(shapeOf);
    patch(this.element, this._open, pieces, this._settled);
    this._settled += settled.length;
    this._open = pieces.slice(settled.length);
  }
}

// --- what is to be shown ---------------------------------------------------------------------

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {Piece[]} children
 * @returns {Shape}
 */
function shape(tag, attributes, children) {
  return { tag, attributes, children };
}

/** @param {Block} block @returns {Shape} */
function shapeOf(block) {
  switch (block.type) {
    case "paragraph":
      return shape("p", {}, block.children.map(inlineOf));
    case "heading":
      // One level below the turn's own, whichever the answer begins with; size tells the rest.
      return shape("h4", { "data-level": String(block.level) }, block.children.map(inlineOf));
    case "fence":
      return fenceOf(block.language, block.text);
    case "quote":
      return shape("blockquote", {}, block.children.map(shapeOf));
    case "list": {
      const items = block.items.map((item) => shape("li", {}, item.map(shapeOf)));
      return block.start === null
        ? shape("ul", {}, items)
        : shape("ol", { start: String(block.start) }, items);
    }
    case "rule":
      return shape("hr", {}, []);
    case "table":
      return tableOf(block);
  }
}

/**
 * @param {string} language
 * @param {string} text
 */
function fenceOf(language, text) {
  const label = language === "" ? "Code" : `Code, ${language}`;
  return shape("div", { class: "code-block" }, [
    shape("div", { class: "code-head" }, [shape("span", {}, [language]), shape("copy", {}, [])]),
    shape("pre", { tabindex: "0", "aria-label": label }, [shape("code", {}, [text])]),
  ]);
}

/** @param {import("./markdown.js").Table} table */
function tableOf({ head, rows }) {
  const heads = head.map((cell) => shape("th", { scope: "col" }, cell.map(inlineOf)));
  const lines = rows.map((row) =>
    shape(
      "tr",
      {},
      row.map((cell) => shape("td", {}, cell.map(inlineOf))),
    ),
  );
  const table = shape("table", {}, [
    shape("thead", {}, [shape("tr", {}, heads)]),
    shape("tbody", {}, lines),
  ]);
  return shape("div", { class: "scroll", tabindex: "0" }, [table]);
}

/** @param {Inline} node @returns {Piece} */
function inlineOf(node) {
  switch (node.type) {
    case "text":
      return node.text;
    case "code":
      return shape("code", {}, [node.text]);
    case "break":
      return shape("br", {}, []);
    case "link":
      return shape(
        "a",
        { href: node.href, target: "_blank", rel: "noopener noreferrer nofollow" },
        node.children.map(inlineOf),
      );
    default:
      return shape(node.type, {}, node.children.map(inlineOf));
  }
}

// --- showing it ------------------------------------------------------------------------------

/** @param {Piece} piece @returns {Node} */
function nodeOf(piece) {
  if (typeof piece === "string") return document.createTextNode(piece);
  if (piece.tag === "copy") {
    const button = copyButton(
      () => button.closest(".code-block")?.querySelector("code")?.textContent ?? "",
      "this code",
    );
    return button;
  }
  const tag = /** @type {keyof HTMLElementTagNameMap} */ (piece.tag);
  return make(tag, piece.attributes, ...piece.children.map(nodeOf));
}

/**
 * Make the children of `parent`, from `start` on, those of `wanted`; now they are those of `shown`.
 * @param {Node} parent
 * @param {readonly Piece[]} shown
 * @param {readonly Piece[]} wanted
 * @param {number} start
 */
function patch(parent, shown, wanted, start) {
  wanted.forEach((piece, index) => {
    const before = shown[index];
    if (before === undefined) {
      parent.appendChild(nodeOf(piece));
    } else if (!isSame(before, piece)) {
      const node = parent.childNodes[start + index];
      if (node !== undefined) patchNode(node, before, piece);
    }
  });
  while (parent.childNodes.length > start + wanted.length) parent.lastChild?.remove();
}

/**
 * @param {Node} node
 * @param {Piece} shown
 * @param {Piece} wanted
 */
function patchNode(node, shown, wanted) {
  if (node instanceof Text && typeof wanted === "string") {
    // Growing text keeps what is selected in it.
    if (wanted.startsWith(node.data)) node.appendData(wanted.slice(node.data.length));
    else node.data = wanted;
  } else if (typeof shown !== "string" && typeof wanted !== "string" && isSameElement(shown, wanted)) {
    patch(node, shown.children, wanted.children, 0);
  } else {
    node.parentNode?.replaceChild(nodeOf(wanted), node);
  }
}

/**
 * @param {Piece} one
 * @param {Piece} other
 * @returns {boolean}
 */
function isSame(one, other) {
  if (typeof one === "string" || typeof other === "string") return one === other;
  return (
    isSameElement(one, other) &&
    one.children.length === other.children.length &&
    one.children.every((child, index) => isSame(child, /** @type {Piece} */ (other.children[index])))
  );
}

/**
 * @param {Shape} one
 * @param {Shape} other
 */
function isSameElement(one, other) {
  if (one.tag !== other.tag) return false;
  const names = Object.keys(one.attributes);
  return (
    names.length === Object.keys(other.attributes).length &&
    names.every((name) => one.attributes[name] === other.attributes[name])
  );
}
