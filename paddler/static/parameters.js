// @ts-check
// The inference parameters: what each is called, does and may be, and how its field is read.

import { formatBytes } from "./format.js";
import { kvCacheBytes } from "./kv_cache.js";
import { KV_CACHE_DTYPES, POOLING_TYPES } from "./wire.js";

/** @typedef {import("./wire.js").InferenceParameters} InferenceParameters */
/** @typedef {keyof InferenceParameters} ParameterKey */
/** @typedef {number | boolean | string} ParameterValue */
/**
 * @typedef {object} Parameter
 * @property {ParameterKey} key
 * @property {string} label
 * @property {string} group
 * @property {"integer" | "decimal" | "choice" | "switch"} kind
 * @property {string} help
 * @property {ParameterValue} standard what a fresh balancer has
 * @property {number} [min]
 * @property {number} [max]
 * @property {string} [range] in words
 * @property {string} [unit]
 * @property {readonly string[]} [choices]
 * @property {boolean} [onlyEmbeddings] without effect while embeddings are off
 */

const U32_MAX = 2 ** 32 - 1;
const I32_MAX = 2 ** 31 - 1;
const F32_MAX = 3.4028235e38;
const F32_MIN_NORMAL = 1.1754944e-38;

/** Groups in the order of the page. */
export const GROUPS = Object.freeze([
  { id: "memory", title: "Context and memory" },
  { id: "sampling", title: "Sampling" },
  { id: "penalties", title: "Penalties" },
  { id: "embeddings", title: "Embeddings" },
  { id: "images", title: "Images" },
  { id: "hardware", title: "Hardware" },
]);

/** @type {readonly Parameter[]} */
export const PARAMETERS = Object.freeze([
  {
    key: "context_size",
    label: "Context size",
    group: "memory",
    kind: "integer",
    unit: "tokens",
    min: 0,
    max: U32_MAX,
    range: "0 or more; 0 = as the model was trained",
    standard: 8192,
    help:
      "How many tokens all slots of an agent keep together: prompts, history and answers. " +
      "More allows longer conversations and costs memory.",
  },
  {
    key: "n_batch",
    label: "Batch size",
    group: "memory",
    kind: "integer",
    unit: "tokens",
    min: 1,
    max: U32_MAX,
    range: "1 or more",
    standard: 2048,
    help:
      "How many tokens are worked on in one step. More reads prompts faster and costs memory. " +
      "An image or a document to embed must fit in one batch.",
  },
  {
    key: "k_cache_dtype",
    label: "Type of cached keys",
    group: "memory",
    kind: "choice",
    choices: KV_CACHE_DTYPES,
    standard: "Q8_0",
    help:
      "How precisely the context's keys are kept. F16 is twice the memory of Q8_0; the 4-bit " +
      "types are half of it, and some models answer noticeably worse with them.",
  },
  {
    key: "v_cache_dtype",
    label: "Type of cached values",
    group: "memory",
    kind: "choice",
    choices: KV_CACHE_DTYPES,
    standard: "Q8_0",
    help: "The same for the context's values, which suffer less from few bits than keys do.",
  },
  {
    key: "temperature",
    label: "Temperature",
    group: "sampling",
    kind: "decimal",
    min: 0,
    max: F32_MAX,
    range: "0 or more, mostly up to 2",
    standard: 0.8,
    help:
      "How freely the next token is chosen. 0 always takes the likeliest one; above 1 answers " +
      "become surprising, then incoherent.",
  },
  {
    key: "top_p",
    label: "Top p",
    group: "sampling",
    kind: "decimal",
    min: 0,
    max: 1,
    range: "0 to 1; 1 = off",
    standard: 0.8,
    help: "Only the likeliest tokens that together make up this share are considered.",
  },
  {
    key: "top_k",
    label: "Top k",
    group: "sampling",
    kind: "integer",
    unit: "tokens",
    min: -(2 ** 31),
    max: I32_MAX,
    range: "1 or more; 0 and below = off",
    standard: 80,
    help: "Only this many of the likeliest tokens are considered.",
  },
  {
    key: "min_p",
    label: "Min p",
    group: "sampling",
    kind: "decimal",
    min: 0,
    max: 1,
    range: "0 to 1; 0 = off",
    standard: 0.05,
    help: "Tokens less likely than this share of the likeliest one's probability are left out.",
  },
  {
    key: "penalty_repeat",
    label: "Repetition penalty",
    group: "penalties",
    kind: "decimal",
    min: F32_MIN_NORMAL,
    max: F32_MAX,
    range: "above 0; 1 = off",
    standard: 1.1,
    help: "Tokens that occurred before become less likely by this factor. Below 1 they become " + "likelier.",
  },
  {
    key: "penalty_presence",
    label: "Presence penalty",
    group: "penalties",
    kind: "decimal",
    min: -F32_MAX,
    max: F32_MAX,
    range: "any, mostly -2 to 2; 0 = off",
    standard: 0.8,
    help: "What is taken off a token that occurred at all.",
  },
  {
    key: "penalty_frequency",
    label: "Frequency penalty",
    group: "penalties",
    kind: "decimal",
    min: -F32_MAX,
    max: F32_MAX,
    range: "any, mostly -2 to 2; 0 = off",
    standard: 0,
    help: "What is taken off a token for each time that it occurred.",
  },
  {
    key: "penalty_last_n",
    label: "Penalty window",
    group: "penalties",
    kind: "integer",
    unit: "tokens",
    min: -1,
    max: I32_MAX,
    range: "-1 or more; 0 = off, -1 = the whole context",
    standard: -1,
    help: "How many of the last tokens the penalties look at.",
  },
  {
    key: "enable_embeddings",
    label: "Embeddings instead of text",
    group: "embeddings",
    kind: "switch",
    standard: false,
    help:
      "Agents then turn texts into vectors, for search and retrieval, and refuse to generate " +
      "text. It holds for the whole fleet.",
  },
  {
    key: "pooling_type",
    label: "Pooling",
    group: "embeddings",
    kind: "choice",
    choices: POOLING_TYPES,
    standard: "Last",
    onlyEmbeddings: true,
    help:
      "How the vectors of a text's tokens become one. Use what the model was trained with; " +
      "Unspecified takes it from the model's file.",
  },
  {
    key: "embedding_batch_size",
    label: "Documents per request",
    group: "embeddings",
    kind: "integer",
    unit: "documents",
    min: 1,
    max: U32_MAX,
    range: "1 or more",
    standard: 256,
    onlyEmbeddings: true,
    help: "A longer list of documents is split into parts of at most this many, spread over slots.",
  },
  {
    key: "image_resize_to_fit",
    label: "Longest image side",
    group: "images",
    kind: "integer",
    unit: "pixels",
    min: 1,
    max: U32_MAX,
    range: "1 or more",
    standard: 1024,
    help:
      "Larger images are made smaller before the model sees them. Fewer pixels are fewer " +
      "tokens. It counts for models with a multimodal projection.",
  },
  {
    key: "n_gpu_layers",
    label: "Layers on the GPU",
    group: "hardware",
    kind: "integer",
    unit: "layers",
    min: -1,
    max: I32_MAX,
    range: "-1 or more; 0 = all on the CPU, -1 = all on the GPU",
    standard: 0,
    help:
      "How much of the model runs on a GPU. It needs a build of llama-cpp-python with GPU " +
      "support on the agents.",
  },
]);

/**
 * @param {ParameterKey} key
 * @returns {Parameter}
 */
export function parameterOf(key) {
  const found = PARAMETERS.find((parameter) => parameter.key === key);
  if (found === undefined) throw new Error(`no parameter is called ${key}`);
  return found;
}

/** @returns {InferenceParameters} */
export function standardParameters() {
  const entries = PARAMETERS.map(({ key, standard }) => [key, standard]);
  return /** @type {InferenceParameters} */ (Object.fromEntries(entries));
}

/**
 * Reads what is in a field of a number.
 * @param {Parameter} parameter
 * @param {string} text
 * @returns {{value: number} | {error: string}}
 */
export function readNumber(parameter, text) {
  const typed = text.trim().replace(/^\+/, "");
  const allowed =
    `It must be ${parameter.kind === "integer" ? "a whole number" : "a number"}` +
    (parameter.range === undefined ? "." : `: ${parameter.range}.`);
  if (typed === "") return { error: `Nothing is filled in. ${allowed}` };
  if (!/^-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(typed)) {
    return { error: `“${text}” is no number. ${allowed}` };
  }
  const value = Number(typed);
  if (parameter.kind === "integer" && !Number.isInteger(value)) {
    return { error: `${typed} is not whole. ${allowed}` };
  }
  const { min = -Infinity, max = Infinity } = parameter;
  if (value < min) return { error: `${typed} is too small. ${allowed}` };
  if (value > max) return { error: `${typed} is too large. ${allowed}` };
  return { value: Object.is(value, -0) ? 0 : value };
}

/**
 * Whether two values are the same on the wire, which holds decimals as 32-bit floats.
 * @param {Parameter} parameter
 * @param {ParameterValue} one
 * @param {ParameterValue} other
 */
export function isSameValue(parameter, one, other) {
  if (parameter.kind !== "decimal") return one === other;
  return Math.fround(Number(one)) === Math.fround(Number(other));
}

/**
 * A value as people read it.
 * @param {ParameterValue} value
 */
export function describeValue(value) {
  if (typeof value === "boolean") return value ? "on" : "off";
  return String(value);
}

// How llama.cpp numbers the pooling types in a model's metadata.
const POOLING_BY_NUMBER = Object.freeze(["None", "Mean", "Cls", "Last", "Rank"]);

/**
 * What a model's own metadata say about the values: hints by key, none of which forbids anything.
 * @param {InferenceParameters} values
 * @param {Record<string, string> | null} metadata of the model that is asked for
 * @returns {Partial<Record<ParameterKey, string>>}
 */
export function hintsFor(values, metadata) {
  /** @type {Partial<Record<ParameterKey, string>>} */
  const hints = {};
  if (values.context_size > 0 && values.n_batch > values.context_size) {
    hints.n_batch = "This is more than the context size: no batch can be that long.";
  }
  if (!values.enable_embeddings && values.temperature > 2) {
    hints.temperature = "Above 2 hardly any model says sensible things.";
  }
  const architecture = metadata?.["general.architecture"];
  if (metadata === null || architecture === undefined) return hints;
  const trained = Number(metadata[`${architecture}.context_length`]);
  if (trained > 0 && values.context_size > trained) {
    hints.context_size =
      `The model was trained with ${trained} tokens for one conversation. More ` +
      "makes sense for several slots, which have them together.";
  } else if (trained > 0 && values.context_size === 0) {
    hints.context_size = `The model's own: ${trained} tokens, for all slots together.`;
  }
  const cache = kvCacheBytes(values, metadata);
  if (cache !== null) {
    const memory = `The KV cache of all slots takes ${formatBytes(cache)}, beside the model itself.`;
    hints.context_size = hints.context_size === undefined ? memory : `${hints.context_size} ${memory}`;
  }
  const layers = Number(metadata[`${architecture}.block_count`]);
  // llama.cpp counts the output layer, too.
  if (layers > 0 && values.n_gpu_layers > layers + 1) {
    hints.n_gpu_layers = `The model has ${layers} layers and its output: all of them go to the GPU.`;
  } else if (layers > 0 && values.n_gpu_layers > 0 && values.n_gpu_layers <= layers) {
    hints.n_gpu_layers =
      `The model has ${layers} layers: ${layers - values.n_gpu_layers} of them ` +
      "and its output stay on the CPU.";
  }
  const pooling = POOLING_BY_NUMBER[Number(metadata[`${architecture}.pooling_type`])];
  if (
    values.enable_embeddings &&
    pooling !== undefined &&
    pooling !== values.pooling_type &&
    values.pooling_type !== "Unspecified"
  ) {
    hints.pooling_type = `The model's file says ${pooling}.`;
  }
  return hints;
}
