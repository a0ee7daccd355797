import assert from "node:assert/strict";
import { test } from "node:test";

import { failureWords } from "./static/failure_words.js";

test("each failure that is known has words of its own, and a thing to do", () => {
  const seen = new Set();
  for (const [status, text, title] of [
    [0, "Failed to fetch", /cannot be reached/],
    [503, "Buffered requests overflow", /buffer is full/],
    [503, "balancer is shutting down", /is stopping/],
    [504, "Waiting for available slot timed out", /No slot became free/],
    [504, "Inference timed out after 30000ms waiting for next token.", /said nothing for too long/],
    [502, "Agent controller connection closed", /was lost/],
    [400, "Request evicted due to KV cache pressure (context_length_exceeded: …)", /does not fit/],
    [501, "Token generation is disabled while the cluster is configured for embeddings", /other kind/],
    [501, "Embeddings are disabled: the cluster generates text.", /other kind/],
    [400, "image required 900 tokens but agent n_batch is 512; rerun with a larger n_batch", /one batch/],
    [400, "received images but model does not support multimodal input", /cannot see images/],
    [400, "failed to decode images: Invalid base64 payload", /image cannot be used/],
    [400, "failed to render chat template: line 1: x", /chat template/],
    [400, "Failed to create grammar sampler: x", /JSON schema/],
    [413, "too large", /too large/],
    [400, "n is 0; it must be between 1 and 128", /refuses/],
    [500, "something", /failed/],
  ]) {
    const words = failureWords(status, text);
    assert.match(words.title, title, text);
    assert.ok(words.advice.length > 10);
    seen.add(words.title);
  }
  assert.ok(seen.size >= 16);
});

test("a failure within the stream has the words of its text", () => {
  assert.match(failureWords(500, "Agent controller connection closed").title, /was lost/);
  assert.match(failureWords(500, "Inference timed out after 1ms").title, /said nothing/);
});
