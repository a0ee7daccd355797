// Chat and text completions, whole and streamed, and the list of models.
import assert from "node:assert/strict";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { client, messages, model } from "./client.mjs";

const greedy = { model, messages, temperature: 0, max_tokens: 24 };

const whole = await client.chat.completions.create(greedy);
const text = whole.choices[0].message.content;
assert.ok(text);

const stream = client.chat.completions.stream({
  ...greedy,
  stream_options: { include_usage: true },
});
const streamed = await stream.finalChatCompletion();
assert.equal(streamed.choices[0].message.content, text);
assert.equal(streamed.choices[0].finish_reason, whole.choices[0].finish_reason);
assert.equal(streamed.usage.completion_tokens, whole.usage.completion_tokens);

const several = await client.chat.completions.create({
  ...greedy,
  n: 3,
  stop: [text.slice(3, 8)],
});
assert.deepEqual(
  several.choices.map((choice) => choice.message.content),
  Array(3).fill(text.slice(0, 3)),
);

const Capital = z.object({ city: z.enum(["Paris", "Rome"]), is_in_europe: z.boolean() });
const parsed = await client.chat.completions.parse({
  ...greedy,
  max_tokens: 60,
  response_format: zodResponseFormat(Capital, "capital"),
});
Capital.parse(parsed.choices[0].message.parsed);

let continued = "";
for await (const chunk of await client.completions.create({
  model,
  prompt: "One, two, three,",
  max_tokens: 6,
  stream: true,
})) {
  continued += chunk.choices[0].text;
}
assert.ok(continued);

const models = [];
for await (const one of client.models.list()) models.push(one.id);
assert.equal(models.length, 1);
assert.equal((await client.models.retrieve(models[0])).id, models[0]);
