// @ts-check
// A conversation and its settings as the body of a request.

/**
 * @typedef {import("./answer.js").Answer} Answer
 * @typedef {import("./answer.js").ToolCall} ToolCall
 */
/**
 * @typedef {{role: "user", text: string, images: string[]}} UserTurn images: `data:` addresses
 * @typedef {{role: "assistant", answer: Answer}} AssistantTurn
 * @typedef {{role: "tool", callId: string, name: string, text: string}} ToolTurn
 * @typedef {UserTurn | AssistantTurn | ToolTurn} Turn
 */
/**
 * What the fields hold, as typed. Empty: the fleet's own value.
 * @typedef {object} Settings
 * @property {string} system
 * @property {string} temperature
 * @property {string} top_p
 * @property {string} top_k
 * @property {string} min_p
 * @property {string} max_tokens
 * @property {string} seed
 * @property {string} stop a text a line
 * @property {boolean} thinks
 * @property {string} schema
 * @property {string} tools
 * @property {boolean} mustCall
 */
/** @typedef {Exclude<keyof Settings, "thinks" | "mustCall">} SettingKey those that hold text */
/**
 * @typedef {object} NumberSetting
 * @property {"temperature" | "top_p" | "top_k" | "min_p" | "max_tokens" | "seed"} key
 * @property {string} label
 * @property {boolean} isWhole
 * @property {number} min
 * @property {number} max
 * @property {string} range
 */

const I32_MAX = 2 ** 31 - 1;

/** Ranges are those of the OpenAI-compatible service. @type {readonly NumberSetting[]} */
export const NUMBER_SETTINGS = Object.freeze([
  { key: "temperature", label: "Temperature", isWhole: false, min: 0, max: 2, range: "0 to 2" },
  { key: "top_p", label: "Top p", isWhole: false, min: 0, max: 1, range: "0 to 1" },
  { key: "top_k", label: "Top k", isWhole: true, min: -(2 ** 31), max: I32_MAX, range: "1 or more; 0 = off" },
  { key: "min_p", label: "Min p", isWhole: false, min: 0, max: 1, range: "0 to 1" },
  {
    key: "max_tokens",
    label: "Most tokens of an answer",
    isWhole: true,
    min: 1,
    max: I32_MAX,
    range: "1 or more",
  },
  {
    key: "seed",
    label: "Seed",
    isWhole: true,
    min: Number.MIN_SAFE_INTEGER,
    max: Number.MAX_SAFE_INTEGER,
    range: "a whole number",
  },
]);

export const MAX_STOP_TEXTS = 16;

/** @returns {Settings} */
export function newSettings() {
  return {
    system: "",
    temperature: "",
    top_p: "",
    top_k: "",
    min_p: "",
    max_tokens: "",
    seed: "",
    stop: "",
    thinks: true,
    schema: "",
    tools: "",
    mustCall: false,
  };
}

/**
 * The body, or what is wrong by field.
 * @param {Settings} settings
 * @param {readonly Turn[]} turns
 * @param {string} model
 * @returns {{body: Record<string, unknown>} | {problems: Partial<Record<SettingKey, string>>}}
 */
export function chatRequest(settings, turns, model) {
  /** @type {Partial<Record<SettingKey, string>>} */
  const problems = {};
  /** @type {Record<string, unknown>} */
  const body = { model, messages: messagesOf(settings, turns), stream: true };
  body.stream_options = { include_usage: true };
  for (const setting of NUMBER_SETTINGS) {
    const read = readNumber(setting, settings[setting.key]);
    if (typeof read === "string") problems[setting.key] = read;
    else if (read !== null) body[setting.key] = read;
  }
  const stops = settings.stop.split("\n").filter((line) => line !== "");
  if (stops.length > MAX_STOP_TEXTS) problems.stop = `At most ${MAX_STOP_TEXTS} texts, one a line.`;
  else if (stops.length > 0) body.stop = stops;
  if (!settings.thinks) body.reasoning_effort = "none";
  const schema = readSchema(settings.schema);
  if (typeof schema === "string") problems.schema = schema;
  else if (schema !== null) {
    body.response_format = { type: "json_schema", json_schema: { name: "answer", schema } };
  }
  const tools = readTools(settings.tools);
  if (typeof tools === "string") problems.tools = tools;
  else if (tools !== null) body.tools = tools;
  if (settings.mustCall && tools === null) problems.tools = "Without a tool there is none to be called.";
  else if (settings.mustCall) body.tool_choice = "required";
  return Object.keys(problems).length > 0 ? { problems } : { body };
}

/**
 * The turns as messages. Answers that failed before they said anything are left out.
 * @param {Settings} settings
 * @param {readonly Turn[]} turns
 */
export function messagesOf(settings, turns) {
  /** @type {Record<string, unknown>[]} */
  const messages = [];
  if (settings.system.trim() !== "") messages.push({ role: "system", content: settings.system });
  for (const turn of turns) {
    if (turn.role === "user") messages.push({ role: "user", content: contentOf(turn) });
    else if (turn.role === "tool") {
      messages.push({ role: "tool", tool_call_id: turn.callId, content: turn.text });
    } else if (!isEmpty(turn.answer)) messages.push(assistantMessage(turn.answer));
  }
  return messages;
}

/** Whether an answer said nothing at all. @param {Answer} answer */
export function isEmpty(answer) {
  return answer.content === "" && answer.calls.length === 0;
}

/** @param {UserTurn} turn */
function contentOf({ text, images }) {
  if (images.length === 0) return text;
  const parts = images.map((url) => ({ type: "image_url", image_url: { url } }));
  return text === "" ? parts : [...parts, { type: "text", text }];
}

/** @param {Answer} answer */
function assistantMessage(answer) {
  /** @type {Record<string, unknown>} */
  const message = { role: "assistant", content: answer.content };
  if (answer.reasoning !== "") message.reasoning_content = answer.reasoning;
  if (answer.calls.length > 0) message.tool_calls = answer.calls;
  return message;
}

/**
 * The number, null for none, or what is wrong with it.
 * @param {NumberSetting} setting
 * @param {string} text
 * @returns {number | string | null}
 */
function readNumber({ isWhole, min, max, range }, text) {
  const typed = text.trim();
  if (typed === "") return null;
  const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(typed) ? Number(typed) : NaN;
  if (Number.isNaN(value)) return `“${typed}” is no number. Allowed: ${range}; empty: the fleet's.`;
  if (isWhole && !Number.isInteger(value)) return `${typed} is not whole. Allowed: ${range}.`;
  if (value < min || value > max) return `${typed} is out of range. Allowed: ${range}.`;
  return value;
}

/** @param {string} text @returns {object | string | null} */
function readSchema(text) {
  if (text.trim() === "") return null;
  const read = readJson(text);
  if ("error" in read) return read.error;
  if (typeof read.value !== "object" || read.value === null || Array.isArray(read.value)) {
    return 'A JSON schema is an object, for example {"type": "object"}.';
  }
  return read.value;
}

/** @param {string} text @returns {unknown[] | string | null} */
function readTools(text) {
  if (text.trim() === "") return null;
  const read = readJson(text);
  if ("error" in read) return read.error;
  const tools = Array.isArray(read.value) ? read.value : [read.value];
  if (tools.length === 0) return null;
  for (const [index, tool] of tools.entries()) {
    if (tool?.type !== "function" || typeof tool.function?.name !== "string" || tool.function.name === "") {
      return `Tool ${index + 1} is none. Write {"type": "function", "function": {"name": "…"}}.`;
    }
  }
  return tools;
}

/** @param {string} text @returns {{value: any} | {error: string}} */
function readJson(text) {
  try {
    return { value: JSON.parse(text) };
  } catch (error) {
    return { error: `This is no JSON: ${error instanceof Error ? error.message : String(error)}` };
  }
}
