// @ts-check
// A subset of Markdown as a tree: what models write, and nothing that a page could run. Time is
// linear in the text, whatever it holds, and nesting is bounded.

import { MAX_NESTING, parseInline } from "./markdown_inline.js";

/** @typedef {import("./markdown_inline.js").Inline} Inline */
/**
 * @typedef {{type: "paragraph", children: Inline[]}} Paragraph
 * @typedef {{type: "heading", level: number, children: Inline[]}} Heading
 * @typedef {{type: "fence", language: string, text: string}} Fence
 * @typedef {{type: "quote", children: Block[]}} Quote
 * @typedef {{type: "list", start: number | null, items: Block[][]}} List
 * @typedef {{type: "rule"}} Rule
 * @typedef {{type: "table", head: Inline[][], rows: Inline[][][]}} Table
 * @typedef {Paragraph | Heading | Fence | Quote | List | Rule | Table} Block
 */
/** @typedef {{block: Block, start: number, end: number}} Placed lines, the end excluded */

const MAX_CELLS = 64;

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?(?:\s#+)?\s*$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( {1,4}(?=\S)|\s*$)/;
const TABLE_LINE = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;

/**
 * @param {string} text
 * @returns {Block[]}
 */
export function parseMarkdown(text) {
  return parseLines(linesOf(text), 0).map(({ block }) => block);
}

/**
 * Reads a text that grows. Each call of `update` gives the whole text so far and gets the blocks
 * that are complete since the last call, and the ones that may yet change. Complete ones are
 * never parsed again.
 */
export class MarkdownStream {
  _settled = 0;

  /**
   * @param {string} text
   * @returns {{settled: Block[], open: Block[]}}
   */
  update(text) {
    const rest = text.slice(this._settled);
    const lines = linesOf(rest);
    const placed = parseLines(lines, 0);
    // The last line may grow into something else. What begins two lines before it (a table needs
    // both) is what it is, and so is where the block before it ends.
    const complete = lines.length - 1;
    let count = 0;
    while ((placed[count + 1]?.start ?? complete) + 1 < complete) count += 1;
    const from = count < placed.length ? (placed[count]?.start ?? 0) : 0;
    for (let line = 0; line < from; line += 1) this._settled += (lines[line] ?? "").length + 1;
    const blocks = placed.map(({ block }) => block);
    return { settled: blocks.slice(0, count), open: blocks.slice(count) };
  }
}

// --- blocks --------------------------------------------------------------------------------

/** @param {string} text */
function linesOf(text) {
  return text.split("\n");
}

/**
 * @param {string[]} lines
 * @param {number} depth
 * @returns {Placed[]}
 */
function parseLines(lines, depth) {
  /** @type {Placed[]} */
  const placed = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const { block, end } = parseBlock(lines, at, depth);
    placed.push({ block, start: at, end });
    at = end;
  }
  return placed;
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @param {number} depth
 * @returns {{block: Block, end: number}}
 */
function parseBlock(lines, at, depth) {
  const line = lines[at] ?? "";
  const fence = FENCE.exec(line);
  if (fence) return parseFence(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) {
    const level = heading[1]?.length ?? 1;
    return {
      block: { type: "heading", level, children: parseInline(heading[2] ?? "") },
      end: at + 1,
    };
  }
  if (RULE.test(line)) return { block: { type: "rule" }, end: at + 1 };
  if (depth < MAX_NESTING && QUOTE.test(line)) return parseQuote(lines, at, depth);
  if (depth < MAX_NESTING && ITEM.test(line)) return parseList(lines, at, depth);
  if (isTable(lines, at)) return parseTable(lines, at);
  return parseParagraph(lines, at, depth);
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @param {RegExpExecArray} opening
 * @returns {{block: Block, end: number}}
 */
function parseFence(lines, at, opening) {
  const marker = opening[1] ?? "```";
  const closing = new RegExp(`^ {0,3}\\${marker[0]}{${marker.length},}\\s*$`);
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end] ?? "")) end += 1;
  /** @type {Fence} */
  const block = {
    type: "fence",
    language: (opening[2] ?? "").trim().split(/\s/)[0] ?? "",
    text: lines.slice(at + 1, end).join("\n"),
  };
  return { block, end: Math.min(end + 1, lines.length) };
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @param {number} depth
 * @returns {{block: Block, end: number}}
 */
function parseQuote(lines, at, depth) {
  let end = at;
  const inner = [];
  while (end < lines.length && QUOTE.test(lines[end] ?? "")) {
    inner.push((lines[end] ?? "").replace(QUOTE, ""));
    end += 1;
  }
  const children = parseLines(inner, depth + 1).map(({ block }) => block);
  return { block: { type: "quote", children }, end };
}

/**
 * A list goes on while its lines are items of its kind, stand deeper, or continue a text.
 * @param {string[]} lines
 * @param {number} at
 * @param {number} depth
 * @returns {{block: Block, end: number}}
 */
function parseList(lines, at, depth) {
  const first = ITEM.exec(lines[at] ?? "");
  const number = Number.parseInt(first?.[2] ?? "", 10);
  const isOrdered = !Number.isNaN(number);
  /** @type {string[][]} */
  const items = [];
  let indent = 0;
  let end = at;
  for (let next = at; next < lines.length; next += 1) {
    const line = lines[next] ?? "";
    const item = RULE.test(line) ? null : ITEM.exec(line);
    const isDeeper = items.length > 0 && indentOf(line) >= Math.min(indent, 2) && indentOf(line) > 0;
    const current = items.at(-1);
    if (isBlank(line)) {
      current?.push("");
      continue;
    }
    if (isDeeper && !(item && indentOf(line) < indent && isTop(lines[at], line))) {
      current?.push(line.slice(Math.min(indent, indentOf(line))));
    } else if (item && /^\d/.test(item[2] ?? "") === isOrdered) {
      indent = item[0].length;
      items.push([line.slice(indent)]);
      if (item[0].trim() === line.trim()) indent = (item[1]?.length ?? 0) + (item[2]?.length ?? 0) + 1;
    } else if (lines[next - 1] !== undefined && !isBlank(lines[next - 1]) && !startsBlock(line)) {
      current?.push(line);
    } else {
      break;
    }
    end = next + 1;
  }
  return {
    block: {
      type: "list",
      start: isOrdered ? number : null,
      items: items.map((item) => parseLines(item, depth + 1).map(({ block }) => block)),
    },
    end,
  };
}

/**
 * Whether a line stands no deeper than the list's first one.
 * @param {string | undefined} first
 * @param {string} line
 */
function isTop(first, line) {
  return indentOf(line) <= indentOf(first ?? "");
}

/**
 * @param {string[]} lines
 * @param {number} at
 */
function isTable(lines, at) {
  const below = lines[at + 1];
  return (
    below !== undefined &&
    (lines[at] ?? "").includes("|") &&
    below.includes("-") &&
    TABLE_LINE.test(below) &&
    cellsOf(lines[at] ?? "").length === cellsOf(below).length
  );
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @returns {{block: Block, end: number}}
 */
function parseTable(lines, at) {
  const head = cellsOf(lines[at] ?? "").map(parseInline);
  const rows = [];
  let end = at + 2;
  while (end < lines.length && !isBlank(lines[end]) && (lines[end] ?? "").includes("|")) {
    const cells = cellsOf(lines[end] ?? "");
    rows.push(head.map((_, column) => parseInline(cells[column] ?? "")));
    end += 1;
  }
  return { block: { type: "table", head, rows }, end };
}

/**
 * The cells of a table's line; a bar behind a backslash or within backticks divides nothing.
 * @param {string} line
 */
function cellsOf(line) {
  const cells = [""];
  let isCode = false;
  for (let at = 0; at < line.length; at += 1) {
    const character = line[at] ?? "";
    if (character === "\\" && line[at + 1] === "|") {
      cells[cells.length - 1] += "|";
      at += 1;
    } else if (character === "|" && !isCode && cells.length <= MAX_CELLS) {
      cells.push("");
    } else {
      if (character === "`") isCode = !isCode && line.includes("`", at + 1);
      cells[cells.length - 1] += character;
    }
  }
  if (cells[0]?.trim() === "") cells.shift();
  if (cells.at(-1)?.trim() === "") cells.pop();
  return cells.map((cell) => cell.trim());
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @param {number} depth
 * @returns {{block: Block, end: number}}
 */
function parseParagraph(lines, at, depth) {
  let end = at + 1;
  while (
    end < lines.length &&
    !isBlank(lines[end]) &&
    !isTable(lines, end) &&
    !(depth < MAX_NESTING ? startsBlock(lines[end] ?? "") : FENCE.test(lines[end] ?? ""))
  ) {
    end += 1;
  }
  const text = lines
    .slice(at, end)
    .map((line) => line.trim())
    .join("\n");
  return { block: { type: "paragraph", children: parseInline(text) }, end };
}

/** @param {string} line */
function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

/** @param {string | undefined} line */
function isBlank(line) {
  return line === undefined || line.trim() === "";
}

/** @param {string} line */
function indentOf(line) {
  return line.length - line.trimStart().length;
}
