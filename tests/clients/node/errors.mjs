// Errors as the classes that the client has for them.
import assert from "node:assert/strict";
import OpenAI from "openai";

import { client, clientOf, messages, model } from "./client.mjs";

await assert.rejects(
  client.chat.completions.create({ model, messages, temperature: 3 }),
  (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature",
);
await assert.rejects(
  client.responses.create({ model, input: "Hi", previous_response_id: "resp_1" }),
  (error) => error instanceof OpenAI.BadRequestError && error.param === "previous_response_id",
);
await assert.rejects(
  client.models.retrieve("gpt-4o"),
  (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
);

// No slot, and nobody may wait: tried once more, after the second that the service asks for.
const began = performance.now();
await assert.rejects(
  clientOf({ maxRetries: 1 }).chat.completions.create({ model, messages }),
  (error) => error instanceof OpenAI.InternalServerError && error.status === 503,
);
assert.ok(performance.now() - began >= 1000);
