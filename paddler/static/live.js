// @ts-check
// The one event stream of a tab, and what it told.
//
//   paused ◄─ tab hidden ─ any            open ─ error, or silence ─► lost ─ countdown ─► connecting
//   paused ─ tab shown ─► connecting ─ first agents ─► open
//
// What was told last stays when the stream is lost. A new connection tells everything anew, and
// replaces what is known piece by piece: nothing is ever empty in between.

import { PATHS, STREAM_EVENTS } from "./wire.js";

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 15_000;
// The balancer tells a sample each second: much longer silence is a dead connection.
const MAX_SILENCE_MS = 8_000;

/**
 * @typedef {"connecting" | "open" | "lost" | "paused"} Connection
 * @typedef {import("./wire.js").AgentSnapshot} AgentSnapshot
 * @typedef {import("./wire.js").AgentFacts} AgentFacts
 * @typedef {import("./wire.js").Sample} Sample
 * @typedef {import("./wire.js").FleetEvent} FleetEvent
 */

/**
 * What is known. Objects in it are replaced when they change, never changed.
 * @typedef {object} LiveState
 * @property {Connection} connection
 * @property {boolean} wasOpen whether anything is known yet
 * @property {number | null} retryAt when the next attempt is made, as `Date.now()` has it
 * @property {number | null} heardAt when the balancer was heard last, as `Date.now()` has it
 * @property {number} clockAheadS how far the balancer's clock is ahead of this one
 * @property {string | null} version of the balancer
 * @property {number} maxSamples
 * @property {Map<string, AgentSnapshot>} agents by id
 * @property {Map<string, AgentFacts>} facts by agent
 * @property {Map<string, number>} rates tokens per second by agent
 * @property {number | null} waiting requests in the buffer
 * @property {import("./wire.js").StateSummary | null} desired what agents are told to run
 * @property {readonly Sample[]} samples oldest first
 * @property {readonly FleetEvent[]} events oldest first
 */

export class Live {
  constructor() {
    /** @type {LiveState} */
    this.state = {
      connection: "connecting",
      wasOpen: false,
      retryAt: null,
      heardAt: null,
      clockAheadS: 0,
      version: null,
      maxSamples: 900,
      agents: new Map(),
      facts: new Map(),
      rates: new Map(),
      waiting: null,
      desired: null,
      samples: [],
      events: [],
    };
    this._maxEvents = 1000;
    /** @type {Set<(state: LiveState) => void>} */
    this._subscribers = new Set();
    this._isFrameDue = false;
    this._failures = 0;
    /** @type {EventSource | null} */
    this._source = null;
    /** @type {number | undefined} */
    this._retryTimer = undefined;
    /** @type {number | undefined} */
    this._silenceTimer = undefined;
  }

  /** Connect, and from then on follow whether the tab is seen. */
  start() {
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this._pause();
      else if (this.state.connection === "paused") this._connect();
    });
    // A page that the browser keeps for its back button must hold no connection.
    window.addEventListener("pagehide", () => this._pause());
    window.addEventListener("pageshow", () => {
      if (this.state.connection === "paused" && !document.hidden) this._connect();
    });
    window.addEventListener("online", () => this.retryNow());
    if (document.hidden) this._pause();
    else this._connect();
  }

  /**
   * Call `subscriber` once soon, and then when something changed: at most once a frame.
   * @param {(state: LiveState) => void} subscriber
   * @returns {() => void} undoes it
   */
  subscribe(subscriber) {
    this._subscribers.add(subscriber);
    this._tell();
    return () => this._subscribers.delete(subscriber);
  }

  /** Try to connect at once, if the balancer is lost. */
  retryNow() {
    if (this.state.connection === "lost") this._connect();
  }

  _connect() {
    this._disconnect();
    this.state.connection = "connecting";
    this.state.retryAt = null;
    const source = new EventSource(PATHS.stream);
    this._source = source;
    source.addEventListener("error", () => this._lose());
    for (const name of STREAM_EVENTS) {
      source.addEventListener(name, (event) => {
        if (source === this._source) this._hear(name, JSON.parse(event.data));
      });
    }
    this._watchSilence();
    this._tell();
  }

  _disconnect() {
    clearTimeout(this._retryTimer);
    clearTimeout(this._silenceTimer);
    this._source?.close();
    this._source = null;
  }

  _pause() {
    this._disconnect();
    this.state.connection = "paused";
    this.state.retryAt = null;
    this._failures = 0;
  }

  _lose() {
    this._disconnect();
    const longest = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** this._failures);
    // Many tabs shall not come back to a restarted balancer all at once.
    const delay = longest * (0.75 + Math.random() / 4);
    this._failures += 1;
    this.state.connection = "lost";
    this.state.retryAt = Date.now() + delay;
    this._retryTimer = setTimeout(() => this._connect(), delay);
    this._tell();
  }

  _watchSilence() {
    clearTimeout(this._silenceTimer);
    this._silenceTimer = setTimeout(() => this._lose(), MAX_SILENCE_MS);
  }

  /** @param {string} name @param {any} data */
  _hear(name, data) {
    const state = this.state;
    state.heardAt = Date.now();
    this._watchSilence();
    switch (name) {
      case "hello":
        this._onHello(data);
        break;
      case "agents":
        this._onAgents(data);
        break;
      case "facts":
        state.facts = replaced(state.facts, data.is_whole, data.changed);
        break;
      case "rates":
        state.rates = new Map([
          ...(data.is_whole ? [] : state.rates),
          ...Object.entries(/** @type {Record<string, number>} */ (data.tokens_per_s)),
        ]);
        break;
      case "buffer":
        state.waiting = data.waiting;
        break;
      case "state":
        state.desired = data;
        break;
      case "samples":
        state.samples = joined(state.samples, data, "at", state.maxSamples);
        break;
      case "events":
        state.events = joined(state.events, data, "id", this._maxEvents);
        break;
    }
    this._tell();
  }

  /** @param {import("./wire.js").Hello} hello */
  _onHello(hello) {
    this.state.version = hello.version;
    this.state.clockAheadS = hello.now - Date.now() / 1000;
    this.state.maxSamples = hello.max_samples;
    this._maxEvents = hello.max_events;
  }

  /** @param {import("./wire.js").AgentsChange} change */
  _onAgents(change) {
    const state = this.state;
    state.agents = replaced(state.agents, change.is_whole, change.changed);
    for (const id of change.gone) {
      state.agents.delete(id);
      state.facts.delete(id);
      state.rates.delete(id);
    }
    state.connection = "open";
    state.wasOpen = true;
    this._failures = 0;
  }

  /** Let subscribers see what is new, once, in the next frame. */
  _tell() {
    if (this._isFrameDue) return;
    this._isFrameDue = true;
    requestAnimationFrame(() => {
      this._isFrameDue = false;
      for (const subscriber of [...this._subscribers]) subscriber(this.state);
    });
  }
}

/**
 * @template {{ id: string }} T
 * @param {Map<string, T>} known @param {boolean} isWhole @param {T[]} changed
 * @returns {Map<string, T>}
 */
function replaced(known, isWhole, changed) {
  const next = new Map(isWhole ? [] : known);
  for (const one of changed) next.set(one.id, one);
  return next;
}

/**
 * What is known and what is new, in order. After a reconnect both may have the same.
 * @template T
 * @param {readonly T[]} known
 * @param {Record<string, any>} change with `is_whole` and a list
 * @param {"at" | "id"} key what goes up from one to the next
 * @param {number} limit
 * @returns {readonly T[]}
 */
function joined(known, change, key, limit) {
  /** @type {T[]} */
  const told = change.samples ?? change.events;
  if (change.is_whole) return told;
  const last = known.length > 0 ? /** @type {any} */ (known[known.length - 1])[key] : -Infinity;
  const news = told.filter((one) => /** @type {any} */ (one)[key] > last);
  return [...known, ...news].slice(-limit);
}
