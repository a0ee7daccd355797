// @ts-check
// Markdown within a line of text: emphasis, code, links. Time is linear in the text, whatever it
// holds: each marker is looked for once, and nesting is bounded.

/**
 * @typedef {{type: "text", text: string}} TextNode
 * @typedef {{type: "code", text: string}} CodeNode
 * @typedef {{type: "break"}} BreakNode
 * @typedef {{type: "strong" | "em" | "del", children: Inline[]}} SpanNode
 * @typedef {{type: "link", href: string, children: Inline[]}} LinkNode
 * @typedef {TextNode | CodeNode | BreakNode | SpanNode | LinkNode} Inline
 */
export const MAX_NESTING = 8;

const MAX_LABEL = 1000;
const MAX_ADDRESS = 2000;

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
      const took = this._take(character);
      if (!took) {
        this.plain += character;
        this.at += 1;
      }
    }
    this._flush();
    return this.nodes;
  }

  /** @param {string} character */
  _take(character) {
    switch (character) {
      case "\\":
        return this._takeEscape();
      case "\n":
        this._add({ type: "break" }, 1);
        return true;
      case "`":
        return this._takeCode();
      case "*":
      case "_":
      case "~":
        return this._takeSpan(character);
      case "[":
        return this.takesLinks && this._takeLink(this.at);
      case "!":
        // An image is named, not fetched.
        return this.takesLinks && this.text[this.at + 1] === "[" && this._takeLink(this.at + 1);
      case "<":
        return this.takesLinks && this._takeAngled();
      case "h":
      case "H":
        return this.takesLinks && this._takeAddress();
      default:
        return false;
    }
  }

  _takeEscape() {
    const next = this.text[this.at + 1];
    if (next === undefined || !/[!-/:-@[-`{-~]/.test(next)) return false;
    this.plain += next;
    this.at += 2;
    return true;
  }

  _takeCode() {
    let length = 1;
    while (this.text[this.at + length] === "`") length += 1;
    const marker = "`".repeat(length);
    const end = this._nextRun(marker, this.at + length);
    if (end < 0) {
      this.plain += marker;
      this.at += length;
      return true;
    }
    const inside = this.text.slice(this.at + length, end).replaceAll("\n", " ");
    const isPadded = /^ .* $/.test(inside) && inside.trim() !== "";
    this._add({ type: "code", text: isPadded ? inside.slice(1, -1) : inside }, end + length - this.at);
    return true;
  }

  /** @param {string} character */
  _takeSpan(character) {
    const isDouble = this.text[this.at + 1] === character;
    if (character === "~" && !isDouble) return false;
    for (const marker of isDouble ? [character + character, character] : [character]) {
      if (character === "~" && marker.length === 1) break;
      const start = this.at + marker.length;
      if (!this._opens(marker)) continue;
      const end = this._closerOf(marker, start + 1);
      if (end < 0) continue;
      const inside = this.text.slice(start, end);
      const type = character === "~" ? "del" : marker.length === 2 ? "strong" : "em";
      const children = this._nested(inside, this.takesLinks);
      this._add({ type, children }, end + marker.length - this.at);
      return true;
    }
    return false;
  }

  /** @param {string} marker */
  _opens(marker) {
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
  _closerOf(marker, from) {
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
  _takeLink(bracket) {
    const middle = this._next("](", bracket);
    if (middle < 0 || middle - bracket > MAX_LABEL) return false;
    const label = this.text.slice(bracket + 1, middle);
    if (label.includes("[")) return false;
    const address = /^<?(https?:\/\/[^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s+"[^"\n]*")?\)/i.exec(
      this.text.slice(middle + 2, middle + 2 + MAX_ADDRESS),
    );
    if (address === null || address[1] === undefined || !isAddress(address[1])) return false;
    const children = this._nested(label === "" ? address[1] : label, false);
    this._add({ type: "link", href: address[1], children }, middle + 2 + address[0].length - this.at);
    return true;
  }

  _takeAngled() {
    const piece = this.text.slice(this.at + 1, this.at + 1 + MAX_ADDRESS);
    const address = /^(https?:\/\/[^\s<>]+)>/i.exec(piece)?.[1];
    if (address === undefined || !isAddress(address)) return false;
    const children = [/** @type {Inline} */ ({ type: "text", text: address })];
    this._add({ type: "link", href: address, children }, address.length + 2);
    return true;
  }

  _takeAddress() {
    if (/[\p{L}\p{N}]/u.test(this.text[this.at - 1] ?? "")) return false;
    if (!/^https?:\/\//i.test(this.text.slice(this.at, this.at + 8))) return false;
    const piece = this.text.slice(this.at, this.at + MAX_ADDRESS);
    const typed = /^https?:\/\/[^\s<>"'`*[\]|\\^{}]+/i.exec(piece)?.[0].replace(/[.,;:!?)]+$/, "");
    if (typed === undefined || !isAddress(typed)) return false;
    const children = [/** @type {Inline} */ ({ type: "text", text: typed })];
    this._add({ type: "link", href: typed, children }, typed.length);
    return true;
  }

  /**
   * @param {string} text
   * @param {boolean} takesLinks
   * @returns {Inline[]}
   */
  _nested(text, takesLinks) {
    if (this.depth + 1 >= MAX_NESTING) return [{ type: "text", text }];
    return new InlineParser(text, this.depth + 1, takesLinks).parse();
  }

  /**
   * The next place of `wanted`, from `from` on.
   * @param {string} wanted
   * @param {number} from
   */
  _next(wanted, from) {
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
  _nextRun(marker, from) {
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
  _add(node, length) {
    this._flush();
    this.nodes.push(node);
    this.at += length;
  }

  _flush() {
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
