// @ts-check
// How much memory the KV cache of a model takes, by the model's own metadata.

/** @typedef {import("./wire.js").InferenceParameters} InferenceParameters */

// ggml's blocks: bytes and numbers in one.
/** @type {Readonly<Record<string, readonly [bytes: number, numbers: number]>>} */
const BLOCKS = Object.freeze({
  F32: [4, 1],
  F16: [2, 1],
  BF16: [2, 1],
  Q8_0: [34, 32],
  Q5_1: [24, 32],
  Q5_0: [22, 32],
  Q4_1: [20, 32],
  Q4_0: [18, 32],
  IQ4_NL: [18, 32],
});
// llama.cpp rounds contexts up to this.
const CONTEXT_STEP = 256;
// Keys of models that keep something else, or whose layers differ in what they keep.
const OTHER_KINDS = Object.freeze([
  "ssm.state_size",
  "wkv.head_size",
  "attention.kv_lora_rank",
  "attention.key_length_swa",
  "attention.shared_kv_layers",
]);

/**
 * Bytes for all slots together; `null` where the metadata do not tell: layers of several kinds,
 * states of a fixed size, compressed keys, or no cache at all.
 * @param {InferenceParameters} values
 * @param {Record<string, string>} metadata
 * @returns {number | null}
 */
export function kvCacheBytes(values, metadata) {
  const architecture = metadata["general.architecture"];
  /** @param {string} key */
  const number = (key) => Number(metadata[`${architecture}.${key}`]);
  /** @param {string} key */
  const has = (key) => `${architecture}.${key}` in metadata;
  if (OTHER_KINDS.some(has)) return null;
  if (metadata[`${architecture}.attention.causal`] === "false") return null;
  // Where layers have different numbers of them, it is a list, which the metadata here leave out.
  const keyHeads = number("attention.head_count_kv");
  const headSize = number("embedding_length") / number("attention.head_count");
  const key = has("attention.key_length") ? number("attention.key_length") : headSize;
  const value = has("attention.value_length") ? number("attention.value_length") : headSize;
  const cells = Math.ceil((values.context_size || number("context_length")) / CONTEXT_STEP) * CONTEXT_STEP;
  const numbers = cells * number("block_count") * keyHeads;
  const bytes = numbers * (key * bytesOf(values.k_cache_dtype) + value * bytesOf(values.v_cache_dtype));
  return bytes > 0 && Number.isFinite(bytes) ? bytes : null;
}

/** @param {string} type of a cache; how many bytes a number takes */
function bytesOf(type) {
  const [bytes, numbers] = BLOCKS[type] ?? [NaN, 1];
  return bytes / numbers;
}
