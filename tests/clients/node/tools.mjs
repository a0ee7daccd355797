// The client's own tools loop: it calls, answers and asks again until there is text.
import assert from "node:assert/strict";

import { client, messages, model } from "./client.mjs";

const asked = [];
const runner = client.chat.completions.runTools({
  model,
  messages,
  stream: process.env.STREAM === "true",
  tools: [
    {
      type: "function",
      function: {
        name: "get_weather",
        parse: JSON.parse,
        parameters: {
          $schema: "http://json-schema.org/draft-07/schema#",
          type: "object",
          properties: { place: { type: "string" } },
          required: ["place"],
        },
        function: ({ place }) => {
          asked.push(place);
          return `20 in ${place}`;
        },
      },
    },
  ],
});
assert.equal(await runner.finalContent(), "20 in Bern");
assert.deepEqual(asked, ["Rome", "Bern"]);

const called = await client.responses.create({
  model,
  input: "Hi",
  tools: [{ type: "function", name: "get_weather", parameters: {}, strict: false }],
});
assert.deepEqual(
  called.output.map((item) => item.type),
  ["reasoning", "function_call", "function_call"],
);
