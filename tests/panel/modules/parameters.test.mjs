import assert from "node:assert/strict";
import { test } from "node:test";

import {
  GROUPS,
  PARAMETERS,
  hintsFor,
  isSameValue,
  parameterOf,
  readNumber,
  standardParameters,
} from "./static/parameters.js";
import { PRESETS } from "./static/presets.js";

test("each parameter stands in a group, with a label and words", () => {
  for (const parameter of PARAMETERS) {
    assert.ok(
      GROUPS.some(({ id }) => id === parameter.group),
      parameter.key,
    );
    assert.ok(parameter.label.length > 3 && parameter.help.length > 30, parameter.key);
    assert.ok(parameter.choices || parameter.kind === "switch" || parameter.range, parameter.key);
  }
});

test("any decimal is read as it is typed", () => {
  const temperature = parameterOf("temperature");
  for (const [text, value] of [
    ["0.85", 0.85],
    [" 1 ", 1],
    [".5", 0.5],
    ["1.", 1],
    ["1e-3", 0.001],
    ["-0", 0],
    ["+2", 2],
  ]) {
    assert.deepEqual(readNumber(temperature, text), { value });
  }
});

test("what is no number in range is refused with what is allowed", () => {
  for (const [key, text, words] of [
    ["temperature", "", /Nothing is filled in.*0 or more/],
    ["temperature", "-0.1", /too small.*0 or more/],
    ["temperature", "1e39", /too large/],
    ["temperature", "0,5", /“0,5” is no number/],
    ["temperature", "NaN", /no number/],
    ["temperature", "0x10", /no number/],
    ["top_p", "1.01", /too large.*0 to 1/],
    ["top_k", "1.5", /not whole/],
    ["n_batch", "0", /too small.*1 or more/],
    ["context_size", "4294967296", /too large/],
    ["penalty_repeat", "0", /too small.*above 0/],
    ["n_gpu_layers", "-2", /too small.*-1/],
  ]) {
    const read = readNumber(parameterOf(key), text);
    assert.match(read.error ?? "accepted", words, `${key}=${text}`);
  }
});

test("whole numbers may be written with an exponent", () => {
  assert.deepEqual(readNumber(parameterOf("context_size"), "8e3"), { value: 8000 });
});

test("decimals are compared as the wire holds them", () => {
  assert.ok(isSameValue(parameterOf("top_p"), 0.8, Math.fround(0.8)));
  assert.ok(!isSameValue(parameterOf("top_p"), 0.8, 0.81));
});

test("the model's own numbers give hints, and forbid nothing", () => {
  const metadata = {
    "general.architecture": "llama",
    "llama.context_length": "512",
    "llama.block_count": "24",
    "llama.pooling_type": "1",
  };
  const values = standardParameters();
  assert.deepEqual(hintsFor(values, null), {});
  assert.match(hintsFor(values, metadata).context_size, /512 tokens/);
  assert.match(hintsFor({ ...values, context_size: 0 }, metadata).context_size, /own: 512/);
  assert.match(hintsFor({ ...values, n_gpu_layers: 99 }, metadata).n_gpu_layers, /24 layers.*all/);
  assert.match(hintsFor({ ...values, n_gpu_layers: 10 }, metadata).n_gpu_layers, /14 of them/);
  const cache = { "llama.embedding_length": "64", "llama.attention.head_count": "1", "llama.attention.head_count_kv": "1" };
  const sized = { ...values, context_size: 256, k_cache_dtype: "F16", v_cache_dtype: "F16" };
  assert.match(hintsFor(sized, { ...metadata, ...cache }).context_size, /^The KV cache .* takes 1.5 MiB/);
  assert.equal(hintsFor({ ...values, n_gpu_layers: -1 }, metadata).n_gpu_layers, undefined);
  assert.match(hintsFor({ ...values, enable_embeddings: true }, metadata).pooling_type, /says Mean/);
  assert.match(hintsFor({ ...values, context_size: 100 }, null).n_batch, /more than the context/);
});

test("presets hold values that the form accepts", () => {
  assert.equal(new Set(PRESETS.map(({ name }) => name)).size, PRESETS.length);
  for (const preset of PRESETS) {
    for (const [key, value] of Object.entries(preset.parameters)) {
      const parameter = parameterOf(key);
      if (typeof value === "number") assert.deepEqual(readNumber(parameter, String(value)), { value });
      else assert.ok(parameter.kind === "switch" || parameter.choices.includes(value));
    }
  }
});
