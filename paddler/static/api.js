// @ts-check
// Calls of the balancer, on the page's own origin.

/** What the balancer refused, or why it could not be asked (`status` 0). */
export class ApiError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

/** @param {string} path @param {AbortSignal} [signal] @returns {Promise<any>} */
export async function getJson(path, signal) {
  const response = await call(path, { signal });
  return response.json();
}

/** @param {string} path @param {unknown} body @param {AbortSignal} [signal] */
export async function putJson(path, body, signal) {
  await call(path, { method: "PUT", ...asJson(body), signal });
}

/**
 * The response itself, for whoever streams it; what is refused is an ApiError.
 * @param {string} path @param {unknown} [body] @param {AbortSignal} [signal]
 */
export function post(path, body, signal) {
  return call(path, { method: "POST", ...(body === undefined ? {} : asJson(body)), signal });
}

/** What to tell people of something that went wrong. @param {unknown} error */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/** Whether an error only says that nobody waits any longer. @param {unknown} error */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/** @param {unknown} body */
function asJson(body) {
  return { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
}

/** @param {string} path @param {RequestInit} options */
async function call(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError(0, "The balancer cannot be reached.");
  }
  if (!response.ok) throw new ApiError(response.status, await readRefusal(response));
  return response;
}

/** The text of a refusal, also where it is an error in OpenAI's shape. @param {Response} response */
async function readRefusal(response) {
  const text = (await response.text().catch(() => "")).trim();
  const fallback = text || STATUS_TEXTS[response.status] || `The balancer answered ${response.status}.`;
  if (!response.headers.get("content-type")?.startsWith("application/json")) return fallback;
  try {
    const message = JSON.parse(text)?.error?.message;
    return typeof message === "string" ? message : fallback;
  } catch {
    return fallback;
  }
}

/** Refusals that come without a text. @type {Record<number, string>} */
const STATUS_TEXTS = {
  404: "It is no longer there.",
  502: "The agent's connection was lost before it answered.",
  504: "The agent did not answer in time.",
};
