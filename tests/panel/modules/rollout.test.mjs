import assert from "node:assert/strict";
import { test } from "node:test";

import { progressOf, summaryOf } from "./static/rollout.js";

const AGENT = {
  id: "a1",
  name: "gpu",
  issues: [],
  slots_total: 4,
  download_current: 0,
  download_total: 0,
  download_filename: null,
  download_indeterminate: true,
};
const facts = (details) => ({
  id: "a1",
  details: {
    phase: "serving",
    wanted_state: "new",
    applied_state: "old",
    load_fraction: null,
    bytes_per_s: null,
    seconds_left: null,
    ...details,
  },
});
const ISSUE = { ModelFileDoesNotExist: { model_path: "/x" } };

test("an agent that runs the state is done, whatever ran before", () => {
  const progress = progressOf(AGENT, facts({ applied_state: "new" }), "new");
  assert.equal(progress.isDone, true);
  assert.match(progress.words, /Serves with 4 slots/);
  const idle = progressOf(AGENT, facts({ applied_state: "new", phase: "idle" }), "new");
  assert.match(idle.words, /no model to run/);
});

test("issues of a former state are not held against the new one", () => {
  const agent = { ...AGENT, issues: [ISSUE] };
  assert.deepEqual(progressOf(agent, facts({ wanted_state: "old" }), "new").issues, []);
  assert.deepEqual(progressOf(agent, facts({}), "new").issues, [ISSUE]);
});

test("a download is told in percent, bytes, speed and time left", () => {
  const agent = {
    ...AGENT,
    download_filename: "m.gguf",
    download_indeterminate: false,
    download_current: 1024 ** 3,
    download_total: 4 * 1024 ** 3,
  };
  const { words, fraction } = progressOf(
    agent,
    facts({ phase: "downloading", bytes_per_s: 1024 ** 2, seconds_left: 75 }),
    "new",
  );
  assert.equal(fraction, 0.25);
  assert.equal(words, "Downloads m.gguf · 25%, 1 GiB of 4 GiB · 1 MiB/s · 1 min 15 s left");
  const unknown = progressOf(
    { ...agent, download_indeterminate: true },
    facts({ phase: "downloading" }),
    "new",
  );
  assert.equal(unknown.fraction, null);
  assert.equal(unknown.words, "Downloads m.gguf · 1 GiB");
});

test("each phase has its words", () => {
  const words = (details) => progressOf(AGENT, facts(details), "new").words;
  assert.match(words({ phase: "loading", load_fraction: 0.5 }), /50%/);
  assert.match(words({ phase: "draining" }), /running requests/);
  assert.match(words({ phase: "serving" }), /former state/);
  assert.match(words({ wanted_state: "old" }), /Is told/);
  assert.match(progressOf(AGENT, undefined, "new").words, /not told anything/);
});

test("the summary counts", () => {
  const one = (isDone, issues = []) => ({ isDone, issues });
  assert.match(summaryOf([]), /No agent/);
  assert.equal(summaryOf([one(true)]), "The agent runs this state.");
  assert.equal(summaryOf([one(false)]), "The agent does not run this state yet.");
  assert.equal(summaryOf([one(false, [ISSUE])]), "The agent does not run this state yet. It has an issue.");
  assert.equal(summaryOf([one(true), one(true)]), "All 2 agents run this state.");
  assert.equal(
    summaryOf([one(true), one(false, [ISSUE]), one(false)]),
    "1 of 3 agents run this state. 1 has an issue.",
  );
});
