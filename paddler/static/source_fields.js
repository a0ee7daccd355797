// @ts-check
// Where a model comes from: a choice of four sources and the fields of the chosen one.

import { make, setHidden, setText } from "./dom.js";
import { errorOf, showError } from "./field_error.js";
import {
  MAIN,
  describeReference,
  emptyFields,
  fieldsOf,
  hintOf,
  pageOf,
  parseAddress,
  problemsOf,
  referenceOf,
} from "./model_address.js";

/**
 * @typedef {import("./wire.js").ModelReference} ModelReference
 * @typedef {import("./model_address.js").SourceKind} SourceKind
 * @typedef {"repo" | "file" | "revision" | "url" | "path"} FieldName
 */

/** @type {readonly {name: FieldName, kind: SourceKind, label: string, example: string}[]} */
const FIELDS = Object.freeze([
  { name: "repo", kind: "hub", label: "Repository", example: "Qwen/Qwen3-0.6B-GGUF" },
  { name: "file", kind: "hub", label: "File", example: "Qwen3-0.6B-Q8_0.gguf" },
  { name: "revision", kind: "hub", label: "Revision (branch, tag or commit)", example: MAIN },
  { name: "url", kind: "url", label: "Address", example: "https://models.example.com/model.gguf" },
  { name: "path", kind: "local", label: "Path on the agents' machines", example: "/models/model.gguf" },
]);

export class SourceFields {
  /**
   * @param {string} id begins the ids of all fields
   * @param {string} legend
   * @param {string} help
   * @param {Record<SourceKind, string>} words what each source is called here
   * @param {() => void} onChange
   */
  constructor(id, legend, help, words, onChange) {
    this._onChange = onChange;
    /** @type {Record<string, HTMLInputElement>} */
    this._inputs = {};
    /** @type {Record<string, HTMLInputElement>} */
    this._kinds = {};
    this._hint = make("p", { class: "hint", id: `${id}-hint`, role: "status" });
    this._page = make("a", { target: "_blank", rel: "noopener noreferrer" });
    const choices = make("div", { class: "choices" });
    for (const kind of /** @type {const} */ (["hub", "url", "local", "none"])) {
      const input = make("input", {
        type: "radio",
        name: `${id}-kind`,
        id: `${id}-${kind}`,
        value: kind,
        onChange: () => this._changed(),
      });
      this._kinds[kind] = input;
      choices.append(make("label", { for: input.id }, input, ` ${words[kind]}`));
    }
    this._rows = FIELDS.map((field) => this._row(id, field));
    this.element = make(
      "fieldset",
      { class: "source", id },
      make("legend", { text: legend }),
      make("p", { class: "help", text: help }),
      choices,
      ...this._rows.map(({ row }) => row),
      this._hint,
      make("p", {}, this._page),
    );
    this.write("None");
  }

  /** @param {ModelReference} reference */
  write(reference) {
    const fields = fieldsOf(reference);
    for (const { name } of FIELDS) {
      const input = this._inputs[name];
      if (input) input.value = fields[name];
    }
    const kind = this._kinds[fields.kind];
    if (kind) kind.checked = true;
    this._show();
    for (const { name } of FIELDS) this._setError(name, "");
  }

  get fields() {
    const fields = emptyFields();
    for (const [kind, input] of Object.entries(this._kinds)) {
      if (input.checked) fields.kind = /** @type {SourceKind} */ (kind);
    }
    for (const { name } of FIELDS) fields[name] = this._inputs[name]?.value ?? "";
    return fields;
  }

  /** @returns {ModelReference} */
  get reference() {
    return referenceOf(this.fields);
  }

  /** Show what is wrong at its field. Gives back the fields at fault. @returns {HTMLInputElement[]} */
  check() {
    const problems = problemsOf(this.fields);
    const faulty = [];
    for (const { name } of FIELDS) {
      this._setError(name, problems[name] ?? "");
      const input = this._inputs[name];
      if (problems[name] && input) faulty.push(input);
    }
    return faulty;
  }

  /**
   * @param {string} id
   * @param {{name: FieldName, kind: SourceKind, label: string, example: string}} field
   */
  _row(id, { name, kind, label, example }) {
    const inputId = `${id}-${name}`;
    const input = make("input", {
      type: "text",
      id: inputId,
      placeholder: example,
      spellcheck: "false",
      autocomplete: "off",
      autocapitalize: "off",
      "aria-describedby": `${inputId}-error ${id}-hint`,
      onInput: () => this._typed(name),
      onBlur: () => this._left(name),
    });
    this._inputs[name] = input;
    const row = make(
      "div",
      { class: "field" },
      make("label", { for: inputId, text: label }),
      input,
      errorOf(inputId),
    );
    return { row, kind };
  }

  /** A pasted address says more than one field holds. @param {FieldName} name */
  _typed(name) {
    const input = this._inputs[name];
    if (input && (name === "repo" || name === "file") && /^(https?:|hf:)/i.test(input.value.trim())) {
      const parsed = parseAddress(input.value);
      if ("reference" in parsed && parsed.reference !== "None" && "HuggingFace" in parsed.reference) {
        this.write(parsed.reference);
      }
    } else if (input && name === "path" && /^agent:/i.test(input.value)) {
      const parsed = parseAddress(input.value);
      if ("reference" in parsed) this.write(parsed.reference);
    }
    if (input?.getAttribute("aria-invalid")) this._setError(name, problemsOf(this.fields)[name] ?? "");
    this._changed();
  }

  /** @param {FieldName} name */
  _left(name) {
    const input = this._inputs[name];
    if (input?.value) this._setError(name, problemsOf(this.fields)[name] ?? "");
  }

  _changed() {
    this._show();
    this._onChange();
  }

  _show() {
    const fields = this.fields;
    for (const { row, kind } of this._rows) setHidden(row, kind !== fields.kind);
    setText(this._hint, hintOf(fields));
    const page = Object.keys(problemsOf(fields)).length === 0 ? pageOf(referenceOf(fields)) : null;
    setHidden(/** @type {HTMLElement} */ (this._page.parentElement ?? this._page), page === null);
    if (page !== null) {
      this._page.href = page;
      setText(this._page, `See ${describeReference(referenceOf(fields))} on the Hub`);
    }
  }

  /** @param {FieldName} name @param {string} text */
  _setError(name, text) {
    const input = this._inputs[name];
    if (input) showError(input, text);
  }
}
