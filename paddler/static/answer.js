// @ts-check
// One answer of the model as it grows: what came so far, how fast, and how it ended.

/**
 * @typedef {object} ToolCall
 * @property {string} id
 * @property {"function"} type
 * @property {{name: string, arguments: string}} function
 */
/**
 * @typedef {object} Usage
 * @property {number} prompt_tokens
 * @property {number} completion_tokens
 * @property {{cached_tokens: number}} prompt_tokens_details
 * @property {{reasoning_tokens: number}} completion_tokens_details
 */
/** @typedef {"running" | "done" | "stopped" | "failed"} AnswerState */
/**
 * @typedef {object} Answer
 * @property {AnswerState} state
 * @property {string} content
 * @property {string} reasoning
 * @property {ToolCall[]} calls
 * @property {string | null} finish
 * @property {Usage | null} usage
 * @property {string} error
 * @property {number} status of HTTP, or what it would have been; 0: the connection failed
 * @property {number} askedAt milliseconds of the page's clock
 * @property {number | null} firstAt
 * @property {number | null} lastAt
 */

/** The finish of an answer that came when the page was loaded again. */
export const RELOADED = "reloaded";

const MIN_PACED_MS = 50;

/**
 * @param {number} now
 * @returns {Answer}
 */
export function newAnswer(now) {
  return {
    state: "running",
    content: "",
    reasoning: "",
    calls: [],
    finish: null,
    usage: null,
    error: "",
    status: 200,
    askedAt: now,
    firstAt: null,
    lastAt: null,
  };
}

/**
 * Adds one event of the stream; gives back whether the stream ends with it.
 * @param {Answer} answer
 * @param {string} data
 * @param {number} now
 */
export function addEvent(answer, data, now) {
  if (data === "[DONE]") {
    if (answer.state === "running") answer.state = "done";
    return true;
  }
  /** @type {any} */
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch {
    fail(answer, `The balancer sent what is no JSON: ${data.slice(0, 200)}`);
    return true;
  }
  if (chunk?.error !== undefined) {
    const { message, type } = chunk.error ?? {};
    fail(answer, String(message ?? data), type === "invalid_request_error" ? 400 : 500);
    return true;
  }
  if (chunk.usage) answer.usage = chunk.usage;
  const choice = chunk.choices?.[0];
  if (choice === undefined) return false;
  addDelta(answer, choice.delta ?? {}, now);
  if (choice.finish_reason) answer.finish = choice.finish_reason;
  return false;
}

/**
 * @param {Answer} answer
 * @param {string} why
 * @param {number} [status]
 */
export function fail(answer, why, status = 200) {
  answer.state = "failed";
  answer.error = why;
  answer.status = status;
}

/**
 * What is known of the pace: time to the first token and tokens a second after it.
 * @param {Answer} answer
 * @returns {{firstMs: number | null, perSecond: number | null}}
 */
export function paceOf(answer) {
  const { askedAt, firstAt, lastAt, usage } = answer;
  if (firstAt === null || lastAt === null) return { firstMs: null, perSecond: null };
  const tokens = usage?.completion_tokens ?? 0;
  const spentMs = lastAt - firstAt;
  // The first token is there when its time is taken. What comes at once tells no pace.
  const perSecond = tokens > 1 && spentMs >= MIN_PACED_MS ? ((tokens - 1) * 1000) / spentMs : null;
  return { firstMs: firstAt - askedAt, perSecond };
}

/**
 * Why the answer ends, in words; empty where there is nothing to say.
 * @param {Answer} answer
 */
export function endingOf(answer) {
  if (answer.state === "stopped") {
    return answer.finish === RELOADED ? "Ended by a reload of the page." : "Stopped by you.";
  }
  if (answer.state !== "done") return "";
  switch (answer.finish) {
    case "length":
      return "Cut: it reached the most tokens allowed.";
    case "tool_calls":
      return "The model calls tools and waits for their results.";
    case "stop":
      return "Finished.";
    case null:
      return "Ended without saying why.";
    default:
      return `Ended: ${answer.finish}.`;
  }
}

/**
 * @param {Answer} answer
 * @param {any} delta
 * @param {number} now
 */
function addDelta(answer, delta, now) {
  const { content, reasoning_content: reasoning, tool_calls: calls } = delta;
  if (!content && !reasoning && !calls?.length) return;
  answer.firstAt ??= now;
  answer.lastAt = now;
  if (content) answer.content += content;
  if (reasoning) answer.reasoning += reasoning;
  for (const part of calls ?? []) {
    const call = (answer.calls[part.index] ??= {
      id: "",
      type: "function",
      function: { name: "", arguments: "" },
    });
    if (part.id) call.id = part.id;
    call.function.name += part.function?.name ?? "";
    call.function.arguments += part.function?.arguments ?? "";
  }
}
