// @ts-check
// The dashboard: the fleet at a glance, what needs attention, and all there is to see behind it.

import { agentGuide, openAgentGuide } from "./add_agent.js";
import { mountAgents } from "./agents.js";
import { mountAlerts } from "./alerts.js";
import { firstTokenMs, mountCharts } from "./charts.js";
import { INFERENCE, MANAGEMENT, OPENAI, reachableAddress, schemeOf } from "./configuration.js";
import { clone, copyButton, make, part, setAttribute, setHidden, setText } from "./dom.js";
import { mountEvents } from "./events.js";
import { formatCount, formatMilliseconds, formatNumber } from "./format.js";

const RECENT_S = 60;

/**
 * @typedef {import("./panel.js").Context} Context
 * @typedef {import("./live.js").LiveState} LiveState
 */

/** @param {HTMLElement} root @param {Context} context */
export function mount(root, context) {
  const view = clone("dashboard-page");
  root.append(view);
  const known = part(view, "known");
  const empty = part(view, "agents-empty");
  empty.append(make("p", {}, make("strong", { text: "No agent is connected yet." })), agentGuide(context.configuration));
  part(view, "add").addEventListener("click", () => openAgentGuide(context.configuration));
  showServices(part(view, "services"), context.configuration);

  const alerts = mountAlerts(part(view, "alerts"), context.configuration);
  const tiles = mountTiles(part(view, "tiles"), context.configuration);
  const agents = mountAgents(view, context);
  const charts = mountCharts(part(view, "charts"));
  const events = mountEvents(view);

  const unsubscribe = context.live.subscribe((state) => {
    setHidden(known, !state.wasOpen);
    setHidden(part(view, "connecting"), state.wasOpen || state.connection === "lost");
    if (!state.wasOpen) return;
    const isEmpty = state.agents.size === 0;
    setHidden(empty, !isEmpty);
    setHidden(part(view, "filters"), isEmpty);
    setHidden(part(view, "add"), isEmpty);
    alerts.update(state);
    tiles.update(state);
    agents.update(state);
    charts.update(state.samples);
    events.update(state.events);
  });
  return { unmount: unsubscribe };
}

// --- the fleet at a glance ---------------------------------------------------------------------

/** @param {HTMLElement} root @param {import("./configuration.js").Configuration} configuration */
function mountTiles(root, configuration) {
  const agents = addTile(root, "Agents");
  const slots = addTile(root, "Slots busy", "plain");
  const buffer = addTile(root, "Waiting in the buffer", "bad");
  const tokens = addTile(root, "Tokens per second");
  const firstToken = addTile(root, "Time to first token");
  const timeout = formatMilliseconds(configuration.bufferTimeoutMs);

  return {
    /** @param {LiveState} state */
    update(state) {
      let busy = 0;
      let ready = 0;
      let serving = 0;
      for (const agent of state.agents.values()) {
        busy += agent.slots_processing;
        ready += agent.slots_total;
        if (agent.slots_total > 0) serving += 1;
      }
      const waiting = state.waiting ?? 0;
      const newest = state.samples[state.samples.length - 1];
      const recent = newest === undefined ? [] : state.samples.filter((one) => one.at > newest.at - RECENT_S);
      const time = firstTokenMs(recent);
      agents.show(String(state.agents.size), `${serving} serving`);
      slots.show(`${busy} / ${ready}`, formatCount(ready - busy, "free slot"), busy, ready);
      buffer.show(
        configuration.maxBuffered > 0 ? `${waiting} / ${configuration.maxBuffered}` : "off",
        configuration.maxBuffered > 0 ? `each waits at most ${timeout}` : "without a free slot, requests are refused",
        waiting,
        configuration.maxBuffered,
      );
      tokens.show(newest === undefined ? "–" : formatNumber(newest.tokens), "of all agents, last second");
      firstToken.show(time === null ? "–" : formatMilliseconds(time), "on average, last minute");
    },
  };
}

/** @param {HTMLElement} root @param {string} title @param {"plain" | "bad"} [bar] and how a full one is */
function addTile(root, title, bar) {
  const value = make("span", { class: "tile-value" });
  const note = make("span", { class: "faint" });
  const progress = bar ? make("progress", { "aria-label": title }) : null;
  root.append(make("div", { class: "tile" }, make("span", { class: "tile-title", text: title }), value, progress, note));
  return {
    /** @param {string} text @param {string} words @param {number} [current] @param {number} [top] */
    show(text, words, current = 0, top = 0) {
      setText(value, text);
      setText(note, words);
      if (progress === null) return;
      setAttribute(progress, "max", String(Math.max(top, 1)));
      setAttribute(progress, "value", String(Math.min(current, Math.max(top, 1))));
      setAttribute(progress, "data-level", bar === "bad" && top > 0 && current >= top ? "full" : null);
    },
  };
}

// --- services ----------------------------------------------------------------------------------

/** @param {HTMLElement} list @param {import("./configuration.js").Configuration} configuration */
function showServices(list, configuration) {
  /** @type {[string, string, string][]} what it is, its address, its flag */
  const services = [
    ["Inference", configuration.inferenceAddr, INFERENCE],
    ["OpenAI-compatible", configuration.openaiAddr, OPENAI],
    ["Management", configuration.managementAddr, MANAGEMENT],
  ];
  for (const [name, typed, flag] of services) {
    if (typed === "") {
      list.append(make("dt", { text: name }), make("dd", { class: "faint", text: "off" }));
      continue;
    }
    const { address, note } = reachableAddress(typed, location.hostname);
    const path = flag === OPENAI ? "/v1" : "";
    const url = schemeOf(configuration, flag) + address + path;
    const isManagement = flag === MANAGEMENT;
    // A browser that follows a link sends no token along.
    const hasMetrics = isManagement && !configuration.asksForToken;
    const asksForKey = isManagement ? configuration.asksForToken : configuration.asksForApiKey;
    const key = isManagement ? "needs a management token" : "needs an API key";
    list.append(
      make("dt", { text: name }),
      make(
        "dd",
        {},
        make("code", { text: url }),
        " ",
        copyButton(() => url, `the ${name} address`),
        hasMetrics ? " " : null,
        hasMetrics ? make("a", { href: `${url}/metrics`, target: "_blank", rel: "noopener noreferrer", text: "metrics" }) : null,
        note ? make("span", { class: "faint", text: ` ${note}` }) : null,
        asksForKey ? make("span", { class: "faint", text: ` ${key}` }) : null,
      ),
    );
  }
  if (configuration.statsdAddr) {
    const interval = formatMilliseconds(configuration.statsdIntervalMs);
    list.append(
      make("dt", { text: "StatsD" }),
      make("dd", {}, make("code", { text: configuration.statsdAddr }), make("span", { class: "faint", text: ` gauges begin with ${configuration.statsdPrefix || "nothing"}, sent every ${interval}` })),
    );
  }
}
