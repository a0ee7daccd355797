import assert from "node:assert/strict";
import { test } from "node:test";

import { MarkdownStream, parseMarkdown } from "./static/markdown.js";

const text = (value) => ({ type: "text", text: value });
const paragraph = (...children) => ({ type: "paragraph", children });

test("paragraphs, headings, rules and line breaks are told apart", () => {
  assert.deepEqual(parseMarkdown("# One #\n\ntwo\nthree\n***\n#four"), [
    { type: "heading", level: 1, children: [text("One")] },
    paragraph(text("two"), { type: "break" }, text("three")),
    { type: "rule" },
    paragraph(text("#four")),
  ]);
});

test("emphasis nests and leaves products and names alone", () => {
  assert.deepEqual(parseMarkdown("***a*** **b *c*** ~~d~~ 2*3*4 a_b_c * x *"), [
    paragraph(
      { type: "strong", children: [{ type: "em", children: [text("a")] }] },
      text(" "),
      { type: "strong", children: [text("b "), { type: "em", children: [text("c")] }] },
      text(" "),
      { type: "del", children: [text("d")] },
      text(" 2*3*4 a_b_c * x *"),
    ),
  ]);
});

test("code is taken as it is", () => {
  assert.deepEqual(parseMarkdown("`a*b*` ``c`d``\n```js x\n<b>*\n\n  y\n```\n~~~\nopen"), [
    paragraph({ type: "code", text: "a*b*" }, text(" "), { type: "code", text: "c`d" }),
    { type: "fence", language: "js", text: "<b>*\n\n  y" },
    { type: "fence", language: "", text: "open" },
  ]);
});

test("lists nest and hold blocks", () => {
  assert.deepEqual(parseMarkdown("3. a\n   - b\n   - c\n\n   d\n4. e\n\nf"), [
    {
      type: "list",
      start: 3,
      items: [
        [
          paragraph(text("a")),
          { type: "list", start: null, items: [[paragraph(text("b"))], [paragraph(text("c"))]] },
          paragraph(text("d")),
        ],
        [paragraph(text("e"))],
      ],
    },
    paragraph(text("f")),
  ]);
});

test("tables have a head and as many cells in each row", () => {
  assert.deepEqual(parseMarkdown("| a | b |\n|--|:-:|\n| `x|y` |\n| 1 | 2 | 3 |"), [
    {
      type: "table",
      head: [[text("a")], [text("b")]],
      rows: [
        [[{ type: "code", text: "x|y" }], []],
        [[text("1")], [text("2")]],
      ],
    },
  ]);
});

test("links go to http and https only, all else stays text", () => {
  const links = (source) => JSON.stringify(parseMarkdown(source)).match(/"href":"[^"]*"/g) ?? [];
  assert.deepEqual(links("[a](https://x.y/(z)) <http://b.c> see https://d.e/f?g=h. ![i](http://j/k.png)"), [
    '"href":"https://x.y/(z)"',
    '"href":"http://b.c"',
    '"href":"https://d.e/f?g=h"',
    '"href":"http://j/k.png"',
  ]);
  for (const hostile of [
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a]( javascript:alert(1))",
    "[a](data:text/html,<script>alert(1)</script>)",
    "<javascript:alert(1)>",
    "[a](//evil)",
    "[a](vbscript:x)",
    "![a](file:///etc/passwd)",
    "[a](\u0001javascript:alert(1))",
  ]) {
    assert.deepEqual(links(hostile), [], hostile);
  }
});

test("markup of HTML is text", () => {
  assert.deepEqual(parseMarkdown("<img src=x onerror=alert(1)> <script>"), [
    paragraph(text("<img src=x onerror=alert(1)> <script>")),
  ]);
});

test("no text takes long", () => {
  for (const source of [
    "*a ".repeat(1e5),
    "_a".repeat(1e5),
    "*_".repeat(5e4),
    "**a*".repeat(3e4),
    "~~a".repeat(3e4),
    "[".repeat(1e5) + "](",
    "[a](http://".repeat(2e4),
    "![".repeat(1e5),
    "<http://".repeat(3e4),
    "`".repeat(1e5),
    "` `` ".repeat(3e4),
    ">".repeat(1e5),
    "> ".repeat(5e4),
    "- ".repeat(5e4),
    "-" + " -".repeat(1e5) + "x",
    "#".repeat(1e5),
    "# " + " ".repeat(1e5) + "#x",
    "|a".repeat(1e5) + "\n" + "|-".repeat(1e5),
    "a|" + "`|".repeat(5e4) + "\n-|-",
    "a\n".repeat(1e5),
    "- a\n".repeat(3e4),
    "\\".repeat(1e5),
    "http://a".repeat(3e4),
  ]) {
    // The processor's time: a busy machine makes no parser slow.
    const start = process.cpuUsage();
    parseMarkdown(source);
    const { user, system } = process.cpuUsage(start);
    const spent = (user + system) / 1000;
    assert.ok(spent < 2000, `${spent} ms for ${source.slice(0, 20)}…`);
  }
});

const PIECES = [
  "a",
  "b c",
  " ",
  "\n",
  "\n",
  "\n\n",
  "- ",
  "1. ",
  "  ",
  "    ",
  "# ",
  "> ",
  "```",
  "```js\n",
  "---",
  "|",
  "a | b\n",
  "--|--\n",
  "*",
  "**",
  "`",
  "_",
  "[x](http://y)",
  "~~~",
  "\\",
  "\t",
];

test("a text that grows ends as the whole of it, wherever it is cut", () => {
  let seed = 7;
  const random = (limit) => {
    seed = (seed * 1103515245 + 12345) & 0x7fffffff;
    return (seed >> 8) % limit;
  };
  for (let round = 0; round < 3000; round += 1) {
    const source = Array.from({ length: 1 + random(24) }, () => PIECES[random(PIECES.length)]).join("");
    const stream = new MarkdownStream();
    const settled = [];
    let open = [];
    for (let end = 0; end <= source.length; end += 1 + random(3)) {
      const step = stream.update(source.slice(0, end));
      settled.push(...step.settled);
    }
    const last = stream.update(source);
    settled.push(...last.settled);
    open = last.open;
    assert.deepEqual([...settled, ...open], parseMarkdown(source), JSON.stringify(source));
  }
});

test("a long text is not parsed again and again", () => {
  const source = "A sentence with *emphasis* and `code`.\n\n".repeat(3000);
  const stream = new MarkdownStream();
  const start = performance.now();
  for (let end = 0; end <= source.length; end += 20) stream.update(source.slice(0, end));
  assert.ok(performance.now() - start < 3000, `${performance.now() - start} ms`);
});
