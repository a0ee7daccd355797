// A client that loses interest amid a stream.
import assert from "node:assert/strict";

import { client, messages, model } from "./client.mjs";

const stream = await client.chat.completions.create({
  model,
  messages,
  max_tokens: 2000,
  n: 2,
  stream: true,
});
for await (const chunk of stream) {
  assert.equal(chunk.object, "chat.completion.chunk");
  break; // closes the connection
}
