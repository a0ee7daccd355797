import assert from "node:assert/strict";
import { test } from "node:test";

import { EFFECTS, changesBetween, effectOf, mergeStates } from "./static/changes.js";
import { standardParameters } from "./static/parameters.js";

const state = (changes = {}, parameters = {}) => ({
  chat_template_override: null,
  inference_parameters: { ...standardParameters(), ...parameters },
  model: { LocalToAgent: "/a.gguf" },
  multimodal_projection: "None",
  use_chat_template_override: false,
  ...changes,
});

test("each difference is told from and to", () => {
  const to = state(
    { model: "None", chat_template_override: { content: "x\ny" }, use_chat_template_override: true },
    { temperature: 0.5, enable_embeddings: true },
  );
  assert.deepEqual(
    changesBetween(state(), to).map(({ key, from, to: after }) => [key, from, after]),
    [
      ["model", "/a.gguf", "none"],
      ["use_chat_template_override", "the model's", "own"],
      ["chat_template_override", "none", "3 characters, 2 lines"],
      ["temperature", "0.8", "0.5"],
      ["enable_embeddings", "off", "on"],
    ],
  );
});

test("decimals that are one on the wire do not differ", () => {
  assert.deepEqual(changesBetween(state({}, { top_p: 0.123456789 }), state({}, { top_p: 0.12345679 })), []);
});

test("the effect follows what agents are told", () => {
  const template = { chat_template_override: { content: "t" } };
  for (const [from, to, effect] of [
    [state(), state(), "nothing"],
    [state(), state(template), "stored"],
    [state(), state({ use_chat_template_override: true }), "stored"],
    [state(template), state({ ...template, use_chat_template_override: true }), "reload"],
    [state(), state({}, { temperature: 0.1 }), "reload"],
    [state(), state({ model: { LocalToAgent: "/b" } }, { temperature: 0.1 }), "load"],
    [state(), state({ multimodal_projection: { LocalToAgent: "/p" } }), "load"],
    [state(), state({ model: "None" }), "unload"],
    [state({ model: "None" }), state({ model: "None" }, { top_k: 1 }), "stored"],
    [state({ model: "None" }), state(), "load"],
  ]) {
    assert.equal(effectOf(from, to), effect);
    assert.ok(EFFECTS[effect].length > 0);
  }
});

test("a merge keeps my fields and takes theirs elsewhere", () => {
  const base = state();
  const mine = state({ model: { LocalToAgent: "/mine" } }, { temperature: 0.1, top_k: 5 });
  const theirs = state(
    { chat_template_override: { content: "t" } },
    { temperature: 0.2, top_p: 0.5, top_k: 5 },
  );
  const merged = mergeStates(base, mine, theirs);
  assert.deepEqual(
    merged.state,
    state(
      { model: { LocalToAgent: "/mine" }, chat_template_override: { content: "t" } },
      { temperature: 0.1, top_k: 5, top_p: 0.5 },
    ),
  );
  assert.deepEqual(merged.conflicts, ["Temperature"]);
  assert.deepEqual(mergeStates(base, base, theirs), { state: theirs, conflicts: [] });
});
