// @ts-check
// What happened to the fleet, newest first.

import { announce, arrange, make, part, setHidden, setText } from "./dom.js";
import { eventText } from "./event_text.js";
import { formatCount, formatDateTime, formatTime } from "./format.js";

const MAX_SHOWN = 200;

/**
 * @typedef {import("./wire.js").FleetEvent} FleetEvent
 * @typedef {"bad" | "good" | "plain"} Level
 */

/** What each kind is called, and how it is marked. @type {Record<string, [string, Level]>} */
const KINDS = {
  agent_joined: ["joined", "good"],
  agent_left: ["left", "plain"],
  agent_refused: ["refused", "bad"],
  agent_status: ["status", "plain"],
  issue_raised: ["issue", "bad"],
  issue_cleared: ["solved", "good"],
  model_loaded: ["model", "good"],
  model_unloaded: ["model", "plain"],
  worker_restarted: ["worker", "bad"],
  state_changed: ["wanted", "plain"],
  agent_drained: ["operator", "plain"],
  agent_resumed: ["operator", "plain"],
  agent_disconnected: ["operator", "plain"],
  host_oversubscribed: ["host", "bad"],
  requests_refused: ["requests", "bad"],
};

/** @type {Record<string, readonly string[] | null>} */
const GROUPS = {
  Everything: null,
  "Agents come and go": ["agent_joined", "agent_left", "agent_refused", "agent_status"],
  Models: ["model_loaded", "model_unloaded", "state_changed"],
  Issues: ["issue_raised", "issue_cleared", "worker_restarted", "host_oversubscribed"],
  "Refused requests": ["requests_refused"],
  Operators: ["agent_drained", "agent_resumed", "agent_disconnected", "state_changed"],
};

/** The kinds that have words. */
export const DESCRIBED_EVENTS = Object.freeze(Object.keys(KINDS));

/** @param {HTMLElement} root of the dashboard */
export function mountEvents(root) {
  const list = part(root, "events");
  const none = part(root, "events-none");
  const kinds = /** @type {HTMLSelectElement} */ (part(root, "event-kind"));
  const search = /** @type {HTMLInputElement} */ (part(root, "event-search"));
  kinds.append(...Object.keys(GROUPS).map((name) => make("option", { value: name, text: name })));

  /** @type {readonly FleetEvent[]} */
  let events = [];
  /** @type {Map<number, HTMLElement>} by id */
  const items = new Map();

  function show() {
    const wanted = GROUPS[kinds.value];
    const words = search.value.trim().toLowerCase();
    const shown = [];
    for (let index = events.length - 1; index >= 0 && shown.length < MAX_SHOWN; index -= 1) {
      const event = events[index];
      if (wanted && !wanted.includes(event.kind)) continue;
      if (words && !eventText(event).toLowerCase().includes(words)) continue;
      shown.push(event);
    }
    const kept = new Set(shown.map((event) => event.id));
    for (const id of items.keys()) if (!kept.has(id)) items.delete(id);
    arrange(list, shown.map((event) => itemOf(event)));
    setHidden(none, shown.length > 0);
    setText(none, events.length === 0 ? "Nothing has happened yet." : "No event matches.");
  }

  /** @param {FleetEvent} event */
  function itemOf(event) {
    let item = items.get(event.id);
    if (item === undefined) {
      item = makeItem(event);
      items.set(event.id, item);
    }
    return item;
  }

  kinds.addEventListener("change", show);
  search.addEventListener("input", () => {
    show();
    announce(formatCount(items.size, "event"));
  });
  show();

  return {
    /** @param {readonly FleetEvent[]} now */
    update(now) {
      if (now === events) return;
      events = now;
      show();
    },
  };
}

/** @param {FleetEvent} event */
function makeItem(event) {
  const [word, level] = KINDS[event.kind] ?? [event.kind, "plain"];
  const at = new Date(event.at * 1000);
  const isToday = at.toDateString() === new Date().toDateString();
  return make(
    "li",
    { class: `event ${level}` },
    make("time", {
      datetime: at.toISOString(),
      title: formatDateTime(event.at),
      text: isToday ? formatTime(event.at) : formatDateTime(event.at),
    }),
    make("span", { class: "event-kind", text: word }),
    make("span", { class: "event-text", title: event.text, text: eventText(event) }),
  );
}
