// @ts-check
// What an event says to people. The balancer's own text names things as the wire does; where the
// event's details tell more, they are said in the words of this panel.

import { agentName, fileName } from "./format.js";
import { describeIssue } from "./issues.js";

/**
 * @typedef {import("./wire.js").FleetEvent} FleetEvent
 * @typedef {import("./wire.js").ApplicationStatus} ApplicationStatus
 * @typedef {import("./wire.js").ModelReference} ModelReference
 */

/** @type {Record<ApplicationStatus, string>} */
const STATUS_WORDS = {
  Applied: "runs what is wanted",
  AttemptedAndNotAppliable: "needs your help: it cannot run what is wanted",
  AttemptedAndRetrying: "could not run what is wanted, and tries again",
  Fresh: "begins with what is wanted",
  Stuck: "is stuck: it keeps failing to run what is wanted",
};

/** @param {FleetEvent} event */
export function eventText(event) {
  const { detail } = event;
  if (event.kind === "state_changed") {
    return `${detail.by} asked for ${referenceWords(/** @type {ModelReference} */ (detail.model))}`;
  }
  if (event.agent_id === null) return event.text;
  const name = agentName({ id: event.agent_id, name: event.agent_name });
  const count = Number(detail.count ?? 1);
  switch (event.kind) {
    case "issue_raised":
    case "issue_cleared":
      return `${name}: ${issueTitle(detail.issue)}${count > 1 ? ` (${count} times)` : ""}`;
    case "agent_status":
      return `${name} ${STATUS_WORDS[/** @type {ApplicationStatus} */ (detail.status)] ?? `is ${detail.status}`}`;
    case "model_loaded":
      return `${name} loaded ${fileName(String(detail.model_path))}`;
    case "model_unloaded":
      return `${name} unloaded ${fileName(String(detail.model_path))}`;
    default:
      return withName(event, name);
  }
}

/** The balancer's text with the agent called as everywhere on the page. @param {FleetEvent} event @param {string} name */
function withName(event, name) {
  const label = event.agent_name === null ? "unnamed agent" : `agent "${event.agent_name}"`;
  return event.text.startsWith(label) ? name + event.text.slice(label.length) : event.text;
}

/** @param {unknown} issue */
function issueTitle(issue) {
  return describeIssue(/** @type {import("./wire.js").AgentIssue} */ (issue)).title;
}

/** @param {ModelReference} reference */
function referenceWords(reference) {
  if (typeof reference !== "object" || reference === null) return "no model";
  if ("HuggingFace" in reference) {
    const { repo_id: repository, filename, revision } = reference.HuggingFace;
    return `${filename} of ${repository}, ${revision}`;
  }
  return "Url" in reference ? reference.Url.url : reference.LocalToAgent;
}
