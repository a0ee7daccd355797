import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";

import { outsideAddress, requestAsCurl, shellWord } from "./static/request_as_curl.js";

// In place of curl: prints its arguments, and its input if it is asked to read that.
const SHOW = `curl() { printf '%s\\0' "$@"; case "$*" in *@-*) cat;; esac; }\n`;

function run(shell, script) {
  const done = spawnSync(shell, [], { input: script, encoding: "utf8", maxBuffer: 1e9 });
  assert.equal(done.status, 0, done.stderr);
  return done.stdout.split("\0");
}

const BODIES = [
  {
    messages: [{ role: "user", content: 'It\'s "quoted" $HOME `id` $(id) \\n \\ !! \n newline ü 😀 % * ~' }],
  },
  { a: "'", b: "''", c: "'\\''", "key'": "\u0000\u001b[31m", stream: true },
  { image: `data:image/png;base64,${"A".repeat(300_000)}`, text: "it's\nEND_OF_REQUEST\n" },
  {},
];

for (const shell of ["sh", "bash"]) {
  test(`${shell} hands curl the body to the letter`, () => {
    for (const body of BODIES) {
      const printed = run(shell, SHOW + requestAsCurl({ address: "http://h:1/v1/x?a=b&c='", key: null }, body));
      const isInput = printed.includes("@-");
      const text = isInput ? printed.at(-1) : printed[printed.indexOf("--data-raw") + 1];
      assert.deepEqual(JSON.parse(text), body);
      assert.ok(printed.includes("http://h:1/v1/x?a=b&c='"));
      assert.ok(printed.includes("content-type: application/json"));
      assert.equal(printed.includes("--no-buffer"), body.stream === true);
    }
  });

  test(`${shell} takes any text for one word`, () => {
    for (const text of ["", "a b", "$x", "-n", "a'b", "'", "*", "!x", "#c", "a\nb", "ü"]) {
      assert.deepEqual(run(shell, `printf '%s\\0' ${shellWord(text)}`), [text, ""]);
    }
  });
}

function outside(openaiAddr, location, given = {}) {
  const plain = { openaiAddr, tls: new Set(), asksForApiKey: false, asksForToken: false };
  return outsideAddress({ ...plain, ...given }, location, "/chat/completions");
}

const REMOTE = { hostname: "lb.example", origin: "https://lb.example:8062" };
const LOCAL = { hostname: "localhost", origin: "http://localhost:8062" };
const OWN = "https://lb.example:8062/api/openai/v1/chat/completions";

test("the address is one that the browser's machine reaches, as far as it can be told", () => {
  for (const [address, location, expected] of [
    ["", REMOTE, OWN],
    ["127.0.0.1:8070", REMOTE, OWN],
    ["127.0.0.1:8070", LOCAL, "http://127.0.0.1:8070/v1/chat/completions"],
    ["10.0.0.1:8070", REMOTE, "http://10.0.0.1:8070/v1/chat/completions"],
    ["0.0.0.0:8070", REMOTE, "http://lb.example:8070/v1/chat/completions"],
    ["[::]:8070", REMOTE, "http://lb.example:8070/v1/chat/completions"],
    ["[fe80::1]:8070", REMOTE, "http://[fe80::1]:8070/v1/chat/completions"],
    ["gpu:8070", REMOTE, "http://gpu:8070/v1/chat/completions"],
  ]) {
    assert.deepEqual(outside(address, location), { address: expected, key: null });
  }
});

test("a protected service is asked by TLS, with the key that it takes", () => {
  const tls = new Set(["--compat-openai-addr"]);
  assert.deepEqual(outside("10.0.0.1:8070", REMOTE, { tls, asksForApiKey: true, asksForToken: true }), {
    address: "https://10.0.0.1:8070/v1/chat/completions",
    key: "API_KEY",
  });
  // The panel's own listener takes tokens, not API keys.
  assert.deepEqual(outside("", REMOTE, { asksForApiKey: true }), { address: OWN, key: null });
  assert.equal(outside("", REMOTE, { asksForToken: true }).key, "MANAGEMENT_TOKEN");
});

test("the shell fills the key in", () => {
  const command = requestAsCurl({ address: "http://h:1/v1", key: "API_KEY" }, {});
  const printed = run("sh", `${SHOW}API_KEY='s3 "x'\n${command}`);
  assert.ok(printed.includes('authorization: Bearer s3 "x'));
});
