// @ts-check
// What the dashboard shows of one agent: all its facts, its issues, its model's metadata, its
// chat template. What is live stays live while a dialog is open.

import { conditionOf, downloadWords, modelName } from "./agent_condition.js";
import { messageOf } from "./api.js";
import { openDialog } from "./dialog.js";
import { arrange, copyButton, make, setAttribute, setHidden, setText } from "./dom.js";
import { agentName, formatBytes, formatCount, formatDateTime, formatDuration, formatNumber } from "./format.js";
import { describeIssue, issueKey } from "./issues.js";
import { agentPath } from "./wire.js";

const TEMPLATE_KEY = "tokenizer.chat_template";

/**
 * @typedef {import("./panel.js").Context} Context
 * @typedef {import("./live.js").LiveState} LiveState
 * @typedef {import("./wire.js").AgentDetails} AgentDetails
 */

// --- details -----------------------------------------------------------------------------------

/** @param {Context} context @param {string} agentId */
export function openDetails(context, agentId) {
  const list = make("dl", { class: "pairs" });
  const gone = make("p", { class: "note", hidden: true, text: "This agent is no longer connected. What is shown was known last." });
  const notes = make("ul", { class: "notes" });
  const content = make("div", {}, gone, list, notes);
  /** @type {Map<string, HTMLElement>} */
  const values = new Map();

  /** @param {string} label @param {string | null} text */
  function show(label, text) {
    let value = values.get(label);
    if (value === undefined) {
      value = make("dd");
      values.set(label, value);
      list.append(make("dt", { text: label }), value);
      if (label === "Id") value.append(make("code", { "data-part": "text" }), " ", copyButton(() => agentId, "the id"));
    }
    setText(value.querySelector("[data-part=text]") ?? value, text ?? "unknown");
  }

  /** @param {LiveState} state */
  function update(state) {
    const agent = state.agents.get(agentId);
    setHidden(gone, agent !== undefined);
    if (agent === undefined) return;
    const facts = state.facts.get(agentId);
    const details = facts?.details;
    const now = Date.now() / 1000 + state.clockAheadS;
    const condition = conditionOf(agent, facts);
    dialog.setTitle(agentName(agent));
    show("Status", `${condition.word}: ${condition.hint}`);
    show("Id", agent.id);
    show("Host", details?.host ?? null);
    show("Address", facts?.address ?? null);
    show("Version", facts?.version ?? null);
    show("Running for", details ? `${formatDuration(now - details.started_at)}, since ${formatDateTime(details.started_at)}` : null);
    show("Connected for", facts ? `${formatDuration(now - facts.connected_at)}${details?.reconnects ? `, after ${formatCount(details.reconnects, "reconnect")}` : ""}` : null);
    show("Slots", `${agent.slots_processing} busy, ${agent.slots_total} ready, ${agent.desired_slots_total} wanted`);
    show("Tokens per second", formatNumber(state.rates.get(agentId) ?? 0));
    show("Model", modelName(agent, facts, state.desired));
    show("File", agent.model_path ?? "none");
    show("Context", details ? contextWords(details) : "none");
    show("Runs what is wanted", runsWhatIsWanted(state, agentId));
    if (agent.download_filename !== null) show("Download", `${agent.download_filename}: ${downloadWords(agent, facts)}`);
    else if (values.has("Download")) show("Download", "done");
    show("Engine", details?.engine ?? null);
    show("Devices", details ? details.devices.join(", ") || "none reported" : null);
    show("Threads and cores", details ? `${formatCount(details.threads, "thread")} on ${formatCount(details.cores.length, "core")}` : null);
    show("Memory", details ? formatBytes(details.memory_bytes) : null);
    show("Worker restarts", details ? formatNumber(details.worker_restarts) : null);
    const texts = details?.notes ?? [];
    if (notes.childElementCount !== texts.length) notes.replaceChildren(...texts.map((text) => make("li", { text })));
  }

  const dialog = openDialog({ title: "Agent", content, onClose: () => unsubscribe() });
  const unsubscribe = context.live.subscribe(update);
  update(context.live.state);
}

/** @param {AgentDetails} details */
function contextWords({ context_size: all, slot_context_size: most }) {
  if (!all) return "none";
  return most && most < all ? `${formatCount(all, "token")}, ${formatNumber(most)} for each slot` : formatCount(all, "token");
}

/** @param {LiveState} state @param {string} agentId */
function runsWhatIsWanted(state, agentId) {
  const details = state.facts.get(agentId)?.details;
  if (!details || state.desired === null) return null;
  if (details.applied_state === state.desired.fingerprint) return "yes";
  return details.wanted_state === state.desired.fingerprint ? "not yet: it works on it" : "not yet: it was not told yet";
}

// --- issues ------------------------------------------------------------------------------------

/** The issues, as they come and go: those that are solved stay, marked, while the dialog is open. @param {Context} context @param {string} agentId */
export function openIssues(context, agentId) {
  const content = make("div", { class: "issue-list" });
  /** @type {Map<string, { element: HTMLElement, solved: HTMLElement }>} */
  const entries = new Map();

  /** @param {LiveState} state */
  function update(state) {
    const agent = state.agents.get(agentId);
    const now = new Map((agent?.issues ?? []).map((issue) => [issueKey(issue), issue]));
    for (const [key, issue] of now) {
      if (entries.has(key)) continue;
      const solved = make("p", { class: "solved", hidden: true, text: "Solved" });
      const element = issueEntry(issue, solved);
      entries.set(key, { element, solved });
      content.append(element);
    }
    for (const [key, entry] of entries) {
      setHidden(entry.solved, now.has(key));
      setAttribute(entry.element, "data-solved", now.has(key) ? null : "");
    }
    if (agent !== undefined) dialog.setTitle(`Issues of ${agentName(agent)}`);
  }

  const dialog = openDialog({ title: "Issues", content, onClose: () => unsubscribe() });
  const unsubscribe = context.live.subscribe(update);
  update(context.live.state);
}

/** @param {import("./wire.js").AgentIssue} issue @param {HTMLElement} solved */
function issueEntry(issue, solved) {
  const text = describeIssue(issue);
  const link = text.isModel ? make("p", {}, make("a", { href: "/model", text: "Go to the Model page" })) : null;
  link?.addEventListener("click", () => link.closest("dialog")?.close());
  return make(
    "section",
    { class: "issue" },
    make("h3", { text: text.title }),
    solved,
    make("dl", { class: "pairs" }, make("dt", { text: "What Paddler does" }), make("dd", { text: text.paddler }), make("dt", { text: "What you can do" }), make("dd", { text: text.you })),
    text.more === null
      ? null
      : make("details", {}, make("summary", { text: text.more.label }), make("pre", { text: text.more.text, tabindex: "0" })),
    link,
  );
}

// --- metadata ----------------------------------------------------------------------------------

/** @param {Context} context @param {string} agentId @param {string} name @param {boolean} hasOverride */
export function openMetadata(context, agentId, name, hasOverride) {
  openFetched(context, {
    title: `Metadata of ${name}'s model`,
    path: agentPath(agentId, "model_metadata"),
    nothing: "No model has been loaded yet, so there is no metadata.",
    show: (answer) => metadataView(answer.metadata, hasOverride),
  });
}

/** @param {Record<string, string>} metadata @param {boolean} hasOverride */
function metadataView(metadata, hasOverride) {
  const keys = Object.keys(metadata);
  const count = make("span", { class: "faint", role: "status", text: formatCount(keys.length, "entry", "entries") });
  const search = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const body = make("tbody");
  const table = make(
    "table",
    { class: "metadata" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "Key" }), make("th", { scope: "col", text: "Value" }))),
    body,
  );
  const all = make(
    "div",
    {},
    make("div", { class: "section-head" }, make("label", {}, "Find ", search), count, copyButton(() => JSON.stringify(metadata, null, 2), "all metadata as JSON")),
    table,
  );
  const root = make("div", {}, all);
  const rows = keys.map((key) => ({ text: `${key} ${metadata[key]}`.toLowerCase(), row: metadataRow(key, metadata[key], showTemplate) }));

  function filter() {
    const words = search.value.trim().toLowerCase();
    const shown = rows.filter((one) => one.text.includes(words));
    arrange(body, shown.map((one) => one.row));
    setText(count, words ? `${formatCount(shown.length, "entry", "entries")} of ${keys.length}` : formatCount(keys.length, "entry", "entries"));
  }

  function showTemplate() {
    const back = make("button", { type: "button", text: "Back to all metadata" });
    back.addEventListener("click", () => {
      root.replaceChildren(all);
      search.focus();
    });
    const note = hasOverride ? "A chat template override is in force: the agent does not use this one." : null;
    root.replaceChildren(make("p", {}, back), ...(note ? [make("p", { class: "note", text: note })] : []), templateView(metadata[TEMPLATE_KEY]));
    back.focus();
  }

  search.addEventListener("input", filter);
  filter();
  return root;
}

/** @param {string} key @param {string} value @param {() => void} showTemplate */
function metadataRow(key, value, showTemplate) {
  const shown =
    key === TEMPLATE_KEY
      ? make("button", { type: "button", class: "small", text: "Chat template", onClick: showTemplate })
      : make("span", { text: value });
  return make(
    "tr",
    {},
    make("th", { scope: "row" }, make("code", { text: key })),
    make("td", {}, shown, " ", copyButton(() => value, key)),
  );
}

/** @param {string} template */
function templateView(template) {
  return make(
    "div",
    {},
    make("p", {}, copyButton(() => template, "the chat template")),
    make("pre", { class: "template", text: template, tabindex: "0" }),
  );
}

/** @param {Context} context @param {string} agentId @param {string} name */
export function openTemplate(context, agentId, name) {
  openFetched(context, {
    title: `Chat template override of ${name}`,
    path: agentPath(agentId, "chat_template_override"),
    nothing: "No override is in force: the agent uses the model's own chat template.",
    show: (answer) => templateView(answer.content),
  });
}

/**
 * A dialog around what the balancer answers, or why it does not.
 * @param {Context} context
 * @param {{ title: string, path: string, nothing: string, show: (answer: any) => Node }} options
 */
function openFetched(context, { title, path, nothing, show }) {
  const aborter = new AbortController();
  const content = make("div", { "aria-live": "polite" });
  openDialog({ title, content, onClose: () => aborter.abort() });

  async function load() {
    content.replaceChildren(make("p", { text: "Asking the agent…" }));
    try {
      const answer = await context.api.getJson(path, aborter.signal);
      content.replaceChildren(answer === null ? make("p", { text: nothing }) : show(answer));
    } catch (error) {
      if (context.api.isAbort(error)) return;
      const again = make("button", { type: "button", text: "Ask again", onClick: () => void load() });
      content.replaceChildren(make("p", { class: "bad-text", text: messageOf(error) }), again);
    }
  }
  void load();
}
