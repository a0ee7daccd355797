import assert from "node:assert/strict";
import { test } from "node:test";

import { kvCacheBytes } from "./static/kv_cache.js";
import { standardParameters } from "./static/parameters.js";

const SMOLLM2 = Object.freeze({
  "general.architecture": "llama",
  "llama.context_length": "8192",
  "llama.block_count": "30",
  "llama.embedding_length": "576",
  "llama.attention.head_count": "9",
  "llama.attention.head_count_kv": "3",
});
const MIB = 1024 * 1024;

test("what SmolLM2 takes is what llama.cpp says", () => {
  for (const [type, mib] of [
    ["F32", 360],
    ["F16", 180],
    ["Q8_0", 95.625],
    ["Q4_0", 50.625],
  ]) {
    const values = { ...standardParameters(), context_size: 8000, k_cache_dtype: type, v_cache_dtype: type };
    assert.equal(kvCacheBytes(values, SMOLLM2), mib * MIB, type);
  }
});

test("keys and values count by their own types and lengths", () => {
  const values = { ...standardParameters(), context_size: 0, k_cache_dtype: "F16", v_cache_dtype: "Q8_0" };
  assert.equal(kvCacheBytes(values, SMOLLM2), (90 + 47.8125) * MIB);
  const lengths = { "llama.attention.key_length": "128", "llama.attention.value_length": "32" };
  assert.equal(kvCacheBytes(values, { ...SMOLLM2, ...lengths }), (180 + 47.8125 / 2) * MIB);
});

test("nothing is told where the metadata do not tell", () => {
  const values = standardParameters();
  for (const more of [
    { "llama.ssm.state_size": "16" },
    { "llama.wkv.head_size": "64" },
    { "llama.attention.kv_lora_rank": "512" },
    { "llama.attention.key_length_swa": "256" },
    { "llama.attention.shared_kv_layers": "10" },
    { "llama.attention.causal": "false" },
    { "llama.block_count": "many" },
    { "general.architecture": "other" },
  ]) {
    assert.equal(kvCacheBytes(values, { ...SMOLLM2, ...more }), null);
  }
  // A list of heads by layer is no text, and so not among the metadata: LFM2 has one.
  const { "llama.attention.head_count_kv": _, ...byLayer } = SMOLLM2;
  assert.equal(kvCacheBytes(values, byLayer), null);
  assert.equal(kvCacheBytes({ ...values, k_cache_dtype: "Q3" }, SMOLLM2), null);
  assert.equal(kvCacheBytes(values, {}), null);
});
