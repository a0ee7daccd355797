// @ts-check
// What needs an operator's attention right now.

import { conditionOf } from "./agent_condition.js";
import { announce, arrange, make, part, setAttribute, setHidden, setText } from "./dom.js";
import { agentName, formatCount } from "./format.js";

const RECENT_S = 300;
const MAX_NAMES = 3;

/**
 * @typedef {import("./live.js").LiveState} LiveState
 * @typedef {{ key: string, level: "bad" | "warn" | "plain", text: string, link?: [string, string] }} Alert
 */

/** @param {HTMLElement} list @param {import("./configuration.js").Configuration} configuration */
export function mountAlerts(list, configuration) {
  /** @type {Map<string, HTMLElement>} */
  const items = new Map();
  let isFirst = true; // what was so before the page came is not read aloud

  return {
    /** @param {LiveState} state */
    update(state) {
      const alerts = findAlerts(state, configuration);
      for (const alert of alerts) {
        let item = items.get(alert.key);
        if (item === undefined) {
          item = makeItem(alert);
          items.set(alert.key, item);
          if (!isFirst) announce(alert.text);
        }
        setText(part(item, "text"), alert.text);
        setAttribute(item, "data-level", alert.level);
      }
      const keys = new Set(alerts.map((alert) => alert.key));
      for (const key of items.keys()) if (!keys.has(key)) items.delete(key);
      arrange(list, alerts.map((alert) => /** @type {HTMLElement} */ (items.get(alert.key))));
      setHidden(list, alerts.length === 0);
      isFirst = false;
    },
  };
}

/** @param {Alert} alert */
function makeItem({ key, link }) {
  return make("li", { "data-alert": key }, make("span", { "data-part": "text" }), link ? " " : null, link ? make("a", { href: link[0], text: link[1] }) : null);
}

/** @param {LiveState} state @param {import("./configuration.js").Configuration} configuration @returns {Alert[]} */
export function findAlerts(state, configuration) {
  const agents = [...state.agents.values()];
  const alerts = [
    ...aboutAgents(state, agents),
    ...aboutSlots(state, agents),
    ...aboutRequests(state, configuration),
  ];
  return alerts.sort((a, b) => Number(b.level === "bad") - Number(a.level === "bad"));
}

/** @param {LiveState} state @param {import("./wire.js").AgentSnapshot[]} agents @returns {Alert[]} */
function aboutAgents(state, agents) {
  const bad = agents.filter((agent) => conditionOf(agent, state.facts.get(agent.id)).level === "bad");
  const withIssues = agents.filter((agent) => agent.issues.length > 0 && !bad.includes(agent));
  /** @type {Alert[]} */
  const alerts = [];
  if (bad.length > 0) {
    const words = new Set(bad.map((agent) => conditionOf(agent, state.facts.get(agent.id)).word.toLowerCase()));
    alerts.push({ key: "bad", level: "bad", text: `${formatCount(bad.length, "agent")} cannot go on (${[...words].join(", ")}): ${namesOf(bad)}.` });
  }
  if (withIssues.length > 0) {
    alerts.push({ key: "issues", level: "warn", text: `${formatCount(withIssues.length, "agent has issues", "agents have issues")}: ${namesOf(withIssues)}.` });
  }
  return alerts;
}

/** @param {LiveState} state @param {import("./wire.js").AgentSnapshot[]} agents @returns {Alert[]} */
function aboutSlots(state, agents) {
  if (state.desired?.model === "None") {
    return [{ key: "no-model", level: "warn", text: "No model is chosen yet.", link: ["/model", "Choose a model"] }];
  }
  if (agents.length === 0 || agents.some((agent) => agent.slots_total > 0)) return [];
  const isDrained = agents.every((agent) => state.facts.get(agent.id)?.is_drained);
  const why = isDrained ? "all agents are drained" : "no agent has the model loaded";
  return [{ key: "no-slots", level: "warn", text: `No slot is ready, since ${why}: requests wait in the buffer.` }];
}

/** @param {LiveState} state @param {import("./configuration.js").Configuration} configuration @returns {Alert[]} */
function aboutRequests(state, configuration) {
  /** @type {Alert[]} */
  const alerts = [];
  if (configuration.maxBuffered > 0 && (state.waiting ?? 0) >= configuration.maxBuffered) {
    alerts.push({ key: "buffer-full", level: "bad", text: `The buffer is full: ${state.waiting} requests wait, and more are refused.` });
  }
  const newest = state.samples[state.samples.length - 1];
  if (newest === undefined) return alerts;
  const recent = state.samples.filter((sample) => sample.at > newest.at - RECENT_S);
  const failed = recent.reduce((sum, sample) => sum + sample.errors, 0);
  const ended = recent.reduce((sum, sample) => sum + sample.requests, 0);
  if (failed > 0) {
    alerts.push({
      key: "failed",
      level: "warn",
      text: `${failed} of ${formatCount(ended, "request")} failed or ${failed === 1 ? "was" : "were"} refused in the last 5 minutes${refusalWords(state, newest.at)}.`,
    });
  }
  return alerts;
}

/** @param {LiveState} state @param {number} now */
function refusalWords(state, now) {
  const counts = { line_full: 0, waited_too_long: 0 };
  for (const event of state.events) {
    if (event.kind !== "requests_refused" || event.at <= now - RECENT_S) continue;
    counts.line_full += Number(event.detail.line_full ?? 0);
    counts.waited_too_long += Number(event.detail.waited_too_long ?? 0);
  }
  const words = [];
  if (counts.line_full > 0) words.push(`${counts.line_full} found the buffer full`);
  if (counts.waited_too_long > 0) words.push(`${counts.waited_too_long} waited too long`);
  return words.length > 0 ? `: ${words.join(", ")}` : "";
}

/** @param {import("./wire.js").AgentSnapshot[]} agents */
function namesOf(agents) {
  const names = agents.slice(0, MAX_NAMES).map(agentName).join(", ");
  const rest = agents.length - MAX_NAMES;
  return rest > 0 ? `${names} and ${rest} more` : names;
}
