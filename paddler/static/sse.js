// @ts-check
// Server-sent events out of a stream of text, however it is cut.

/**
 * Gives back a function that takes a piece of the stream and returns the data of the events that
 * it completes. Comments and other fields than `data` are left out.
 * @returns {(piece: string) => string[]}
 */
export function eventReader() {
  let rest = "";
  /** @type {string[]} */
  let lines = [];
  return (piece) => {
    const events = [];
    const text = rest + piece;
    let start = 0;
    for (;;) {
      const end = text.indexOf("\n", start);
      if (end < 0) break;
      const line = text.slice(start, text[end - 1] === "\r" ? end - 1 : end);
      start = Math.max(end + 1, start);
      if (line === "") {
        if (lines.length > 0) events.push(lines.join("\n"));
        lines = [];
      } else if (line.startsWith("data:")) {
        lines.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    rest = text.slice(start);
    return events;
  };
}
