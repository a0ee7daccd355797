// @ts-check
// A request as a command line that a POSIX shell runs to the letter.

import { OPENAI, isLoopback, reachableAddress, schemeOf } from "./configuration.js";

/**
 * A text as one word of a POSIX shell. Within single quotes nothing has a meaning but the
 * closing quote.
 * @param {string} text
 */
export function shellWord(text) {
  if (/^[\w./:=@%+,-]+$/.test(text)) return text;
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * Where to send a request, and the name of the variable with the key that it takes, if it takes one.
 * @typedef {{ address: string, key: string | null }} Outside
 */

/** Linux takes 128 KiB in one argument; characters may have up to four bytes. */
const MAX_ARGUMENT_CHARACTERS = 30_000;

/**
 * @param {Outside} outside
 * @param {unknown} body
 */
export function requestAsCurl({ address, key }, body) {
  const isStream = typeof body === "object" && body !== null && "stream" in body && body.stream;
  const text = JSON.stringify(body, null, 2);
  const isShort = text.length <= MAX_ARGUMENT_CHARACTERS;
  const command = [
    `curl ${isStream ? "--no-buffer " : ""}${shellWord(address)}`,
    "--header 'content-type: application/json'",
    // Double quotes: the shell fills it in, so that no key stands in what is copied.
    ...(key === null ? [] : [`--header "authorization: Bearer $${key}"`]),
    isShort ? `--data-raw ${shellWord(text)}` : "--data-binary @- <<'END_OF_REQUEST'",
  ].join(" \\\n  ");
  // No line of JSON is the closing word: within its texts line breaks are escaped.
  return isShort ? command : `${command}\n${text}\nEND_OF_REQUEST`;
}

/**
 * Where a program outside the browser sends what the page sends to its own origin: the OpenAI
 * listener, unless that is off or out of reach from where the browser is.
 * @param {import("./configuration.js").Configuration} configuration
 * @param {{hostname: string, origin: string}} location of the page
 * @param {string} path behind `/v1`
 * @returns {Outside}
 */
export function outsideAddress(configuration, location, path) {
  const { openaiAddr: openaiAddress, asksForApiKey, asksForToken } = configuration;
  const cut = openaiAddress.lastIndexOf(":");
  const host = openaiAddress.slice(0, cut);
  if (openaiAddress === "" || (isLoopback(host) && !isLoopback(location.hostname))) {
    return { address: `${location.origin}/api/openai/v1${path}`, key: asksForToken ? "MANAGEMENT_TOKEN" : null };
  }
  const { address } = reachableAddress(openaiAddress, location.hostname);
  return {
    address: `${schemeOf(configuration, OPENAI)}${address}/v1${path}`,
    key: asksForApiKey ? "API_KEY" : null,
  };
}
