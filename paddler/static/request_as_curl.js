// @ts-check
// A request as a command line that a POSIX shell runs to the letter.

import { isLoopback, reachableAddress } from "./configuration.js";

/**
 * A text as one word of a POSIX shell. Within single quotes nothing has a meaning but the
 * closing quote.
 * @param {string} text
 */
export function shellWord(text) {
  if (/^[\w./:=@%+,-]+$/.test(text)) return text;
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Linux takes 128 KiB in one argument; characters may have up to four bytes. */
const MAX_ARGUMENT_CHARACTERS = 30_000;

/**
 * @param {string} address
 * @param {unknown} body
 */
export function requestAsCurl(address, body) {
  const isStream = typeof body === "object" && body !== null && "stream" in body && body.stream;
  const text = JSON.stringify(body, null, 2);
  const isShort = text.length <= MAX_ARGUMENT_CHARACTERS;
  const command = [
    `curl ${isStream ? "--no-buffer " : ""}${shellWord(address)}`,
    "--header 'content-type: application/json'",
    isShort ? `--data-raw ${shellWord(text)}` : "--data-binary @- <<'END_OF_REQUEST'",
  ].join(" \\\n  ");
  // No line of JSON is the closing word: within its texts line breaks are escaped.
  return isShort ? command : `${command}\n${text}\nEND_OF_REQUEST`;
}

/**
 * Where a program outside the browser sends what the page sends to its own origin: the OpenAI
 * listener, unless that is off or out of reach from where the browser is.
 * @param {string} openaiAddress as it was typed, empty if it is off
 * @param {{hostname: string, origin: string}} location of the page
 * @param {string} path behind `/v1`
 */
export function outsideAddress(openaiAddress, location, path) {
  const cut = openaiAddress.lastIndexOf(":");
  const host = openaiAddress.slice(0, cut);
  if (openaiAddress === "" || (isLoopback(host) && !isLoopback(location.hostname))) {
    return `${location.origin}/api/openai/v1${path}`;
  }
  return `http://${reachableAddress(openaiAddress, location.hostname).address}/v1${path}`;
}
