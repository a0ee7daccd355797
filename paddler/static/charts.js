// @ts-check
// Charts of the last minutes: drawn in SVG, read by pointer and by keyboard, and as a table.
//
// A chart has a fixed number of columns, each some seconds long by the balancer's clock. So a
// column never changes once it is over, and the picture moves without shimmering.

import { clone, make, part, setAttribute, setText } from "./dom.js";
import { formatCount, formatMilliseconds, formatNumber, formatTime } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const COLUMN_S = 5;
const WINDOW_S = 900;
const COLUMNS = WINDOW_S / COLUMN_S;
const TABLE_S = 60;

/**
 * @typedef {import("./wire.js").Sample} Sample
 * @typedef {(samples: readonly Sample[]) => number | null} Measure what one value is made of
 *
 * @typedef {object} Series
 * @property {string} name
 * @property {Measure} measure
 * @property {"area" | "line"} look
 *
 * @typedef {object} ChartKind
 * @property {string} title
 * @property {Series[]} series the first one is what the chart is about
 * @property {(values: (number | null)[]) => string} words the values of a moment
 * @property {(value: number) => string} axis the scale's top
 * @property {number} least the smallest top of the scale
 */

/** @param {(sample: Sample) => number} of @returns {Measure} */
const most = (of) => (samples) => (samples.length === 0 ? null : Math.max(...samples.map(of)));

/** @type {Measure} */
function tokensPerSecond(samples) {
  return samples.length === 0 ? null : samples.reduce((sum, one) => sum + one.tokens, 0) / samples.length;
}

/** @type {Measure} */
export function firstTokenMs(samples) {
  const known = samples.flatMap((one) => (one.first_token_ms === null ? [] : [one.first_token_ms]));
  return known.length === 0 ? null : known.reduce((sum, one) => sum + one, 0) / known.length;
}

/** @type {ChartKind[]} */
const KINDS = [
  {
    title: "Slots",
    series: [
      { name: "busy", measure: most((one) => one.slots_busy), look: "area" },
      { name: "ready", measure: most((one) => one.slots_total), look: "line" },
    ],
    words: ([busy, ready]) => (busy === null ? "unknown" : `${busy} of ${ready} busy`),
    axis: (top) => formatCount(top, "slot"),
    least: 1,
  },
  {
    title: "Waiting in the buffer",
    series: [{ name: "waiting", measure: most((one) => one.waiting), look: "area" }],
    words: ([waiting]) => (waiting === null ? "unknown" : `${waiting} waiting`),
    axis: (top) => `${formatNumber(top)} requests`,
    least: 4,
  },
  {
    title: "Tokens per second",
    series: [{ name: "tokens/s", measure: tokensPerSecond, look: "area" }],
    words: ([rate]) => (rate === null ? "unknown" : `${formatNumber(rate)} tokens/s`),
    axis: (top) => `${formatNumber(top)} tokens/s`,
    least: 10,
  },
  {
    title: "Time to first token",
    series: [{ name: "time", measure: firstTokenMs, look: "line" }],
    words: ([time]) => (time === null ? "no answer began" : formatMilliseconds(time)),
    axis: (top) => formatMilliseconds(top),
    least: 100,
  },
];

/** All charts under `root`. @param {HTMLElement} root */
export function mountCharts(root) {
  const charts = KINDS.map((kind) => new Chart(kind));
  root.append(...charts.map((chart) => chart.figure));
  /** @type {readonly Sample[] | null} */
  let shown = null;
  return {
    /** @param {readonly Sample[]} samples */
    update(samples) {
      if (samples === shown) return;
      shown = samples;
      for (const chart of charts) chart.update(samples);
    },
  };
}

class Chart {
  /** @param {ChartKind} kind */
  constructor(kind) {
    this.figure = clone("chart");
    this._kind = kind;
    /** @type {readonly Sample[]} */
    this._samples = [];
    this._lastColumn = 0; // its number since 1970
    /** @type {(number | null)[][]} per series */
    this._values = kind.series.map(() => []);
    this._tableMinute = 0;
    this._isFollowing = true; // the readout shows what is newest
    setText(part(this.figure, "title"), kind.title);
    this._cursor = /** @type {HTMLInputElement} */ (part(this.figure, "cursor"));
    this._cursor.max = String(COLUMNS - 1);
    this._cursor.value = this._cursor.max;
    this._cursor.setAttribute("aria-label", `${kind.title}: choose a moment`);
    this._draw();
    this._listen();
  }

  _draw() {
    const svg = /** @type {Element} */ (this.figure.querySelector("svg"));
    svg.setAttribute("viewBox", `0 0 ${COLUMNS} 100`);
    this._paths = this._kind.series.map((series) => {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", `series-${series.look}`);
      svg.append(path);
      return path;
    });
    this._mark = document.createElementNS(SVG, "path");
    this._mark.setAttribute("class", "chart-mark");
    svg.append(this._mark);
  }

  _listen() {
    const plot = part(this.figure, "plot");
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const index = Math.floor(((event.clientX - box.left) / box.width) * COLUMNS);
      this._cursor.value = String(Math.min(COLUMNS - 1, Math.max(0, index)));
      this._isFollowing = false;
      this._showMoment();
    });
    plot.addEventListener("pointerleave", () => this._follow());
    this._cursor.addEventListener("input", () => {
      this._isFollowing = false;
      this._showMoment();
    });
    this._cursor.addEventListener("blur", () => this._follow());
    this._cursor.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this._follow();
    });
    part(this.figure, "table").addEventListener("toggle", () => this._showTable());
  }

  /** @param {readonly Sample[]} samples */
  update(samples) {
    const newest = samples[samples.length - 1];
    this._samples = samples;
    // A column is shown once it is over: the newest one is still growing.
    const last = newest === undefined ? 0 : columnOf(newest.at);
    const columns = gather(samples, last);
    this._lastColumn = last;
    this._values = this._kind.series.map((series) => columns.map(series.measure));
    const peaks = this._values.flat().filter((value) => value !== null);
    const top = roundedUp(Math.max(this._kind.least, ...peaks));
    this._kind.series.forEach((series, index) => {
      const path = outline(this._values[index], top, series.look === "area");
      const drawn = this._paths?.[index];
      if (drawn !== undefined) setAttribute(drawn, "d", path);
    });
    setText(part(this.figure, "top"), this._kind.axis(top));
    setText(part(this.figure, "now"), this._kind.words(this._at(COLUMNS - 1)));
    this._showMoment();
    this._showTable();
  }

  /** The values of one column. @param {number} index */
  _at(index) {
    return this._values.map((values) => values[index] ?? null);
  }

  _follow() {
    this._isFollowing = true;
    this._cursor.value = this._cursor.max;
    this._showMoment();
  }

  _showMoment() {
    const index = Number(this._cursor.value);
    const words = this._lastColumn === 0 ? "nothing yet" : this._momentWords(index);
    setAttribute(this._cursor, "aria-valuetext", words);
    setText(part(this.figure, "readout"), this._isFollowing ? "" : words);
    const x = index + 0.5;
    if (this._mark) setAttribute(this._mark, "d", this._isFollowing ? "" : `M${x} 0V100`);
  }

  /** @param {number} index */
  _momentWords(index) {
    const at = (this._lastColumn - (COLUMNS - 1) + index) * COLUMN_S;
    return `${formatTime(at)}: ${this._kind.words(this._at(index))}`;
  }

  /** A row for each minute; made when somebody looks at it. */
  _showTable() {
    const table = /** @type {HTMLDetailsElement} */ (part(this.figure, "table"));
    const newest = this._samples[this._samples.length - 1];
    if (!table.open || newest === undefined) return;
    const minute = Math.floor(newest.at / TABLE_S);
    const content = part(table, "table-content");
    if (minute === this._tableMinute && content.childElementCount > 0) return;
    this._tableMinute = minute;
    const rows = [];
    for (let one = minute; one > minute - WINDOW_S / TABLE_S; one -= 1) {
      const samples = this._samples.filter((sample) => Math.floor(sample.at / TABLE_S) === one);
      if (samples.length === 0) continue;
      const values = this._kind.series.map((series) => series.measure(samples));
      rows.push(
        make(
          "tr",
          {},
          make("th", { scope: "row", text: formatTime(one * TABLE_S) }),
          make("td", { text: this._kind.words(values) }),
        ),
      );
    }
    content.replaceChildren(
      make(
        "table",
        {},
        make("caption", { text: `${this._kind.title}, by minute` }),
        make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "From" }), make("th", { scope: "col", text: this._kind.title }))),
        make("tbody", {}, ...rows),
      ),
    );
  }
}

/** The column that a second belongs to: a sample tells of the second before it. @param {number} at */
function columnOf(at) {
  return Math.floor((at - 0.5) / COLUMN_S);
}

/** The samples of each column up to the `last`. @param {readonly Sample[]} samples @param {number} last */
function gather(samples, last) {
  /** @type {Sample[][]} */
  const columns = Array.from({ length: COLUMNS }, () => []);
  for (const sample of samples) {
    const index = columnOf(sample.at) - last + COLUMNS - 1;
    columns[index]?.push(sample);
  }
  return columns;
}

/** A number that reads well and is not below `value`. @param {number} value */
export function roundedUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 1.5, 2, 3, 4, 5, 6, 8, 10]) {
    if (value <= step * power * 1.000001) return step * power;
  }
  return 10 * power;
}

/**
 * A path in steps, broken where nothing is known.
 * @param {(number | null)[]} values @param {number} top @param {boolean} isFilled
 */
function outline(values, top, isFilled) {
  let path = "";
  let isOpen = false;
  values.forEach((value, x) => {
    if (value === null) {
      if (isOpen && isFilled) path += "V100Z";
      isOpen = false;
      return;
    }
    const y = Math.round((100 - (value / top) * 100) * 10) / 10;
    if (!isOpen) path += isFilled ? `M${x} 100V${y}` : `M${x} ${y}`;
    else path += `V${y}`;
    path += `H${x + 1}`;
    isOpen = true;
  });
  return isOpen && isFilled ? `${path}V100Z` : path;
}
