// @ts-check
// What differs between two desired states, what that does to the agents, and how two people's
// changes go together.

import { describeReference, isSameReference } from "./model_address.js";
import { PARAMETERS, describeValue, isSameValue } from "./parameters.js";

/** @typedef {import("./wire.js").DesiredState} DesiredState */
/**
 * @typedef {object} Change
 * @property {string} key
 * @property {string} label
 * @property {string} from
 * @property {string} to
 */
/** @typedef {"nothing" | "stored" | "unload" | "load" | "reload"} Effect */

const TEMPLATE_LABEL = "Chat template";
const OWN_TEMPLATE_LABEL = "Text of the own chat template";

/**
 * @param {DesiredState} from
 * @param {DesiredState} to
 * @returns {Change[]}
 */
export function changesBetween(from, to) {
  /** @type {Change[]} */
  const changes = [];
  for (const [key, label] of /** @type {const} */ ([
    ["model", "Model"],
    ["multimodal_projection", "Multimodal projection"],
  ])) {
    if (!isSameReference(from[key], to[key])) {
      changes.push({
        key,
        label,
        from: describeReference(from[key]),
        to: describeReference(to[key]),
      });
    }
  }
  if (from.use_chat_template_override !== to.use_chat_template_override) {
    changes.push({
      key: "use_chat_template_override",
      label: TEMPLATE_LABEL,
      from: describeTemplateChoice(from),
      to: describeTemplateChoice(to),
    });
  }
  if (templateText(from) !== templateText(to)) {
    changes.push({
      key: "chat_template_override",
      label: OWN_TEMPLATE_LABEL,
      from: describeTemplate(from),
      to: describeTemplate(to),
    });
  }
  for (const parameter of PARAMETERS) {
    const before = from.inference_parameters[parameter.key];
    const after = to.inference_parameters[parameter.key];
    if (!isSameValue(parameter, before, after)) {
      changes.push({
        key: parameter.key,
        label: parameter.label,
        from: describeValue(before),
        to: describeValue(after),
      });
    }
  }
  return changes;
}

/**
 * What agents do about it. They compare what they are told as a whole: whatever differs in it,
 * be it one sampling value, makes them start their worker anew.
 * @param {DesiredState} from
 * @param {DesiredState} to
 * @returns {Effect}
 */
export function effectOf(from, to) {
  const keys = changesBetween(from, to).map((change) => change.key);
  if (keys.length === 0) return "nothing";
  if (to.model === "None") return from.model === "None" ? "stored" : "unload";
  if (usedTemplate(from) === usedTemplate(to)) {
    const unseen = ["chat_template_override", "use_chat_template_override"];
    if (keys.every((key) => unseen.includes(key))) return "stored";
  }
  return keys.includes("model") || keys.includes("multimodal_projection") ? "load" : "reload";
}

/** @type {Readonly<Record<Effect, string>>} */
export const EFFECTS = Object.freeze({
  nothing: "Nothing differs: agents have nothing to do.",
  stored: "Agents go on as they are: nothing of this touches what they run.",
  unload:
    "Agents finish what runs, then unload the model. Requests wait, and are refused in the " +
    "end, until there is a model again.",
  load:
    "Each agent fetches the files if it has not got them, while the old model goes on serving. " +
    "Then it finishes what runs and loads the model; its slots are unavailable meanwhile, and " +
    "requests wait in the buffer.",
  reload:
    "Each agent finishes what runs and loads the model again, also for a single changed " +
    "value; its slots are unavailable meanwhile, and requests wait in the buffer.",
});

/**
 * My changes on top of somebody else's: fields that I changed are mine, all others theirs.
 * `conflicts`: labels of what both changed, differently.
 * @param {DesiredState} base what both began with
 * @param {DesiredState} mine
 * @param {DesiredState} theirs
 * @returns {{state: DesiredState, conflicts: string[]}}
 */
export function mergeStates(base, mine, theirs) {
  const myKeys = new Set(changesBetween(base, mine).map((change) => change.key));
  const theirChanges = changesBetween(base, theirs);
  const disputed = new Set(changesBetween(mine, theirs).map((change) => change.key));
  const conflicts = theirChanges
    .filter((change) => myKeys.has(change.key) && disputed.has(change.key))
    .map((change) => change.label);
  const parameters = { ...theirs.inference_parameters };
  for (const { key } of PARAMETERS) {
    if (myKeys.has(key)) Object.assign(parameters, { [key]: mine.inference_parameters[key] });
  }
  /** @type {(key: keyof DesiredState) => DesiredState} */
  const owner = (key) => (myKeys.has(key) ? mine : theirs);
  return {
    state: {
      chat_template_override: owner("chat_template_override").chat_template_override,
      inference_parameters: parameters,
      model: owner("model").model,
      multimodal_projection: owner("multimodal_projection").multimodal_projection,
      use_chat_template_override: owner("use_chat_template_override").use_chat_template_override,
    },
    conflicts,
  };
}

/** @param {DesiredState} state */
function templateText(state) {
  return state.chat_template_override?.content ?? null;
}

/** @param {DesiredState} state */
function usedTemplate(state) {
  return state.use_chat_template_override ? templateText(state) : null;
}

/** @param {DesiredState} state */
function describeTemplateChoice(state) {
  if (!state.use_chat_template_override) return "the model's";
  return templateText(state) === null ? "own (none written: the model's)" : "own";
}

/** @param {DesiredState} state */
function describeTemplate(state) {
  const text = templateText(state);
  if (text === null) return "none";
  const lines = text.split("\n").length;
  return `${text.length} characters, ${lines} ${lines === 1 ? "line" : "lines"}`;
}
