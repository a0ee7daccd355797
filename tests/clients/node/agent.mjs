// An agent as coding assistants have it: it streams, reads files by a tool, and goes on.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { model, url } from "./client.mjs";

const provider = createOpenAICompatible({
  name: "paddler",
  baseURL: url,
  apiKey: "unused",
  includeUsage: true,
});
const parts = [];
const result = streamText({
  model: provider(model),
  system: "You work on files.",
  prompt: "What does the file say?",
  stopWhen: stepCountIs(5),
  onError: ({ error }) => {
    throw error;
  },
  tools: {
    read: tool({
      description: "Read a file",
      inputSchema: z.object({ path: z.string(), limit: z.number().int().optional() }),
      execute: ({ path }) => readFile(path, "utf8"),
    }),
  },
});
for await (const part of result.fullStream) parts.push(part.type);

const steps = await result.steps;
assert.equal(steps.length, 2);
assert.equal(steps[0].finishReason, "tool-calls");
assert.equal(steps[0].reasoningText, "It is in a file.");
assert.equal(steps[1].finishReason, "stop");
assert.ok(parts.includes("tool-input-delta"));
const usage = await result.totalUsage;
assert.equal(usage.inputTokens, 10);
assert.equal(usage.outputTokens, 6);
process.stdout.write(await result.text);
