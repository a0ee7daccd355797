// The Responses API, whole, streamed and parsed.
import assert from "node:assert/strict";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { client, model } from "./client.mjs";

const greedy = { model, input: "Say hello.", temperature: 0, max_output_tokens: 60 };

const whole = await client.responses.create(greedy);
assert.ok(whole.output_text);

const types = [];
const stream = client.responses.stream(greedy);
for await (const event of stream) types.push(event.type);
assert.equal(types[0], "response.created");
assert.equal(types.at(-1), `response.${whole.status}`);
assert.equal((await stream.finalResponse()).output_text, whole.output_text);

const Capital = z.object({ city: z.enum(["Paris", "Rome"]) });
const parsed = await client.responses.parse({
  ...greedy,
  text: { format: zodTextFormat(Capital, "capital") },
});
Capital.parse(parsed.output_parsed);

const followed = await client.responses.create({
  ...greedy,
  input: [{ role: "user", content: "Hi" }, ...whole.output, { role: "user", content: "Again" }],
  max_output_tokens: 4,
});
assert.equal(followed.status, "incomplete");
assert.equal(followed.incomplete_details.reason, "max_output_tokens");
