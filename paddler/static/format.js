// @ts-check
// Numbers, times and names as people read them.

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const time = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });
const dateAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

/** @param {number} value */
export function formatNumber(value) {
  return Math.abs(value) < 100 ? oneDigit.format(value) : whole.format(value);
}

/** `1 agent`, `3 agents`. @param {number} count @param {string} noun @param {string} [plural] */
export function formatCount(count, noun, plural = `${noun}s`) {
  return `${whole.format(count)} ${count === 1 ? noun : plural}`;
}

/** @param {number} bytes */
export function formatBytes(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? whole.format(value) : formatNumber(value)} ${units[unit]}`;
}

/** A length of time in its two largest units. @param {number} seconds */
export function formatDuration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${formatCount(Math.floor(s / 86_400), "day")} ${Math.floor((s % 86_400) / 3600)} h`;
}

/** @param {number} milliseconds */
export function formatMilliseconds(milliseconds) {
  return milliseconds < 1000 ? `${whole.format(milliseconds)} ms` : `${formatNumber(milliseconds / 1000)} s`;
}

/** Time of day. @param {number} at seconds since 1970 */
export function formatTime(at) {
  return time.format(at * 1000);
}

/** @param {number} at seconds since 1970 */
export function formatDateTime(at) {
  return dateAndTime.format(at * 1000);
}

// What is not seen, or turns around what stands beside it: control characters, blanks without
// width, marks of the direction of writing.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]/g;

/** How an agent is called: two may have one name, and some have none. @param {{ id: string, name: string | null }} agent */
export function agentName(agent) {
  return (agent.name ?? "").replace(UNSEEN, "").trim() || `unnamed ${shortId(agent.id)}`;
}

/** @param {string} id */
export function shortId(id) {
  return id.slice(0, 6);
}

/** The last part of a path or address. @param {string} path */
export function fileName(path) {
  return path.split("/").filter(Boolean).pop() ?? path;
}
