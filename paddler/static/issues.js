// @ts-check
// What is wrong on agents, in words: what it is, what Paddler does about it, and what one can do.

/**
 * @typedef {import("./wire.js").AgentIssue} AgentIssue
 * @typedef {import("./wire.js").IssueDetail} IssueDetail
 *
 * @typedef {object} IssueText
 * @property {string} title with the path or address at fault
 * @property {string} paddler what Paddler does
 * @property {string} you what one can do
 * @property {{ label: string, text: string } | null} more such as the template at fault
 * @property {boolean} isModel whether it is solved on the Model page
 */

/**
 * @typedef {{
 *   title: (subject: string, detail: IssueDetail) => string,
 *   paddler: string,
 *   you: string,
 *   isModel?: boolean,
 * }} Words
 */

const CACHE_PLACE =
  "The cache lies in PADDLER_CACHE_DIR, else in XDG_CACHE_HOME/paddler or ~/.cache/paddler; the Hub's in HF_HOME.";
const OLD_SERVES = "It keeps the model that is loaded, if any.";
const RETRIES = `It tries again by itself, ever less often. ${OLD_SERVES}`;
const WAITS = "It waits until the other process is done, or takes over if that one dies.";
const NOT_AGAIN = `It does not ask again until the model changes. ${OLD_SERVES}`;

/** @type {Record<string, Words>} */
const WORDS = {
  CacheCannotAcquireLock: {
    title: (subject) => `Another process is downloading ${subject}`,
    paddler: WAITS,
    you: "Nothing, as long as the other download goes on. If it hangs, end that process.",
  },
  CacheDirectoryIsNotWritable: {
    title: (subject) => `The cache cannot be written, so ${subject} cannot be stored`,
    paddler: RETRIES,
    you: `Give the agent's user the right to write there, or another folder. ${CACHE_PLACE}`,
  },
  CacheStorageIsFull: {
    title: (subject) => `The cache's disk is full: ${subject} does not fit`,
    paddler: RETRIES,
    you: `Free space on that disk, or move the cache. ${CACHE_PLACE}`,
  },
  ChatTemplateDoesNotCompile: {
    title: (subject, detail) => `The chat template of ${subject} is not valid: ${detail.error ?? "no reason given"}`,
    paddler: "It offers no slots until the template is valid.",
    you: "Correct the template, or go back to the model's own.",
    isModel: true,
  },
  DownloadInterrupted: {
    title: (subject) => `The download of ${subject} broke off`,
    paddler: `It goes on where it stopped. ${OLD_SERVES}`,
    you: "Nothing, unless it happens again and again: then check the network between the agent and the server.",
  },
  DownloadServerDeniedAccess: {
    title: (subject) => `The server denies access to ${subject}`,
    paddler: RETRIES,
    you: "Use an address that needs no login, or one that carries its token.",
    isModel: true,
  },
  DownloadServerErrored: {
    title: (subject) => `The server failed while it was asked for ${subject}`,
    paddler: RETRIES,
    you: "Wait, or use another address if the server stays broken.",
    isModel: true,
  },
  DownloadServerIsUnreachable: {
    title: (subject) => `The agent cannot reach the server of ${subject}`,
    paddler: RETRIES,
    you: "Check the agent's network, name resolution and proxies (HTTPS_PROXY, NO_PROXY).",
  },
  DownloadServerRejectedRequest: {
    title: (subject) => `The server rejects the request for ${subject}`,
    paddler: RETRIES,
    you: "Check the address.",
    isModel: true,
  },
  DownloadUrlIsMalformed: {
    title: (subject) => `${subject} is no address that can be downloaded from`,
    paddler: NOT_AGAIN,
    you: "Correct the address: it has to begin with http:// or https://.",
    isModel: true,
  },
  HuggingFaceCannotAcquireLock: {
    title: (subject) => `Another process is downloading ${subject} from the Hugging Face Hub`,
    paddler: WAITS,
    you: "Nothing, as long as the other download goes on. If it hangs, end that process.",
  },
  HuggingFaceModelDoesNotExist: {
    title: (subject) => `The Hugging Face Hub has no ${subject}`,
    paddler: NOT_AGAIN,
    you: "Check repository, file and revision: the Hub tells capital letters apart.",
    isModel: true,
  },
  HuggingFacePermissions: {
    title: (subject) => `The Hugging Face Hub does not let the agent read ${subject}`,
    paddler: RETRIES,
    you: "Accept the model's licence on the Hub, and set HF_TOKEN for the agent to a token that may read it.",
  },
  ModelCacheIsCorrupted: {
    title: (subject) => `What the cache holds of ${subject} is damaged`,
    paddler: "It throws that away and downloads anew.",
    you: "Nothing, unless it happens again and again: then check the cache's disk.",
  },
  ModelCannotBeLoaded: {
    title: (subject) => `The model ${subject} cannot be loaded`,
    paddler: "It tries again, ever less often. Meanwhile the agent has no slots.",
    you: "The agent's log says why: a damaged file, an architecture that this llama.cpp does not know, or too little memory. A smaller context or smaller cache types need less.",
    isModel: true,
  },
  ModelDoesNotExistAtUrl: {
    title: (subject) => `There is nothing at ${subject}`,
    paddler: RETRIES,
    you: "Check the address.",
    isModel: true,
  },
  ModelFileDoesNotExist: {
    title: (subject) => `The agent's machine has no file ${subject}`,
    paddler: `It looks again every second. ${OLD_SERVES}`,
    you: "Put the file there, or correct the path: it is a path on the agent's machine, not on the balancer's.",
    isModel: true,
  },
  MultimodalProjectionCannotBeLoaded: {
    title: (subject) => `The multimodal projection ${subject} cannot be loaded`,
    paddler: "It tries again, ever less often.",
    you: "Use the projection that was made for this model, and check that the file is there.",
    isModel: true,
  },
  SlotCannotStart: {
    title: (_, detail) => `Slot ${detail.slot_index ?? "?"} cannot start: ${detail.error ?? "no reason given"}`,
    paddler: "It tries again, ever less often. Meanwhile the agent has no slots.",
    you: "Start the agent with fewer --slots, or choose a smaller context size or smaller cache types.",
    isModel: true,
  },
  UnableToFindChatTemplate: {
    title: (subject) => `The model ${subject} has no chat template`,
    paddler: "It offers no slots: conversations cannot be put into the shape that the model wants.",
    you: "Set a chat template of your own, or use a model that has one.",
    isModel: true,
  },
};

/** The kinds of issues that have words. */
export const DESCRIBED_ISSUES = Object.freeze(Object.keys(WORDS));

/** @param {AgentIssue} issue @returns {IssueText} */
export function describeIssue(issue) {
  const [kind, detail] = Object.entries(issue)[0] ?? ["unknown", {}];
  const words = WORDS[kind];
  if (words === undefined) {
    return {
      title: kind,
      paddler: "This version of the panel does not know the issue.",
      you: "See the agent's log.",
      more: { label: "What the agent says", text: JSON.stringify(detail, null, 2) },
      isModel: false,
    };
  }
  return {
    title: words.title(subjectOf(detail), detail),
    paddler: words.paddler,
    you: words.you,
    more: moreOf(detail),
    isModel: words.isModel ?? false,
  };
}

/** One text for equal issues. @param {AgentIssue} issue */
export function issueKey(issue) {
  return JSON.stringify(issue);
}

/** @param {IssueDetail} detail */
function subjectOf(detail) {
  const path = detail.model_path;
  return (typeof path === "object" ? path.model_path : path) ?? "the model";
}

/** @param {IssueDetail} detail */
function moreOf(detail) {
  if (detail.template_content !== undefined) return { label: "The template", text: detail.template_content };
  if (detail.lock_path !== undefined) return { label: "The lock", text: detail.lock_path };
  return null;
}
