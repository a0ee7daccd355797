// Vectors, which the client asks for in base64 unless told otherwise.
import assert from "node:assert/strict";

import { client, model } from "./client.mjs";

const input = ["The sun", "The moon"];
const packed = await client.embeddings.create({ model, input });
const plain = await client.embeddings.create({ model, input, encoding_format: "float" });
assert.equal(packed.data.length, 2);
for (const [index, one] of packed.data.entries()) {
  assert.equal(one.embedding.length, 576);
  for (const [at, value] of plain.data[index].embedding.entries()) {
    assert.ok(Math.abs(value - one.embedding[at]) < 1e-4);
  }
}
