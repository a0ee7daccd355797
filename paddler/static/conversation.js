// @ts-check
// The conversation of this tab: it outlives the page that shows it, also while an answer comes,
// and a reload. The browser forgets it with the tab.

import { RELOADED, addEvent, fail, newAnswer } from "./answer.js";
import { ApiError, isAbort, messageOf, post } from "./api.js";
import { isEmpty, newSettings } from "./chat_request.js";
import { eventReader } from "./sse.js";
import { PATHS } from "./wire.js";

/**
 * @typedef {import("./chat_request.js").Turn} Turn
 * @typedef {import("./chat_request.js").Settings} Settings
 * @typedef {import("./answer.js").Answer} Answer
 */

const KEY = "paddler-conversation";
/** Changes with what is kept: a page of another version does not know what to do with it. */
const SHAPE = 1;
const MAX_KEPT_CHARACTERS = 2_000_000;

export class Conversation {
  constructor() {
    /** @type {Turn[]} */
    this.turns = [];
    this.settings = newSettings();
    /** What is typed and not sent. */
    this.draft = "";
    /** @type {string[]} */
    this.images = [];
    /** @type {AbortController | null} */
    this._aborter = null;
    /** @type {Set<() => void>} */
    this._watchers = new Set();
    this._restore();
    window.addEventListener("pagehide", () => this._save());
  }

  /** The answer that comes right now. @returns {Answer | null} */
  get running() {
    const last = this.turns.at(-1);
    return last?.role === "assistant" && last.answer.state === "running" ? last.answer : null;
  }

  /**
   * Call `watcher` whenever something changed.
   * @param {() => void} watcher
   * @returns {() => void} undoes it
   */
  watch(watcher) {
    this._watchers.add(watcher);
    return () => this._watchers.delete(watcher);
  }

  /** @param {Turn} turn */
  add(turn) {
    this.turns.push(turn);
    this._changed();
  }

  /** Keep the first turns only. @param {number} count */
  cut(count) {
    this.stop();
    this.turns.length = Math.min(count, this.turns.length);
    this._changed();
  }

  /** Keep what is being written, for when the page is shown again. */
  keep() {
    this._save();
  }

  /**
   * Ask for an answer, and gather it.
   * @param {Record<string, unknown>} body
   */
  async ask(body) {
    const answer = newAnswer(performance.now());
    const aborter = new AbortController();
    this._aborter = aborter;
    this.turns.push({ role: "assistant", answer });
    this._changed();
    try {
      const response = await post(PATHS.chatCompletions, body, aborter.signal);
      await this._read(response, answer);
      if (answer.state === "running") fail(answer, "The answer broke off.", 0);
    } catch (error) {
      if (isAbort(error)) answer.state = "stopped";
      else if (error instanceof ApiError) fail(answer, error.message, error.status);
      else fail(answer, `The connection broke: ${messageOf(error)}`, 0);
    } finally {
      if (this._aborter === aborter) this._aborter = null;
      this._changed();
    }
  }

  /** Give up the answer that comes; its slot is free then. */
  stop() {
    this._aborter?.abort();
    const { running } = this;
    if (running !== null) running.state = "stopped";
  }

  /**
   * @param {Response} response
   * @param {Answer} answer
   */
  async _read(response, answer) {
    const reader = response.body?.getReader();
    if (reader === undefined) return;
    const decoder = new TextDecoder();
    const eventsOf = eventReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      for (const event of eventsOf(decoder.decode(value, { stream: true }))) {
        if (addEvent(answer, event, performance.now())) {
          await reader.cancel().catch(() => {}); // nothing follows
          return;
        }
      }
      this._tell();
    }
  }

  _changed() {
    this._save();
    this._tell();
  }

  _tell() {
    for (const watcher of [...this._watchers]) watcher();
  }

  _save() {
    const { settings, draft } = this;
    let characters = 0;
    for (const turn of this.turns) {
      if (turn.role === "user") for (const url of turn.images) characters += url.length;
    }
    // The browser's store is small, and images are large.
    const turns =
      characters <= MAX_KEPT_CHARACTERS
        ? this.turns
        : this.turns.map((turn) => (turn.role === "user" ? { ...turn, images: [] } : turn));
    try {
      sessionStorage.setItem(KEY, JSON.stringify({ shape: SHAPE, turns, settings, draft }));
    } catch {
      // Then it holds as long as the page does.
    }
  }

  _restore() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
      if (kept?.shape !== SHAPE) return;
      this.turns = kept.turns;
      this.settings = { ...newSettings(), ...kept.settings };
      this.draft = kept.draft;
    } catch {
      return;
    }
    const { running } = this;
    if (running === null) return;
    running.state = "stopped";
    running.finish = RELOADED;
    if (isEmpty(running)) this.turns.pop();
  }
}
