// @ts-check
// What the balancer was started with, as attributes of the page, and how a browser gets there.

/**
 * @typedef {object} Configuration
 * @property {string} managementAddr as it was typed
 * @property {string} inferenceAddr
 * @property {string} openaiAddr empty: that service is off
 * @property {string} statsdAddr empty: none
 * @property {string} statsdPrefix
 * @property {number} statsdIntervalMs
 * @property {number} bufferTimeoutMs
 * @property {number} maxBuffered 0: nobody waits
 * @property {ReadonlySet<string>} tls flags of the listeners that speak TLS
 * @property {boolean} asksForApiKey the inference and OpenAI-compatible services do
 * @property {boolean} asksForToken the management service, the panel and thereby agents do
 */

/** @param {DOMStringMap} attributes @returns {Configuration} */
export function readConfiguration(attributes) {
  return {
    managementAddr: attributes.managementAddr ?? "",
    inferenceAddr: attributes.inferenceAddr ?? "",
    openaiAddr: attributes.compatOpenaiAddr ?? "",
    statsdAddr: attributes.statsdAddr ?? "",
    statsdPrefix: attributes.statsdPrefix ?? "",
    statsdIntervalMs: Number(attributes.statsdReportingIntervalMillis),
    bufferTimeoutMs: Number(attributes.bufferedRequestTimeoutMillis),
    maxBuffered: Number(attributes.maxBufferedRequests),
    tls: new Set((attributes.tlsListeners ?? "").split(" ")),
    asksForApiKey: attributes.asksForApiKey === "yes",
    asksForToken: attributes.asksForManagementToken === "yes",
  };
}

export const MANAGEMENT = "--management-addr";
export const INFERENCE = "--inference-addr";
export const OPENAI = "--compat-openai-addr";

/** How addresses of a listener begin. @param {Configuration} configuration @param {string} flag of the listener */
export function schemeOf({ tls }, flag) {
  return tls.has(flag) ? "https://" : "http://";
}

/**
 * An address as others than the balancer's own machine would use it.
 * @typedef {{ address: string, note: string }} Reachable `note`: what to know about it, or empty
 */

/**
 * @param {string} typed `host:port` of a listener @param {string} browserHost `location.hostname`
 * @returns {Reachable}
 */
export function reachableAddress(typed, browserHost) {
  const colon = typed.lastIndexOf(":");
  const host = typed.slice(0, colon);
  const port = typed.slice(colon + 1);
  if (isWildcard(host)) {
    return { address: `${browserHost}:${port}`, note: `listens on every address (${typed})` };
  }
  if (isLoopback(host)) {
    return { address: typed, note: "reachable from the balancer's own machine only" };
  }
  return { address: typed, note: "" };
}

/** @param {string} host */
export function isWildcard(host) {
  return ["0.0.0.0", "[::]", "[::0]", "*"].includes(host);
}

/** @param {string} host */
export function isLoopback(host) {
  return /^(127\.\d+\.\d+\.\d+|\[::1\]|localhost|.*\.localhost)$/i.test(host);
}
