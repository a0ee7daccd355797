import assert from "node:assert/strict";
import { test } from "node:test";

import { newAnswer } from "./static/answer.js";
import { chatRequest, newSettings } from "./static/chat_request.js";

const user = (text, images = []) => ({ role: "user", text, images });
const answered = (changes) => ({ role: "assistant", answer: { ...newAnswer(0), state: "done", ...changes } });
const request = (settings, turns = [user("hi")]) =>
  chatRequest({ ...newSettings(), ...settings }, turns, "m");
const TOOL = { type: "function", function: { name: "f", parameters: { type: "object" } } };

test("without settings only the conversation is sent, to be streamed with its usage", () => {
  assert.deepEqual(request({}), {
    body: {
      model: "m",
      messages: [{ role: "user", content: "hi" }],
      stream: true,
      stream_options: { include_usage: true },
    },
  });
});

test("each setting becomes its field", () => {
  const { body } = request({
    system: "Be short.",
    temperature: "0.5",
    top_p: "1",
    top_k: "-1",
    min_p: ".1",
    max_tokens: "9",
    seed: "42",
    stop: "a\n\n b\n",
    thinks: false,
    schema: '{"type":"object"}',
    tools: JSON.stringify([TOOL]),
    mustCall: true,
  });
  const { messages, stream, stream_options, ...rest } = body;
  assert.deepEqual(messages[0], { role: "system", content: "Be short." });
  assert.deepEqual(rest, {
    model: "m",
    temperature: 0.5,
    top_p: 1,
    top_k: -1,
    min_p: 0.1,
    max_tokens: 9,
    seed: 42,
    stop: ["a", " b"],
    reasoning_effort: "none",
    tools: [TOOL],
    tool_choice: "required",
    response_format: { type: "json_schema", json_schema: { name: "answer", schema: { type: "object" } } },
  });
});

test("history holds images, reasoning, calls and their results, and no empty answers", () => {
  const call = { id: "c", type: "function", function: { name: "f", arguments: "{}" } };
  const { body } = request({}, [
    user("look", ["data:image/png;base64,AA"]),
    answered({ content: "", state: "failed" }),
    answered({ content: "I see", reasoning: "hm", calls: [call] }),
    { role: "tool", callId: "c", name: "f", text: "1" },
    user("", ["data:x"]),
  ]);
  assert.deepEqual(body.messages, [
    {
      role: "user",
      content: [
        { type: "image_url", image_url: { url: "data:image/png;base64,AA" } },
        { type: "text", text: "look" },
      ],
    },
    { role: "assistant", content: "I see", reasoning_content: "hm", tool_calls: [call] },
    { role: "tool", tool_call_id: "c", content: "1" },
    { role: "user", content: [{ type: "image_url", image_url: { url: "data:x" } }] },
  ]);
});

test("what cannot be is named at its field", () => {
  for (const [key, text, words] of [
    ["temperature", "2.1", /0 to 2/],
    ["temperature", "warm", /no number/],
    ["top_p", "-1", /out of range/],
    ["top_k", "1.5", /not whole/],
    ["max_tokens", "0", /1 or more/],
    ["seed", "x", /no number/],
    ["schema", "{", /no JSON/],
    ["schema", "[]", /object/],
    ["schema", "1", /object/],
    ["tools", "{", /no JSON/],
    ["tools", '[{"name":"f"}]', /Tool 1/],
    ["tools", "[null]", /Tool 1/],
    ["tools", '[{"type":"function","function":{"name":""}}]', /Tool 1/],
    ["stop", "a\n".repeat(17), /16/],
  ]) {
    const { problems } = request({ [key]: text });
    assert.deepEqual(Object.keys(problems ?? {}), [key], `${key}=${text}`);
    assert.match(problems[key], words);
  }
  assert.match(request({ mustCall: true }).problems.tools, /Without a tool/);
});

test("one tool may stand without its list", () => {
  assert.deepEqual(request({ tools: JSON.stringify(TOOL) }).body.tools, [TOOL]);
});
