// @ts-check
// The list of agents: found, filtered, sorted, and each one handled.
//
// A row belongs to an agent's id and is touched only where something about that agent changed.

import { conditionOf, downloadWords, modelName } from "./agent_condition.js";
import { openDetails, openIssues, openMetadata, openTemplate } from "./agent_dialogs.js";
import { messageOf } from "./api.js";
import { askFirst, openDialog } from "./dialog.js";
import { announce, arrange, clone, make, part, setAttribute, setHidden, setText } from "./dom.js";
import { agentName, formatCount, formatNumber, shortId } from "./format.js";
import { agentPath } from "./wire.js";

/** Of more slots than this, each cell stands for several. */
const MAX_CELLS = 32;
/** Rows that are sorted by what always changes shall not jump about. */
const RESORT_MS = 2000;

/**
 * @typedef {import("./panel.js").Context} Context
 * @typedef {import("./live.js").LiveState} LiveState
 * @typedef {import("./wire.js").AgentSnapshot} AgentSnapshot
 * @typedef {import("./wire.js").AgentFacts} AgentFacts
 *
 * @typedef {object} Shown what is known of one agent
 * @property {AgentSnapshot} agent
 * @property {AgentFacts | undefined} facts
 * @property {number} rate
 * @property {import("./wire.js").StateSummary | null} desired
 * @property {boolean} isTwin another agent has the same name
 *
 * @typedef {object} Column
 * @property {string} title
 * @property {(one: Shown) => string | number} key what it is sorted by
 * @property {boolean} [isDescending] at first
 * @property {boolean} [isRestless] whether the key changes all the time
 */

/** @type {Record<string, Column>} */
const COLUMNS = {
  name: { title: "Agent", key: ({ agent }) => agentName(agent).toLowerCase() },
  status: { title: "Status", key: ({ agent, facts }) => conditionOf(agent, facts).word },
  model: { title: "Model", key: ({ agent, facts, desired }) => modelName(agent, facts, desired).toLowerCase() },
  slots: { title: "Slots", key: ({ agent }) => agent.slots_processing, isDescending: true, isRestless: true },
  rate: { title: "Tokens/s", key: ({ rate }) => rate, isDescending: true, isRestless: true },
  issues: { title: "Issues", key: ({ agent }) => agent.issues.length, isDescending: true },
};

/** @type {Record<string, { title: string, holds: (one: Shown) => boolean }>} */
const STATUSES = {
  all: { title: "any", holds: () => true },
  serving: { title: "serving", holds: ({ agent }) => agent.slots_total > 0 },
  busy: { title: "with busy slots", holds: ({ agent }) => agent.slots_processing > 0 },
  changing: { title: "loading or downloading", holds: ({ agent, facts }) => conditionOf(agent, facts).level === "busy" },
  drained: { title: "drained", holds: ({ facts }) => facts?.is_drained ?? false },
  issues: { title: "with issues", holds: ({ agent }) => agent.issues.length > 0 },
  help: { title: "stuck or silent", holds: ({ agent, facts }) => conditionOf(agent, facts).level === "bad" },
};

/** What was chosen last in this tab, for when the dashboard is come back to. */
let lastSearch = "";

/** @param {HTMLElement} root of the dashboard @param {Context} context */
export function mountAgents(root, context) {
  const rowsElement = part(root, "rows");
  const table = part(root, "table");
  const search = /** @type {HTMLInputElement} */ (part(root, "search"));
  const statusChoice = /** @type {HTMLSelectElement} */ (part(root, "status"));
  const sortChoice = /** @type {HTMLSelectElement} */ (part(root, "sort"));
  /** @type {Map<string, Row>} */
  const rows = new Map();
  /** @type {string[]} ids in the order that is shown */
  let order = [];
  let arrangedAt = 0;
  let isOrderStale = true;
  let knownSize = 0;
  /** Names that several agents have. @type {Set<string>} */
  let twins = new Set();
  /** @type {LiveState["agents"] | null} */
  let knownAgents = null;
  /** @type {LiveState} */
  let state = context.live.state;
  const choice = readChoice();

  const heads = makeHeads((column) => {
    if (choice.sort === column) choice.isDescending = !choice.isDescending;
    else setSort(column);
    onChoice();
    announce(`Sorted by ${COLUMNS[column].title}, ${choice.isDescending ? "largest first" : "smallest first"}`);
  });
  part(root, "heads").append(...heads.values(), make("th", { role: "columnheader", scope: "col" }, make("span", { class: "off-screen", text: "Actions" })));
  statusChoice.append(...Object.entries(STATUSES).map(([value, one]) => make("option", { value, text: one.title })));
  sortChoice.append(...Object.entries(COLUMNS).map(([value, one]) => make("option", { value, text: one.title })));
  search.addEventListener("input", () => {
    choice.find = search.value;
    onChoice();
  });
  statusChoice.addEventListener("change", () => {
    choice.status = statusChoice.value;
    onChoice();
  });
  sortChoice.addEventListener("change", () => {
    setSort(sortChoice.value);
    onChoice();
  });
  part(root, "clear").addEventListener("click", () => {
    choice.find = "";
    choice.status = "all";
    onChoice();
    search.focus();
  });
  showChoice();

  /** @param {string} column */
  function setSort(column) {
    choice.sort = column;
    choice.isDescending = COLUMNS[column].isDescending ?? false;
  }

  function onChoice() {
    writeChoice(choice);
    showChoice();
    isOrderStale = true;
    show();
    announce(formatCount(order.length, "agent"));
  }

  function showChoice() {
    if (search.value !== choice.find) search.value = choice.find;
    statusChoice.value = choice.status;
    sortChoice.value = choice.sort;
    for (const [column, head] of heads) {
      const direction = choice.isDescending ? "descending" : "ascending";
      setAttribute(head, "aria-sort", column === choice.sort ? direction : null);
    }
  }

  function show() {
    const isRestless = COLUMNS[choice.sort].isRestless ?? false;
    if (isOrderStale || !isRestless || performance.now() - arrangedAt > RESORT_MS) {
      const now = orderOf(state, choice);
      if (now.length !== order.length || now.some((id, index) => id !== order[index])) {
        order = now;
        arrange(rowsElement, order.map((id) => rowOf(id).element));
      }
      arrangedAt = performance.now();
      isOrderStale = false;
    }
    for (const id of order) rows.get(id)?.update(shownOf(state, id, twins));
    const total = state.agents.size;
    setHidden(table, order.length === 0);
    setHidden(part(root, "agents-none"), total === 0 || order.length > 0);
    setText(part(root, "count"), total > 10 || order.length < total ? `${order.length} of ${formatCount(total, "agent")} shown` : "");
  }

  /** @param {string} id */
  function rowOf(id) {
    let row = rows.get(id);
    if (row === undefined) {
      row = new Row(id, context);
      rows.set(id, row);
    }
    return row;
  }

  return {
    /** @param {LiveState} now */
    update(now) {
      if (now.agents !== knownAgents) {
        knownAgents = now.agents;
        twins = namesOfSeveral(now.agents);
      }
      state = now;
      for (const id of rows.keys()) {
        if (!now.agents.has(id)) {
          rows.delete(id);
          isOrderStale = true;
        }
      }
      // Who came or went is seen at once, whatever the rows are sorted by.
      if (order.some((id) => !now.agents.has(id)) || now.agents.size !== knownSize) isOrderStale = true;
      knownSize = now.agents.size;
      show();
    },
  };
}

// --- order -------------------------------------------------------------------------------------

/** @typedef {{ find: string, status: string, sort: string, isDescending: boolean }} Choice */

/** @returns {Choice} */
function readChoice() {
  const query = new URLSearchParams(location.search || lastSearch);
  const sort = query.get("sort") ?? "name";
  const status = query.get("status") ?? "all";
  // What the address says may come from anybody: `constructor` is a key of every object.
  const known = Object.hasOwn(COLUMNS, sort) ? sort : "name";
  return {
    find: query.get("find") ?? "",
    status: Object.hasOwn(STATUSES, status) ? status : "all",
    sort: known,
    isDescending: query.has("order") ? query.get("order") === "desc" : (COLUMNS[known].isDescending ?? false),
  };
}

/** Keep what is chosen in the address, so that it outlives a reload and can be passed on. @param {Choice} choice */
function writeChoice(choice) {
  const query = new URLSearchParams();
  if (choice.find) query.set("find", choice.find);
  if (choice.status !== "all") query.set("status", choice.status);
  if (choice.sort !== "name" || choice.isDescending) {
    query.set("sort", choice.sort);
    query.set("order", choice.isDescending ? "desc" : "asc");
  }
  lastSearch = query.size > 0 ? `?${query}` : "";
  history.replaceState(history.state, "", location.pathname + lastSearch);
}

const NO_NAMES = Object.freeze(new Set());

/** @param {LiveState} state @param {string} id @param {ReadonlySet<string>} twins @returns {Shown} */
function shownOf(state, id, twins = NO_NAMES) {
  const agent = /** @type {AgentSnapshot} */ (state.agents.get(id));
  return { agent, facts: state.facts.get(id), rate: state.rates.get(id) ?? 0, desired: state.desired, isTwin: twins.has(agentName(agent)) };
}

/** @param {LiveState["agents"]} agents */
function namesOfSeveral(agents) {
  const seen = new Set();
  /** @type {Set<string>} */
  const twins = new Set();
  for (const agent of agents.values()) {
    const name = agentName(agent);
    if (seen.has(name)) twins.add(name);
    seen.add(name);
  }
  return twins;
}

/** @param {LiveState} state @param {Choice} choice @returns {string[]} */
function orderOf(state, choice) {
  const words = choice.find.trim().toLowerCase();
  const { key } = COLUMNS[choice.sort];
  const { holds } = STATUSES[choice.status];
  const sign = choice.isDescending ? -1 : 1;
  const found = [];
  for (const id of state.agents.keys()) {
    const one = shownOf(state, id);
    if (holds(one) && (words === "" || textOf(one).includes(words))) {
      found.push({ id, key: key(one), name: agentName(one.agent).toLowerCase() });
    }
  }
  found.sort((a, b) => sign * compare(a.key, b.key) || compare(a.name, b.name) || compare(a.id, b.id));
  return found.map((one) => one.id);
}

const collator = new Intl.Collator(undefined, { numeric: true });

/** @param {string | number} a @param {string | number} b */
function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
}

/** What an agent is found by. @param {Shown} one */
function textOf({ agent, facts, desired }) {
  const issues = agent.issues.flatMap((issue) => Object.keys(issue));
  return [agentName(agent), agent.id, facts?.details?.host, facts?.address, modelName(agent, facts, desired), conditionOf(agent, facts).word, ...issues]
    .join(" ")
    .toLowerCase();
}

/** @param {(column: string) => void} onSort */
function makeHeads(onSort) {
  /** @type {Map<string, HTMLElement>} */
  const heads = new Map();
  for (const [column, { title }] of Object.entries(COLUMNS)) {
    const button = make("button", { type: "button", class: "head", text: title, onClick: () => onSort(column) });
    heads.set(column, make("th", { role: "columnheader", scope: "col" }, button));
  }
  return heads;
}

// --- one agent ---------------------------------------------------------------------------------

class Row {
  /** @param {string} id @param {Context} context */
  constructor(id, context) {
    this.element = clone("agent-row");
    this.element.dataset.agent = id;
    this._id = id;
    this._context = context;
    /** @type {Shown | null} */
    this._shown = null;
    /** @type {Record<string, HTMLElement>} */
    this._parts = {};
    for (const one of this.element.querySelectorAll("[data-part]")) {
      const target = /** @type {HTMLElement} */ (one);
      this._parts[String(target.dataset.part)] = target;
    }
    this._listen();
  }

  _listen() {
    const { _parts: parts, _context: context, _id: id } = this;
    const name = () => (this._shown === null ? id : agentName(this._shown.agent));
    parts.name.addEventListener("click", () => openDetails(context, id));
    parts.issues.addEventListener("click", () => openIssues(context, id));
    parts.metadata.addEventListener("click", () =>
      openMetadata(context, id, name(), this._shown?.agent.uses_chat_template_override ?? false),
    );
    parts.template.addEventListener("click", () => openTemplate(context, id, name()));
    parts.drain.addEventListener("click", () => {
      const isDrained = this._shown?.facts?.is_drained ?? false;
      void this._order(isDrained ? "resume" : "drain", `${name()} ${isDrained ? "gets requests again" : "gets no new requests"}`);
    });
    parts.disconnect.addEventListener("click", () => void this._disconnect(name()));
  }

  /** @param {string} name */
  async _disconnect(name) {
    const busy = this._shown?.agent.slots_processing ?? 0;
    const cost = busy > 0 ? `${formatCount(busy, "running request")} will end with an error, or start anew on another agent if no token was sent yet.` : "No request of it is running.";
    const isSure = await askFirst({
      title: `Disconnect ${name}?`,
      text: `${cost} The agent keeps its model and dials again within seconds: to keep it out, drain it, or stop its process.`,
      confirm: "Disconnect",
      isDangerous: true,
    });
    if (isSure) await this._order("disconnect", `${name} was disconnected`);
  }

  /** @param {"drain" | "resume" | "disconnect"} what @param {string} done */
  async _order(what, done) {
    const button = /** @type {HTMLButtonElement} */ (what === "disconnect" ? this._parts.disconnect : this._parts.drain);
    if (button.getAttribute("aria-disabled") === "true") return; // disabled would lose the focus
    button.setAttribute("aria-disabled", "true");
    try {
      await this._context.api.post(agentPath(this._id, what));
      announce(done);
    } catch (error) {
      openDialog({ title: `Could not ${what} the agent`, content: make("p", { text: messageOf(error) }), className: "narrow" });
    } finally {
      button.removeAttribute("aria-disabled");
    }
  }

  /** @param {Shown} now */
  update(now) {
    const before = this._shown;
    const isSame =
      before !== null &&
      before.agent === now.agent &&
      before.facts === now.facts &&
      before.rate === now.rate &&
      before.desired === now.desired &&
      before.isTwin === now.isTwin;
    if (isSame) return;
    this._shown = now;
    if (before?.rate !== now.rate) setText(this._parts.rate, now.rate > 0 ? formatNumber(now.rate) : "–");
    if (before?.agent === now.agent && before.facts === now.facts && before.desired === now.desired && before.isTwin === now.isTwin) return;
    this._showAll(now);
  }

  /** @param {Shown} now */
  _showAll({ agent, facts, desired, isTwin }) {
    const parts = this._parts;
    const condition = conditionOf(agent, facts);
    const name = agentName(agent);
    setText(parts.name, name);
    const host = facts?.details?.host ?? null;
    setText(parts.place, host === null ? shortId(agent.id) : isTwin ? `${host} · ${shortId(agent.id)}` : host);
    setText(parts.status, condition.word);
    setAttribute(parts.status, "data-level", condition.level);
    setAttribute(parts.status, "title", condition.hint);
    setText(parts.model, modelName(agent, facts, desired));
    setAttribute(parts.model, "title", agent.model_path);
    setAttribute(parts.model, "class", agent.model_path === null ? "faint" : null);
    this._showDownload(agent, facts);
    this._showSlots(agent);
    const count = agent.issues.length;
    setHidden(parts.issues, count === 0);
    setHidden(parts["no-issues"], count > 0);
    setText(parts.issues, formatCount(count, "issue"));
    setAttribute(parts.issues, "aria-label", `${formatCount(count, "issue")} of ${name}`);
    setText(parts.drain, facts?.is_drained ? "Resume" : "Drain");
    for (const [action, word] of [["drain", facts?.is_drained ? "Resume" : "Drain"], ["metadata", "Metadata"], ["template", "Template"], ["disconnect", "Disconnect"]]) {
      setAttribute(parts[action], "aria-label", action === "drain" || action === "disconnect" ? `${word} ${name}` : `${word} of ${name}`);
    }
    setHidden(parts.template, !agent.uses_chat_template_override);
  }

  /** @param {AgentSnapshot} agent @param {AgentFacts | undefined} facts */
  _showDownload(agent, facts) {
    const parts = this._parts;
    setHidden(parts.download, agent.download_filename === null);
    if (agent.download_filename === null) return;
    const isKnown = !agent.download_indeterminate && agent.download_total > 0;
    setAttribute(parts.progress, "max", isKnown ? String(agent.download_total) : null);
    setAttribute(parts.progress, "value", isKnown ? String(agent.download_current) : null);
    setAttribute(parts.progress, "aria-label", `Download of ${agent.download_filename}`);
    setText(parts["download-text"], `${agent.download_filename} · ${downloadWords(agent, facts)}`);
  }

  /** @param {AgentSnapshot} agent */
  _showSlots(agent) {
    const { slots } = this._parts;
    const { slots_processing: busy, slots_total: ready, desired_slots_total: wanted } = agent;
    const most = Math.max(wanted, busy);
    const slotsPerCell = Math.ceil(most / MAX_CELLS);
    const cells = Math.ceil(most / slotsPerCell);
    while (slots.childElementCount > cells) slots.lastElementChild?.remove();
    while (slots.childElementCount < cells) slots.append(document.createElement("i"));
    for (let index = 0; index < cells; index += 1) {
      const first = index * slotsPerCell;
      const look = first < busy ? "busy" : first < ready ? "ready" : "off";
      const cell = slots.children[index];
      if (cell.className !== look) cell.className = look;
    }
    const words = ready === wanted || ready === 0 ? "" : `, ${wanted} wanted`;
    setAttribute(slots, "aria-label", ready === 0 ? `no slots ready, ${wanted} wanted${busy ? `, ${busy} busy` : ""}` : `${busy} of ${ready} slots busy${words}`);
    setText(this._parts["slots-text"], `${busy}/${ready}`);
  }
}
