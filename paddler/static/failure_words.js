// @ts-check
// What went wrong with a request, in words, and what to do about it.

/** @typedef {{title: string, advice: string}} FailureWords */

/** @type {readonly {match: (status: number, text: string) => boolean, words: FailureWords}[]} */
const KNOWN = Object.freeze([
  {
    match: (status) => status === 0,
    words: {
      title: "The balancer cannot be reached.",
      advice: "Check that it runs and that this browser still reaches it, then try again.",
    },
  },
  {
    match: (_, text) => /requests overflow/i.test(text),
    words: {
      title: "The buffer is full: more requests wait than the balancer keeps.",
      advice:
        "Try again in a moment. For good: more agents or slots, or a larger " + "--max-buffered-requests.",
    },
  },
  {
    match: (_, text) => /shutting down/i.test(text),
    words: { title: "The balancer is stopping.", advice: "Try again when it is back." },
  },
  {
    match: (_, text) => /available slot/i.test(text),
    words: {
      title: "No slot became free in time.",
      advice:
        "Either no agent serves a model yet (see the Dashboard), or all slots are busy: wait, " +
        "add agents or slots, or raise --buffered-request-timeout.",
    },
  },
  {
    match: (status, text) => status === 504 || /inference timed out/i.test(text),
    words: {
      title: "The agent said nothing for too long.",
      advice: "It may be overloaded; try again, or raise --inference-item-timeout.",
    },
  },
  {
    match: (status, text) => status === 502 || /connection closed/i.test(text),
    words: {
      title: "The agent was lost while it answered.",
      advice: "Try again: another agent answers, or this one when it is back.",
    },
  },
  {
    match: (_, text) => /context_length_exceeded|KV cache pressure/i.test(text),
    words: {
      title: "The conversation does not fit in the context.",
      advice: "Clear it, shorten it, or raise the context size on the Model page.",
    },
  },
  {
    match: (_, text) => /embeddings/i.test(text) && /disabled/i.test(text),
    words: {
      title: "The fleet is set to the other kind of work.",
      advice: "“Embeddings instead of text” on the Model page decides between the two.",
    },
  },
  {
    match: (_, text) => /image required|n_batch/i.test(text),
    words: {
      title: "The image needs more tokens than fit in one batch.",
      advice: "Raise the batch size, or lower the longest image side, on the Model page.",
    },
  },
  {
    match: (_, text) => /multimodal/i.test(text),
    words: {
      title: "The model cannot see images.",
      advice: "Choose a model with a multimodal projection on the Model page, or remove the image.",
    },
  },
  {
    match: (_, text) => /image|base64/i.test(text),
    words: {
      title: "An image cannot be used.",
      advice: "Remove it, or try a PNG or JPEG file.",
    },
  },
  {
    match: (_, text) => /chat template|template/i.test(text),
    words: {
      title: "The chat template cannot make a prompt of this conversation.",
      advice:
        "Some allow no system prompt, or want user and assistant to take turns. See the " +
        "template on the Model page.",
    },
  },
  {
    match: (_, text) => /schema|grammar|response_format/i.test(text),
    words: {
      title: "The JSON schema cannot be used.",
      advice: "Correct the schema of the answer or of the tools.",
    },
  },
  {
    match: (status) => status === 413,
    words: {
      title: "The request is too large.",
      advice: "Remove images or use smaller ones.",
    },
  },
  {
    match: (status) => status >= 400 && status < 500,
    words: { title: "The balancer refuses this request.", advice: "Correct what it names." },
  },
]);

/** @type {FailureWords} */
const UNKNOWN = {
  title: "The answer failed.",
  advice: "Try again; the agent's log may say more.",
};

/**
 * @param {number} status of HTTP, or what it would have been; 0: the connection failed
 * @param {string} text what the balancer says
 * @returns {FailureWords}
 */
export function failureWords(status, text) {
  return KNOWN.find(({ match }) => match(status, text))?.words ?? UNKNOWN;
}
