// @ts-check
// Model references as people type and read them. Nothing is normalised: what is a path or an
// address on the wire is shown, and sent, letter by letter.

/** @typedef {import("./wire.js").ModelReference} ModelReference */
/** @typedef {"none" | "hub" | "url" | "local"} SourceKind */
/**
 * What the form holds: a kind and the fields of every kind, so that switching loses nothing.
 * @typedef {{kind: SourceKind, repo: string, file: string, revision: string, url: string,
 *   path: string}} SourceFields
 */

export const HUB_HOSTS = Object.freeze(["huggingface.co", "www.huggingface.co", "hf.co"]);
export const MAIN = "main";

const REPO = /^[\w.-]+\/[\w.-]+$/u;
const HUB_SHORT = /^hf:([^/@\s]+\/[^/@\s]+)\/([^@]+?)(?:@(\S+))?$/;
// The Hub's names for revisions with a slash that its own addresses leave unescaped.
const SLASHED_REVISIONS = Object.freeze(["pr", "convert"]);

/** @returns {SourceFields} */
export function emptyFields() {
  return { kind: "none", repo: "", file: "", revision: MAIN, url: "", path: "" };
}

/**
 * @param {ModelReference} reference
 * @returns {SourceFields}
 */
export function fieldsOf(reference) {
  const fields = emptyFields();
  if (reference === "None") return fields;
  if ("HuggingFace" in reference) {
    const { repo_id: repo, filename: file, revision } = reference.HuggingFace;
    return { ...fields, kind: "hub", repo, file, revision };
  }
  if ("Url" in reference) return { ...fields, kind: "url", url: reference.Url.url };
  return { ...fields, kind: "local", path: reference.LocalToAgent };
}

/**
 * @param {SourceFields} fields
 * @returns {ModelReference}
 */
export function referenceOf(fields) {
  switch (fields.kind) {
    case "hub":
      return {
        HuggingFace: {
          filename: fields.file,
          repo_id: fields.repo,
          revision: fields.revision === "" ? MAIN : fields.revision,
        },
      };
    case "url":
      return { Url: { url: fields.url } };
    case "local":
      return { LocalToAgent: fields.path };
    default:
      return "None";
  }
}

/**
 * What cannot be in these fields, by field; empty if all is well.
 * @param {SourceFields} fields
 * @returns {Partial<Record<"repo" | "file" | "revision" | "url" | "path", string>>}
 */
export function problemsOf(fields) {
  /** @type {Partial<Record<"repo" | "file" | "revision" | "url" | "path", string>>} */
  const problems = {};
  if (fields.kind === "hub") {
    if (!REPO.test(fields.repo)) {
      problems.repo =
        fields.repo === ""
          ? "Fill in the repository, for example Qwen/Qwen3-0.6B-GGUF."
          : `“${fields.repo}” is no repository; write OWNER/NAME, for example Qwen/Qwen3-0.6B-GGUF.`;
    }
    if (fields.file.trim() === "") {
      problems.file = "Fill in the file, for example Qwen3-0.6B-Q8_0.gguf.";
    } else if (fields.file.startsWith("/")) {
      problems.file = "A file within a repository begins without “/”.";
    }
    if (/\s/.test(fields.revision)) {
      problems.revision = "A revision (branch, tag or commit) has no blanks.";
    }
  } else if (fields.kind === "url") {
    if (!isWebAddress(fields.url)) {
      problems.url =
        fields.url.trim() === ""
          ? "Fill in an address that begins with https:// or http://."
          : `“${fields.url}” is no address that begins with https:// or http:// and names a host.`;
    }
  } else if (fields.kind === "local" && fields.path.trim() === "") {
    problems.path = "Fill in the path of the file on the agents' machines.";
  }
  return problems;
}

/**
 * What is allowed but seldom meant.
 * @param {SourceFields} fields
 * @returns {string}
 */
export function hintOf(fields) {
  if (fields.kind === "hub" && fields.file !== "" && !/\.gguf$/i.test(fields.file)) {
    return "Agents load GGUF files; this name does not end in .gguf.";
  }
  if (fields.kind === "url") {
    const parsed = parseAddress(fields.url);
    if ("reference" in parsed && parsed.reference !== "None" && "HuggingFace" in parsed.reference) {
      return "This is a file of the Hugging Face Hub. As such it would be taken from the Hub's cache.";
    }
    return "";
  }
  if (fields.kind !== "local" || fields.path === "") return "";
  if (fields.path !== fields.path.trim()) {
    return "The path begins or ends with a blank, which is kept.";
  }
  if (!/^(\/|[A-Za-z]:[\\/])/.test(fields.path)) {
    return "A relative path counts from each agent's own working directory.";
  }
  return "";
}

/**
 * Reads an address that was pasted or typed: of the Hub, of the web, `hf:…`, `agent:…`, a path.
 * @param {string} text
 * @returns {{reference: ModelReference} | {error: string}}
 */
export function parseAddress(text) {
  const typed = text.trim();
  if (typed === "") return { reference: "None" };
  if (/^hf:/.test(typed)) {
    const [, repo, file, revision] = HUB_SHORT.exec(typed) ?? [];
    if (repo === undefined || file === undefined) {
      return { error: `“${typed}”: write hf:OWNER/REPO/FILE or hf:OWNER/REPO/FILE@REVISION.` };
    }
    return hubReference(repo, file, revision ?? MAIN);
  }
  if (/^agent:/i.test(typed)) {
    // The text as it is: URL parsers take the first part of a relative path for a host.
    const path = text.trimStart().replace(/^agent:(\/\/)?/i, "");
    return path.trim() === ""
      ? { error: "agent:// lacks the path; write agent:///models/file.gguf." }
      : { reference: { LocalToAgent: path } };
  }
  if (/^https?:/i.test(typed)) {
    if (!isWebAddress(typed)) return { error: `“${typed}” names no host.` };
    return isOfHub(typed) ? parseHubAddress(typed) : { reference: { Url: { url: typed } } };
  }
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(typed)) {
    return { error: `“${typed}”: files come by http or https, from the Hub or from the agents.` };
  }
  if (/^(\.{0,2}\/|[A-Za-z]:[\\/])/.test(typed)) return { reference: { LocalToAgent: text } };
  return {
    error:
      `“${typed}” may be a file on the agents or on the Hub; choose the source, or write ` +
      "hf:OWNER/REPO/FILE, https://… or agent:PATH.",
  };
}

/**
 * A short text that names the reference, as the command line writes it.
 * @param {ModelReference} reference
 */
export function describeReference(reference) {
  if (reference === "None") return "none";
  if ("HuggingFace" in reference) {
    const { repo_id: repo, filename, revision } = reference.HuggingFace;
    return `hf:${repo}/${filename}${revision === MAIN ? "" : `@${revision}`}`;
  }
  if ("Url" in reference) return reference.Url.url;
  return reference.LocalToAgent;
}

/**
 * Where a browser shows the file; null where it cannot.
 * @param {ModelReference} reference
 * @returns {string | null}
 */
export function pageOf(reference) {
  if (reference === "None" || !("HuggingFace" in reference)) return null;
  const { repo_id: repo, filename, revision } = reference.HuggingFace;
  const file = filename.split("/").map(encodeURIComponent).join("/");
  return `https://${HUB_HOSTS[0]}/${repo}/blob/${encodeURIComponent(revision)}/${file}`;
}

/**
 * @param {ModelReference} one
 * @param {ModelReference} other
 */
export function isSameReference(one, other) {
  return JSON.stringify(fieldsOf(one)) === JSON.stringify(fieldsOf(other));
}

/** @param {string} text */
function isWebAddress(text) {
  if (!/^https?:\/\/[^/\s]/i.test(text) || /\s/.test(text)) return false;
  try {
    return new URL(text).hostname !== "";
  } catch {
    return false;
  }
}

/** @param {string} text */
function isOfHub(text) {
  return HUB_HOSTS.includes(new URL(text).hostname);
}

/**
 * @param {string} address
 * @returns {{reference: ModelReference} | {error: string}}
 */
function parseHubAddress(address) {
  const shape =
    `“${address}”: the Hub's addresses of files look like ` +
    "https://huggingface.co/OWNER/REPO/blob/main/FILE.gguf.";
  const path = address.replace(/^[a-z]+:\/\/[^/?#]*/i, "").replace(/[?#].*$/s, "");
  const parts = path.split("/").slice(1).map(decoded);
  const [owner, repo, view, ...rest] = parts;
  if (!owner || !repo || !["blob", "resolve", "raw"].includes(view ?? "")) return { error: shape };
  const isSlashed = rest[0] === "refs" && SLASHED_REVISIONS.includes(rest[1] ?? "");
  const revision = rest.slice(0, isSlashed ? 3 : 1).join("/");
  const file = rest.slice(isSlashed ? 3 : 1).join("/");
  if (revision === "" || file === "") return { error: shape };
  return hubReference(`${owner}/${repo}`, file, revision);
}

/**
 * @param {string} repo
 * @param {string} filename
 * @param {string} revision
 */
function hubReference(repo, filename, revision) {
  return { reference: { HuggingFace: { filename, repo_id: repo, revision } } };
}

/** @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a stray percent sign is part of the name
  }
}
