import assert from "node:assert/strict";
import { test } from "node:test";

import { addEvent, endingOf, newAnswer, paceOf } from "./static/answer.js";
import { eventReader } from "./static/sse.js";

const chunk = (delta, rest = {}) => JSON.stringify({ choices: [{ index: 0, delta, ...rest }] });

test("events come out however the stream is cut", () => {
  const wire =
    ": keep-alive\n\ndata: one\n\ndata:two\r\ndata: three\r\n\r\nevent: x\ndata: four\n\ndata: unfinished\n";
  for (let size = 1; size < wire.length; size += 1) {
    const read = eventReader();
    const events = [];
    for (let at = 0; at < wire.length; at += size) events.push(...read(wire.slice(at, at + size)));
    assert.deepEqual(events, ["one", "two\nthree", "four"], `in pieces of ${size}`);
  }
});

test("content, reasoning, tool calls and usage gather in an answer", () => {
  const answer = newAnswer(1000);
  const events = [
    chunk({ role: "assistant" }),
    chunk({ reasoning_content: "so " }),
    chunk({ reasoning_content: "then" }),
    chunk({ content: "Hel" }),
    chunk({ content: "lo" }),
    chunk({ tool_calls: [{ index: 0, id: "c1", type: "function", function: { name: "f", arguments: "" } }] }),
    chunk({ tool_calls: [{ index: 0, function: { arguments: '{"a"' } }] }),
    chunk({ tool_calls: [{ index: 0, function: { arguments: ":1}" } }] }),
    chunk({
      tool_calls: [{ index: 1, id: "c2", type: "function", function: { name: "g", arguments: "{}" } }],
    }),
    chunk({}, { finish_reason: "tool_calls" }),
    JSON.stringify({ choices: [], usage: { prompt_tokens: 5, completion_tokens: 11 } }),
  ];
  events.forEach((event, index) => assert.equal(addEvent(answer, event, 1500 + index * 100), false));
  assert.equal(addEvent(answer, "[DONE]", 9999), true);
  assert.equal(answer.state, "done");
  assert.equal(answer.reasoning, "so then");
  assert.equal(answer.content, "Hello");
  assert.deepEqual(
    answer.calls.map((call) => [call.id, call.function.name, call.function.arguments]),
    [
      ["c1", "f", '{"a":1}'],
      ["c2", "g", "{}"],
    ],
  );
  assert.deepEqual(paceOf(answer), { firstMs: 600, perSecond: (10 * 1000) / 700 });
  assert.match(endingOf(answer), /tools/);
});

test("an error in the stream ends the answer with its words", () => {
  const answer = newAnswer(0);
  assert.equal(addEvent(answer, '{"error":{"message":"gone","type":"server_error"}}', 1), true);
  assert.deepEqual([answer.state, answer.error], ["failed", "gone"]);
  const other = newAnswer(0);
  assert.equal(addEvent(other, "<html>", 1), true);
  assert.match(other.error, /no JSON: <html>/);
});

test("each way to end has its words", () => {
  const ended = (finish, state = "done") => endingOf({ ...newAnswer(0), finish, state });
  assert.match(ended("length"), /^Cut/);
  assert.match(ended("stop"), /Finished/);
  assert.match(ended(null), /without/);
  assert.match(ended(null, "stopped"), /Stopped by you/);
  assert.match(ended("reloaded", "stopped"), /reload/);
  assert.equal(ended(null, "running"), "");
});
