// @ts-check
// The list of agents on their way to a state, and what stands in their way.

import { announce, arrange, make, setAttribute, setHidden, setText } from "./dom.js";
import { describeIssue } from "./issues.js";
import { progressOf, summaryOf } from "./rollout.js";

/**
 * @typedef {import("./live.js").LiveState} LiveState
 * @typedef {import("./rollout.js").Progress} Progress
 * @typedef {object} Row
 * @property {HTMLElement} element
 * @property {HTMLElement} name
 * @property {HTMLProgressElement} bar
 * @property {HTMLElement} words
 * @property {HTMLElement} issues
 * @property {string} shownIssues
 */

// A large fleet is not listed whole: those with issues and those on their way come first.
const MAX_ROWS = 30;

export class RolloutView {
  constructor() {
    /** @type {Map<string, Row>} */
    this._rows = new Map();
    this._wasDone = true;
    this._summary = make("p", { class: "rollout-summary" });
    this._list = make("ul", { class: "rollout" });
    this._more = make("p", { class: "hint" });
    this.element = make("div", {}, this._summary, this._list, this._more);
  }

  /**
   * Gives back whether all agents run the state.
   * @param {LiveState} state
   */
  show(state) {
    const fingerprint = state.desired?.fingerprint ?? "";
    const all = [...state.agents.values()].map((agent) =>
      progressOf(agent, state.facts.get(agent.id), fingerprint),
    );
    all.sort((one, other) => rank(one) - rank(other) || one.name.localeCompare(other.name));
    const shown = all.slice(0, MAX_ROWS);
    for (const id of [...this._rows.keys()]) {
      if (!shown.some((progress) => progress.id === id)) this._rows.delete(id);
    }
    arrange(
      this._list,
      shown.map((progress) => this._row(progress).element),
    );
    setHidden(this._list, shown.length === 0);
    setText(this._more, all.length > shown.length ? `… and ${all.length - shown.length} more.` : "");
    const summary = summaryOf(all);
    setText(this._summary, summary);
    const isDone = all.length > 0 && all.every((progress) => progress.isDone);
    if (isDone !== this._wasDone && isDone) announce(summary);
    this._wasDone = isDone;
    return isDone;
  }

  /** @param {Progress} progress */
  _row(progress) {
    let row = this._rows.get(progress.id);
    if (row === undefined) {
      row = makeRow();
      this._rows.set(progress.id, row);
    }
    setText(row.name, progress.name);
    setText(row.words, progress.words);
    setAttribute(row.element, "data-done", progress.isDone ? "" : null);
    setAttribute(row.element, "data-still", progress.isAtWork ? null : "");
    setHidden(row.bar, !progress.isAtWork);
    setAttribute(row.bar, "aria-label", `${progress.name}: progress`);
    if (progress.fraction === null) row.bar.removeAttribute("value");
    else row.bar.value = progress.fraction;
    const key = JSON.stringify(progress.issues);
    if (key !== row.shownIssues) {
      row.shownIssues = key;
      row.issues.replaceChildren(...progress.issues.map((issue) => showIssue(issue)));
    }
    return row;
  }
}

/** @param {import("./wire.js").AgentIssue} issue */
function showIssue(issue) {
  const { title, paddler, you, more } = describeIssue(issue);
  return make(
    "li",
    {},
    make("strong", { text: title }),
    make("p", { text: `${paddler} ${you}` }),
    more === null
      ? null
      : make("details", {}, make("summary", { text: more.label }), make("pre", { text: more.text })),
  );
}

/** @param {Progress} progress */
function rank({ isDone, issues }) {
  if (issues.length > 0) return 0;
  return isDone ? 2 : 1;
}

/** @returns {Row} */
function makeRow() {
  const name = make("span", { class: "rollout-name" });
  const bar = make("progress", { max: 1 });
  const words = make("span", { class: "rollout-words" });
  const issues = make("ul", { class: "rollout-issues" });
  const element = make("li", {}, name, bar, words, issues);
  return { element, name, bar, words, issues, shownIssues: "[]" };
}
