// @ts-check
// A subset of Markdown as a tree: what models write, and nothing that a page could run. Time is
// linear in the text, whatever it holds: each marker is looked for once, nesting is bounded.

/**
 * @typedef {{type: "text", text: string}} TextNode
 * @typedef {{type: "code", text: string}} CodeNode
 * @typedef {{type: "break"}} BreakNode
 * @typedef {{type: "strong" | "em" | "del", children: Inline[]}} SpanNode
 * @typedef {{type: "link", href: string, children: Inline[]}} LinkNode
 * @typedef {TextNode | CodeNode | BreakNode | SpanNode | LinkNode} Inline
 */
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

const MAX_NESTING = 8;
const MAX_LABEL = 1000;
const MAX_ADDRESS = 2000;
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
  #settled = 0;

  /**
   * @param {string} text
   * @returns {{settled: Block[], open: Block[]}}
   */
  update(text) {
    const rest = text.slice(this.#settled);
    const lines = linesOf(rest);
    const placed = parseLines(lines, 0);
    // The last line may grow into something else. What begins two lines before it (a table needs
    // both) is what it is, and so is where the block before it ends.
    const complete = lines.length - 1;
    let count = 0;
    while ((placed[count + 1]?.start ?? complete) + 1 < complete) count += 1;
    const from = count < placed.length ? (placed[count]?.start ?? 0) : 0;
    for (let line = 0; line < from; line += 1) this.#settled += (lines[line] ?? "").length + 1;
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
      block: { type: "heading", level, children: parseInline(heading[2] ?? "") }, end: at + 1,
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
  return below !== undefined && (lines[at] ?? "").includes("|") && below.includes("-") &&
    TABLE_LINE.test(below) && cellsOf(lines[at] ?? "").length === cellsOf(below).length;
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
    end < lines.length && !isBlank(lines[end]) && !isTable(lines, end) &&
    !(depth < MAX_NESTING ? startsBlock(lines[end] ?? "") : FENCE.test(lines[end] ?? ""))
  ) {
    end += 1;
  }
  const text = lines.slice(at, end).map((line) => line.trim()).join("\n");
  return { block: { type: "paragraph", children: parseInline(text) }, end };
}

/** @param {string} line */
function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) ||
    ITEM.test(line);
}

/** @param {string | undefined} line */
function isBlank(line) {
  return line === undefined || line.trim() === "";
}

/** @param {string} line */
function indentOf(line) {
  return line.length - line.trimStart().length;
}

// --- inline --------------------------------------------------------------------------------

/**
 * @param {string} text
 * @returns {Inline[]}
 */
export function parseInline(text) {
  return new InlineParser(text, 0, true).parse();
}

class InlineParser {
  /**
   * @param {string} text
   * @param {number} depth
   * @param {boolean} takesLinks
   */
  constructor(text, depth, takesLinks) {
    this.text = text;
    this.depth = depth;
    this.takesLinks = takesLinks;
    this.at = 0;
    this.plain = "";
    /** @type {Inline[]} */
    this.nodes = [];
    /** Where a text was found next, so that nobody looks there again. @type {Map<string, number>} */
    this.found = new Map();
    /** @type {Map<string, number[]>} */
    this.closers = new Map();
  }

  parse() {
    while (this.at < this.text.length) {
      const character = this.text[this.at] ?? "";
      const took = this.#take(character);
      if (!took) {
        this.plain += character;
        this.at += 1;
      }
    }
    this.#flush();
    return this.nodes;
  }

  /** @param {string} character */
  #take(character) {
    switch (character) {
      case "\\":
        return this.#takeEscape();
      case "\n":
        this.#add({ type: "break" }, 1);
        return true;
      case "`":
        return this.#takeCode();
      case "*":
      case "_":
      case "~":
        return this.#takeSpan(character);
      case "[":
        return this.takesLinks && this.#takeLink(this.at);
      case "!":
        // An image is named, not fetched.
        return this.takesLinks && this.text[this.at + 1] === "[" && this.#takeLink(this.at + 1);
      case "<":
        return this.takesLinks && this.#takeAngled();
      case "h":
      case "H":
        return this.takesLinks && this.#takeAddress();
      default:
        return false;
    }
  }

  #takeEscape() {
    const next = this.text[this.at + 1];
    if (next === undefined || !/[!-/:-@[-`{-~]/.test(next)) return false;
    this.plain += next;
    this.at += 2;
    return true;
  }

  #takeCode() {
    let length = 1;
    while (this.text[this.at + length] === "`") length += 1;
    const marker = "`".repeat(length);
    const end = this.#nextRun(marker, this.at + length);
    if (end < 0) {
      this.plain += marker;
      this.at += length;
      return true;
    }
    const inside = this.text.slice(this.at + length, end).replaceAll("\n", " ");
    const isPadded = /^ .* $/.test(inside) && inside.trim() !== "";
    this.#add({ type: "code", text: isPadded ? inside.slice(1, -1) : inside }, end + length - this.at);
    return true;
  }

  /** @param {string} character */
  #takeSpan(character) {
    const isDouble = this.text[this.at + 1] === character;
    if (character === "~" && !isDouble) return false;
    for (const marker of isDouble ? [character + character, character] : [character]) {
      if (character === "~" && marker.length === 1) break;
      const start = this.at + marker.length;
      if (!this.#opens(marker)) continue;
      const end = this.#closerOf(marker, start + 1);
      if (end < 0) continue;
      const inside = this.text.slice(start, end);
      const type = character === "~" ? "del" : marker.length === 2 ? "strong" : "em";
      const children = this.#nested(inside, this.takesLinks);
      this.#add({ type, children }, end + marker.length - this.at);
      return true;
    }
    return false;
  }

  /** @param {string} marker */
  #opens(marker) {
    const next = this.text[this.at + marker.length];
    if (next === undefined || /\s/.test(next)) return false;
    // 2*3*4 is a product.
    if (/\d/.test(next) && /\d/.test(this.text[this.at - 1] ?? "")) return false;
    return marker[0] !== "_" || !/[\p{L}\p{N}]/u.test(this.text[this.at - 1] ?? "");
  }

  /**
   * @param {string} marker
   * @param {number} from
   */
  #closerOf(marker, from) {
    let places = this.closers.get(marker);
    if (places === undefined) {
      places = closersIn(this.text, marker);
      this.closers.set(marker, places);
    }
    let low = 0;
    let high = places.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((places[middle] ?? 0) < from) low = middle + 1;
      else high = middle;
    }
    return places[low] ?? -1;
  }

  /** @param {number} bracket */
  #takeLink(bracket) {
    const middle = this.#next("](", bracket);
    if (middle < 0 || middle - bracket > MAX_LABEL) return false;
    const label = this.text.slice(bracket + 1, middle);
    if (label.includes("[")) return false;
    const address = /^<?(https?:\/\/[^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s+"[^"\n]*")?\)/i.exec(
      this.text.slice(middle + 2, middle + 2 + MAX_ADDRESS),
    );
    if (address === null || address[1] === undefined || !isAddress(address[1])) return false;
    const children = this.#nested(label === "" ? address[1] : label, false);
    this.#add(
      { type: "link", href: address[1], children }, middle + 2 + address[0].length - this.at,
    );
    return true;
  }

  #takeAngled() {
    const piece = this.text.slice(this.at + 1, this.at + 1 + MAX_ADDRESS);
    const address = /^(https?:\/\/[^\s<>]+)>/i.exec(piece)?.[1];
    if (address === undefined || !isAddress(address)) return false;
    const children = [/** @type {Inline} */ ({ type: "text", text: address })];
    this.#add({ type: "link", href: address, children }, address.length + 2);
    return true;
  }

  #takeAddress() {
    if (/[\p{L}\p{N}]/u.test(this.text[this.at - 1] ?? "")) return false;
    if (!/^https?:\/\//i.test(this.text.slice(this.at, this.at + 8))) return false;
    const piece = this.text.slice(this.at, this.at + MAX_ADDRESS);
    const typed = /^https?:\/\/[^\s<>"'`*[\]|\\^{}]+/i.exec(piece)?.[0].replace(/[.,;:!?)]+$/, "");
    if (typed === undefined || !isAddress(typed)) return false;
    const children = [/** @type {Inline} */ ({ type: "text", text: typed })];
    this.#add({ type: "link", href: typed, children }, typed.length);
    return true;
  }

  /**
   * @param {string} text
   * @param {boolean} takesLinks
   * @returns {Inline[]}
   */
  #nested(text, takesLinks) {
    if (this.depth + 1 >= MAX_NESTING) return [{ type: "text", text }];
    return new InlineParser(text, this.depth + 1, takesLinks).parse();
  }

  /**
   * The next place of `wanted`, from `from` on.
   * @param {string} wanted
   * @param {number} from
   */
  #next(wanted, from) {
    const known = this.found.get(wanted);
    if (known !== undefined && (known < 0 || known >= from)) return known;
    const place = this.text.indexOf(wanted, from);
    this.found.set(wanted, place);
    return place;
  }

  /**
   * The next run of backticks that is exactly as long as `marker`.
   * @param {string} marker
   * @param {number} from
   */
  #nextRun(marker, from) {
    const known = this.found.get(marker);
    if (known !== undefined && (known < 0 || known >= from)) return known;
    let place = this.text.indexOf(marker, from);
    while (place >= 0) {
      let end = place + marker.length;
      while (this.text[end] === "`") end += 1;
      if (end === place + marker.length) break;
      place = this.text.indexOf(marker, end);
    }
    this.found.set(marker, place);
    return place;
  }

  /**
   * @param {Inline} node
   * @param {number} length
   */
  #add(node, length) {
    this.#flush();
    this.nodes.push(node);
    this.at += length;
  }

  #flush() {
    if (this.plain !== "") this.nodes.push({ type: "text", text: this.plain });
    this.plain = "";
  }
}

/**
 * Where a marker may end a span: behind something, outside of code, and, if it is of underscores,
 * not within a word.
 * @param {string} text
 * @param {string} marker
 */
function closersIn(text, marker) {
  const places = [];
  const character = marker[0] ?? "";
  let isCode = false;
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === "\\" && !isCode) {
      at += 1;
      continue;
    }
    if (text[at] === "`") isCode = !isCode;
    if (isCode || text[at] !== character) continue;
    let end = at;
    while (text[end] === character) end += 1;
    const run = end - at;
    const isBehind = at > 0 && !/\s/.test(text[at - 1] ?? " ");
    const isWord = character === "_" && /[\p{L}\p{N}]/u.test(text[end] ?? "");
    const isOfLength = marker.length === 2 ? run >= 2 : run === 1 || run >= 3;
    // Of three, the single one closes last: ***both*** is strong around emphasis.
    if (isBehind && !isWord && isOfLength) places.push(marker.length === 2 ? end - 2 : at);
    at = end - 1;
  }
  return places;
}

/** @param {string} text */
function isAddress(text) {
  try {
    return ["http:", "https:"].includes(new URL(text).protocol);
  } catch {
    return false;
  }
}
