// @ts-check
// How an agent is, in words, from all that is known of it.

import { fileName, formatBytes, formatDuration } from "./format.js";

/**
 * @typedef {import("./wire.js").AgentSnapshot} AgentSnapshot
 * @typedef {import("./wire.js").AgentFacts} AgentFacts
 * @typedef {import("./wire.js").StateSummary} StateSummary
 * @typedef {"good" | "busy" | "warn" | "bad" | "plain"} Level
 * @typedef {{ word: string, level: Level, hint: string }} Condition
 */

/** @param {AgentSnapshot} agent @param {AgentFacts | undefined} facts @returns {Condition} */
export function conditionOf(agent, facts) {
  if (facts?.is_silent) {
    return { word: "Silent", level: "bad", hint: "It was not heard for 7 seconds: it hangs, or its connection is cut. After 10 it counts as gone." };
  }
  switch (agent.state_application_status) {
    case "AttemptedAndNotAppliable":
      return { word: "Needs your help", level: "bad", hint: "It cannot run what is wanted, and does not try again until that changes. Its issues say why." };
    case "Stuck":
      return { word: "Stuck", level: "bad", hint: "It failed to run what is wanted many times, and still tries, ever less often. Its issues say why." };
    case "AttemptedAndRetrying":
      return { word: "Retrying", level: "warn", hint: "It could not run what is wanted, and tries again by itself." };
  }
  const phase = phaseOf(agent, facts);
  if (facts?.is_drained && (phase === null || phase.level === "good")) {
    const rest = agent.slots_processing;
    return {
      word: rest > 0 ? "Draining" : "Drained",
      level: "warn",
      hint: rest > 0 ? "It gets no new requests; those that run go on." : "It gets no requests until it is resumed.",
    };
  }
  if (phase !== null) return phase;
  if (agent.state_application_status === "Fresh") return { word: "Starting", level: "busy", hint: "It has not applied what is wanted yet." };
  if (agent.slots_total > 0) return SERVING;
  return agent.model_path === null
    ? { word: "No model", level: "plain", hint: "It is to run none: choose one on the Model page." }
    : { word: "No slots", level: "warn", hint: "Its model is loaded, but it offers no slots yet." };
}

/** @type {Condition} */
const SERVING = { word: "Serving", level: "good", hint: "It takes requests." };

/** @param {AgentSnapshot} agent @param {AgentFacts | undefined} facts @returns {Condition | null} */
function phaseOf(agent, facts) {
  const details = facts?.details;
  if (agent.download_filename !== null && details?.phase !== "waiting_for_lock") {
    return { word: "Downloading", level: "busy", hint: agent.slots_total > 0 ? "The model that is loaded serves meanwhile." : "It serves once the model is here and loaded." };
  }
  switch (details?.phase) {
    case "downloading":
      return { word: "Downloading", level: "busy", hint: "It looks for the model's files, or brings them here." };
    case "waiting_for_lock":
      return { word: "Waiting for a download", level: "busy", hint: "Another process on its machine downloads the same file." };
    case "draining":
      return { word: "Finishing requests", level: "busy", hint: "Then it loads the model that is wanted." };
    case "loading":
      return { word: percentOf("Loading", details.load_fraction), level: "busy", hint: "It reads the model into memory." };
    case "warming":
      return { word: "Warming up", level: "busy", hint: "It tries the model before it takes requests." };
    case "retrying":
      return { word: "Retrying", level: "warn", hint: "It could not run what is wanted, and tries again by itself." };
    case "serving":
      return agent.slots_total > 0 || facts?.is_drained ? SERVING : null;
    default:
      return null;
  }
}

/** @param {string} word @param {number | null} fraction */
function percentOf(word, fraction) {
  return fraction === null ? word : `${word} ${Math.floor(fraction * 100)} %`;
}

/** What a download says beside its bar. @param {AgentSnapshot} agent @param {AgentFacts | undefined} facts */
export function downloadWords(agent, facts) {
  const details = facts?.details;
  const words = [];
  if (agent.download_indeterminate || agent.download_total === 0) {
    words.push(formatBytes(agent.download_current), "size unknown");
  } else {
    const percent = Math.floor((agent.download_current / agent.download_total) * 100);
    words.push(`${percent} %`, `${formatBytes(agent.download_current)} of ${formatBytes(agent.download_total)}`);
  }
  if (details?.bytes_per_s) words.push(`${formatBytes(details.bytes_per_s)}/s`);
  if (details?.seconds_left !== null && details?.seconds_left !== undefined) words.push(`${formatDuration(details.seconds_left)} left`);
  return words.join(" · ");
}

/**
 * What people call the model that an agent runs. A file from an address lies under a hash: then
 * what is wanted has the name, if the agent runs just that.
 * @param {AgentSnapshot} agent @param {AgentFacts | undefined} facts @param {StateSummary | null} desired
 */
export function modelName(agent, facts, desired) {
  if (agent.model_path === null) return "no model loaded";
  const applied = facts?.details?.applied_state;
  if (desired !== null && applied === desired.fingerprint && typeof desired.model === "object") {
    if ("Url" in desired.model) return decoded(fileName(desired.model.Url.url.split(/[?#]/)[0]));
    if ("HuggingFace" in desired.model) return fileName(desired.model.HuggingFace.filename);
  }
  return fileName(agent.model_path);
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
