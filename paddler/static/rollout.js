// @ts-check
// How far each agent is with the state that it is to run.

import { agentName, formatBytes, formatCount, formatDuration } from "./format.js";

/**
 * @typedef {import("./wire.js").AgentSnapshot} AgentSnapshot
 * @typedef {import("./wire.js").AgentFacts} AgentFacts
 * @typedef {import("./wire.js").AgentIssue} AgentIssue
 */
/**
 * @typedef {object} Progress
 * @property {string} id
 * @property {string} name
 * @property {boolean} isDone it runs what it is to run
 * @property {boolean} isAtWork it does something about it right now
 * @property {string} words
 * @property {number | null} fraction of what it does, if that is known
 * @property {AgentIssue[]} issues of this state, not of an older one
 */

/** @type {Readonly<Record<import("./wire.js").AgentPhase, string>>} */
const WORDS = Object.freeze({
  idle: "Has nothing to run",
  downloading: "Downloads",
  waiting_for_lock: "Waits for another process on its host that downloads the same file",
  draining: "Lets running requests finish",
  loading: "Loads the model",
  warming: "Warms the model up",
  serving: "Serves",
  retrying: "Will try again",
});

/**
 * @param {AgentSnapshot} agent
 * @param {AgentFacts | undefined} facts
 * @param {string} fingerprint of the state that agents are to run
 * @returns {Progress}
 */
export function progressOf(agent, facts, fingerprint) {
  const details = facts?.details ?? null;
  const known = { id: agent.id, name: agentName(agent) };
  if (details === null) {
    const words = "Has not told anything yet";
    return { ...known, isDone: false, isAtWork: true, words, fraction: null, issues: [] };
  }
  // Until it has heard of this state, its issues are those of another one.
  const hasHeard = details.wanted_state === fingerprint;
  const issues = hasHeard ? agent.issues : [];
  if (details.applied_state === fingerprint) {
    const words = doneWords(agent, details.phase === "idle", facts?.is_drained ?? false);
    return { ...known, isDone: true, isAtWork: false, words, fraction: 1, issues };
  }
  const isAtWork = details.phase !== "retrying";
  const activity = hasHeard ? activityOf(agent, details) : { words: "Is told the state", fraction: null };
  return { ...known, isDone: false, isAtWork, ...activity, issues };
}

/**
 * All agents in one sentence.
 * @param {readonly Progress[]} all
 */
export function summaryOf(all) {
  if (all.length === 0) return "No agent is connected. Those that come take this state.";
  const done = all.filter(({ isDone }) => isDone).length;
  const stuck = all.filter(({ isDone, issues }) => !isDone && issues.length > 0).length;
  const agents = all.length === 1 ? "The agent" : `All ${all.length} agents`;
  if (done === all.length) return `${agents} ${all.length === 1 ? "runs" : "run"} this state.`;
  const rest = stuck === 0 ? "" : ` ${stuck} ${stuck === 1 ? "has" : "have"} an issue.`;
  if (all.length === 1) return `The agent does not run this state yet.${stuck === 0 ? "" : " It has an issue."}`;
  return `${done} of ${all.length} agents run this state.${rest}`;
}

/**
 * @param {AgentSnapshot} agent
 * @param {boolean} isIdle
 * @param {boolean} isDrained
 */
function doneWords(agent, isIdle, isDrained) {
  if (isIdle) return "Has no model to run, as asked for";
  if (isDrained) return "Runs it, and is drained: it takes no requests until it is resumed";
  return `Serves with ${formatCount(agent.slots_total, "slot")}`;
}

/**
 * @param {AgentSnapshot} agent
 * @param {import("./wire.js").AgentDetails} details
 */
function activityOf(agent, details) {
  if (details.phase === "downloading") {
    const { download_current: current, download_total: total } = agent;
    const isKnown = !agent.download_indeterminate && total > 0;
    const parts = [
      agent.download_filename === null
        ? WORDS.downloading
        : `${WORDS.downloading} ${agent.download_filename}`,
      isKnown
        ? `${Math.floor((100 * current) / total)}%, ${formatBytes(current)} of ${formatBytes(total)}`
        : formatBytes(current),
    ];
    if (details.bytes_per_s !== null) parts.push(`${formatBytes(details.bytes_per_s)}/s`);
    if (details.seconds_left !== null) parts.push(`${formatDuration(details.seconds_left)} left`);
    return { words: parts.join(" · "), fraction: isKnown ? current / total : null };
  }
  if (details.phase === "loading" && details.load_fraction !== null) {
    const percent = Math.floor(100 * details.load_fraction);
    return { words: `${WORDS.loading} · ${percent}%`, fraction: details.load_fraction };
  }
  const words =
    details.phase === "serving"
      ? "Serves the former state, and makes ready for this one"
      : WORDS[details.phase];
  return { words, fraction: null };
}
