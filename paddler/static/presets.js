// @ts-check
// Small models that are known to work, with what their makers recommend where they say so.

/** @typedef {import("./wire.js").ModelReference} ModelReference */
/** @typedef {import("./wire.js").InferenceParameters} InferenceParameters */
/**
 * @typedef {object} Preset
 * @property {string} name
 * @property {string} about
 * @property {ModelReference} model
 * @property {ModelReference} projection
 * @property {Partial<InferenceParameters>} parameters
 */

/**
 * @param {string} repo
 * @param {string} file
 * @returns {ModelReference}
 */
function hub(repo, file) {
  return { HuggingFace: { filename: file, repo_id: repo, revision: "main" } };
}

/** @type {readonly Preset[]} */
export const PRESETS = Object.freeze([
  {
    name: "Qwen3 0.6B",
    about: "Chat in many languages, reasons before it answers, calls tools. About 0.6 GB.",
    model: hub("Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf"),
    projection: "None",
    // For thinking, the model card's values; presence is what it advises for quantized files.
    parameters: {
      enable_embeddings: false,
      temperature: 0.6,
      top_p: 0.95,
      top_k: 20,
      min_p: 0,
      penalty_repeat: 1,
      penalty_presence: 1.5,
      penalty_frequency: 0,
    },
  },
  {
    name: "Qwen2.5 0.5B Instruct",
    about: "Chat without reasoning, quick on a CPU. About 0.7 GB.",
    model: hub("Qwen/Qwen2.5-0.5B-Instruct-GGUF", "qwen2.5-0.5b-instruct-q8_0.gguf"),
    projection: "None",
    parameters: {
      enable_embeddings: false,
      temperature: 0.7,
      top_p: 0.8,
      top_k: 20,
      min_p: 0,
      penalty_repeat: 1.1,
      penalty_presence: 0,
      penalty_frequency: 0,
    },
  },
  {
    name: "SmolLM2 1.7B Instruct",
    about: "English chat. About 1.1 GB.",
    model: hub("HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF", "smollm2-1.7b-instruct-q4_k_m.gguf"),
    projection: "None",
    parameters: {
      enable_embeddings: false,
      temperature: 0.2,
      top_p: 0.9,
      penalty_repeat: 1,
      penalty_presence: 0,
      penalty_frequency: 0,
    },
  },
  {
    name: "SmolVLM2 256M",
    about: "Describes images, in English. About 0.3 GB with its projection.",
    model: hub("ggml-org/SmolVLM2-256M-Video-Instruct-GGUF", "SmolVLM2-256M-Video-Instruct-Q8_0.gguf"),
    projection: hub(
      "ggml-org/SmolVLM2-256M-Video-Instruct-GGUF",
      "mmproj-SmolVLM2-256M-Video-Instruct-Q8_0.gguf",
    ),
    parameters: { enable_embeddings: false },
  },
  {
    name: "nomic-embed-text v1.5",
    about: "Embeddings of English texts, 768 values each. About 0.15 GB.",
    model: hub("nomic-ai/nomic-embed-text-v1.5-GGUF", "nomic-embed-text-v1.5.Q8_0.gguf"),
    projection: "None",
    parameters: { enable_embeddings: true, pooling_type: "Mean" },
  },
  {
    name: "Qwen3 Embedding 0.6B",
    about: "Embeddings of texts in many languages, 1,024 values each. About 0.6 GB.",
    model: hub("Qwen/Qwen3-Embedding-0.6B-GGUF", "Qwen3-Embedding-0.6B-Q8_0.gguf"),
    projection: "None",
    parameters: { enable_embeddings: true, pooling_type: "Last" },
  },
]);

/**
 * The values that a preset fills in: what other presets would set is as it was.
 * @param {Preset} preset
 * @param {InferenceParameters} before
 * @returns {Partial<InferenceParameters>}
 */
export function valuesOf(preset, before) {
  const touched = PRESETS.flatMap(({ parameters }) => Object.keys(parameters));
  const entries = Object.entries(before).filter(([key]) => touched.includes(key));
  return { ...Object.fromEntries(entries), ...preset.parameters };
}
