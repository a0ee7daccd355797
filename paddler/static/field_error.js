// @ts-check
// The text under a field that says what is wrong in it.

import { make, setAttribute, setText } from "./dom.js";

/** The place for it; the field names it as its description. @param {string} inputId */
export function errorOf(inputId) {
  return make("p", { class: "field-error", id: `${inputId}-error` });
}

/**
 * @param {HTMLElement} input whose error stands in the element of its id and `-error`
 * @param {string} text empty: nothing is wrong
 */
export function showError(input, text) {
  setAttribute(input, "aria-invalid", text === "" ? null : "true");
  const place = input.closest(".field")?.querySelector(".field-error");
  if (place) setText(place, text);
}
