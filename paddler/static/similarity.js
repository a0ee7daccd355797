// @ts-check
// How alike vectors are.

/**
 * The cosine of the angle between two vectors: 1 alike, 0 unrelated. A zero vector is like none.
 * @param {readonly number[]} one
 * @param {readonly number[]} other
 */
export function cosine(one, other) {
  let product = 0;
  let ones = 0;
  let others = 0;
  for (let index = 0; index < one.length; index += 1) {
    const a = one[index] ?? 0;
    const b = other[index] ?? 0;
    product += a * b;
    ones += a * a;
    others += b * b;
  }
  const length = Math.sqrt(ones) * Math.sqrt(others);
  return length === 0 ? 0 : product / length;
}

/**
 * @param {readonly (readonly number[])[]} vectors
 * @returns {number[][]}
 */
export function similarityMatrix(vectors) {
  return vectors.map((one) => vectors.map((other) => cosine(one, other)));
}
