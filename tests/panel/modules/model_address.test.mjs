import assert from "node:assert/strict";
import { test } from "node:test";

import {
  describeReference,
  fieldsOf,
  hintOf,
  isSameReference,
  pageOf,
  parseAddress,
  problemsOf,
  referenceOf,
} from "./static/model_address.js";

const hub = (repo_id, filename, revision = "main") => ({
  HuggingFace: { filename, repo_id, revision },
});

const REFERENCES = [
  "None",
  hub("Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf"),
  hub("a/b", "deep/er/x y ü.gguf", "refs/pr/3"),
  { Url: { url: "http://host:1/a%20b/ü.gguf?token=x&y#z" } },
  { LocalToAgent: "/models/ü b%20.gguf" },
  { LocalToAgent: "models/relative.gguf" },
  { LocalToAgent: " /blank before" },
];

test("every reference comes back from its fields letter by letter", () => {
  for (const reference of REFERENCES) {
    assert.deepEqual(referenceOf(fieldsOf(reference)), reference);
    assert.ok(isSameReference(reference, referenceOf(fieldsOf(reference))));
  }
});

test("addresses are read as what they name", () => {
  for (const [text, reference] of [
    ["", "None"],
    ["https://huggingface.co/a/b/blob/main/c.gguf", hub("a/b", "c.gguf")],
    ["https://huggingface.co/a/b/resolve/v1.0/c/d.gguf?download=true", hub("a/b", "c/d.gguf", "v1.0")],
    ["https://hf.co/a/b/blob/refs%2Fpr%2F3/x%20y.gguf", hub("a/b", "x y.gguf", "refs/pr/3")],
    ["https://huggingface.co/a/b/resolve/refs/pr/3/x.gguf", hub("a/b", "x.gguf", "refs/pr/3")],
    ["hf:a/b/c.gguf", hub("a/b", "c.gguf")],
    ["hf:a/b/c/d.gguf@feature/x", hub("a/b", "c/d.gguf", "feature/x")],
    ["https://example.com/A b.gguf".replace(" ", "%20"), { Url: { url: "https://example.com/A%20b.gguf" } }],
    ["HTTP://EXAMPLE.com/x", { Url: { url: "HTTP://EXAMPLE.com/x" } }],
    ["agent:///models/ü x.gguf", { LocalToAgent: "/models/ü x.gguf" }],
    ["agent://models/x.gguf", { LocalToAgent: "models/x.gguf" }],
    ["agent:models/x%20.gguf", { LocalToAgent: "models/x%20.gguf" }],
    ["/models/x.gguf", { LocalToAgent: "/models/x.gguf" }],
    ["./x.gguf", { LocalToAgent: "./x.gguf" }],
    ["C:\\models\\x.gguf", { LocalToAgent: "C:\\models\\x.gguf" }],
  ]) {
    assert.deepEqual(parseAddress(text), { reference }, text);
  }
});

test("what names nothing is refused with what it was", () => {
  for (const text of [
    "https://huggingface.co/a/b",
    "https://huggingface.co/a/b/tree/main/x",
    "https://huggingface.co/a/b/blob/main/",
    "hf:a/b",
    "hf:a",
    "agent://",
    "ftp://x/y",
    "https://",
    "models/x.gguf",
    "s3://bucket/x",
  ]) {
    const parsed = parseAddress(text);
    assert.ok("error" in parsed, text);
    assert.ok(parsed.error.includes(text), parsed.error);
  }
});

test("the Hub's page of a file is read back as the same file", () => {
  for (const reference of REFERENCES.filter((one) => one.HuggingFace)) {
    assert.deepEqual(parseAddress(pageOf(reference)), { reference });
  }
  assert.equal(pageOf({ Url: { url: "https://x/y" } }), null);
});

test("a reference's short name is read back", () => {
  for (const reference of REFERENCES.filter((one) => one.HuggingFace || one.Url)) {
    assert.deepEqual(parseAddress(describeReference(reference)), { reference });
  }
});

test("fields that cannot be are named, others are not", () => {
  const problems = (fields) => Object.keys(problemsOf({ ...fieldsOf("None"), ...fields }));
  assert.deepEqual(problems({ kind: "none" }), []);
  assert.deepEqual(problems({ kind: "hub" }), ["repo", "file"]);
  assert.deepEqual(problems({ kind: "hub", repo: "a/b", file: "x.gguf", revision: "a b" }), ["revision"]);
  assert.deepEqual(problems({ kind: "hub", repo: "a/b/c", file: "/x" }), ["repo", "file"]);
  assert.deepEqual(problems({ kind: "hub", repo: "a/b", file: "c/x.gguf", revision: "" }), []);
  assert.deepEqual(problems({ kind: "url", url: "ftp://x" }), ["url"]);
  assert.deepEqual(problems({ kind: "url", url: "https://" }), ["url"]);
  assert.deepEqual(problems({ kind: "url", url: "https://a/b c" }), ["url"]);
  assert.deepEqual(problems({ kind: "url", url: "http://a/ü.gguf" }), []);
  assert.deepEqual(problems({ kind: "local", path: "  " }), ["path"]);
  assert.deepEqual(problems({ kind: "local", path: "x" }), []);
});

test("odd but possible fields get a hint", () => {
  const hint = (fields) => hintOf({ ...fieldsOf("None"), ...fields });
  assert.match(hint({ kind: "local", path: "x.gguf" }), /working directory/);
  assert.match(hint({ kind: "local", path: "/x.gguf " }), /blank/);
  assert.equal(hint({ kind: "local", path: "/x.gguf" }), "");
  assert.match(hint({ kind: "hub", file: "x.bin" }), /GGUF/);
  assert.match(hint({ kind: "url", url: "https://huggingface.co/a/b/blob/main/c.gguf" }), /Hub/);
  assert.equal(hint({ kind: "url", url: "https://e.com/c.gguf" }), "");
});
