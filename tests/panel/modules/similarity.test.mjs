import assert from "node:assert/strict";
import { test } from "node:test";

import { cosine, similarityMatrix } from "./static/similarity.js";

test("the cosine tells alike, unrelated and opposite, whatever the lengths", () => {
  assert.equal(cosine([3, 4], [30, 40]), 1);
  assert.equal(cosine([1, 0], [0, 5]), 0);
  assert.equal(cosine([1, 0], [-3, 0]), -1);
  assert.equal(cosine([0, 0], [1, 1]), 0);
  assert.deepEqual(
    similarityMatrix([
      [1, 0],
      [0, 1],
    ]),
    [
      [1, 0],
      [0, 1],
    ],
  );
});
