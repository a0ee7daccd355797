// @ts-check
// The fields of the inference parameters, each with what it does and what it may be.

import { make, setAttribute, setHidden, setText } from "./dom.js";
import { errorOf, showError } from "./field_error.js";
import { GROUPS, PARAMETERS, describeValue, hintsFor, isSameValue, readNumber } from "./parameters.js";

/**
 * @typedef {import("./parameters.js").Parameter} Parameter
 * @typedef {import("./wire.js").InferenceParameters} InferenceParameters
 * @typedef {HTMLInputElement | HTMLSelectElement} Control
 * @typedef {object} Row
 * @property {Parameter} parameter
 * @property {HTMLElement} element
 * @property {Control} control
 * @property {HTMLElement} mark
 * @property {HTMLElement} hint
 * @property {HTMLButtonElement} reset
 */

export class ParameterFields {
  /** @param {() => void} onChange */
  constructor(onChange) {
    this._onChange = onChange;
    /** @type {Row[]} */
    this._rows = PARAMETERS.map((parameter) => this._makeRow(parameter));
    /** @type {InferenceParameters | null} what agents have now */
    this._base = null;
    /** @type {Record<string, string> | null} */
    this._metadata = null;
    this._resetAll = make(
      "button",
      { type: "button", onClick: () => this._reset(this._rows) },
      "Reset all to the defaults",
    );
    this.element = make(
      "div",
      { class: "parameters" },
      ...GROUPS.map((group) => this._group(group)),
      make("p", { class: "actions" }, this._resetAll),
    );
  }

  /** Fill in values, all of them or some. @param {Partial<InferenceParameters>} values */
  write(values) {
    for (const row of this._rows) {
      const value = values[row.parameter.key];
      if (value !== undefined) writeControl(row.control, value);
      if (value !== undefined) showError(row.control, "");
    }
    this._show();
  }

  /** What is in force now: fields that differ from it are marked. @param {InferenceParameters} base */
  setBase(base) {
    this._base = base;
    this._show();
  }

  /** @param {Record<string, string> | null} metadata of the model that the form names */
  setMetadata(metadata) {
    this._metadata = metadata;
    this._show();
  }

  /**
   * The values, and the fields that hold none.
   * @returns {{values: InferenceParameters, faulty: Control[]}}
   */
  check() {
    const faulty = [];
    for (const row of this._rows) {
      const read = readControl(row);
      showError(row.control, "error" in read ? read.error : "");
      if ("error" in read) faulty.push(row.control);
    }
    return { values: this.values, faulty };
  }

  /** What the fields hold; where that cannot be read, what is in force. @returns {InferenceParameters} */
  get values() {
    /** @type {Record<string, unknown>} */
    const values = {};
    for (const row of this._rows) {
      const read = readControl(row);
      const { key, standard } = row.parameter;
      values[key] = "error" in read ? (this._base?.[key] ?? standard) : read.value;
    }
    return /** @type {InferenceParameters} */ (values);
  }

  /** Whether any field holds what is not in force, be it readable or not. */
  get isChanged() {
    return this._rows.some((row) => this._isChanged(row));
  }

  /** The field that a refusal of the balancer names. @param {string} text */
  mark(text) {
    const row = this._rows.find(({ parameter }) => new RegExp(`\\b${parameter.key}\\b`).test(text));
    if (row) showError(row.control, text);
    return row?.control ?? null;
  }

  /** @param {{id: string, title: string}} group */
  _group({ id, title }) {
    return make(
      "fieldset",
      { class: "parameter-group" },
      make("legend", { text: title }),
      ...this._rows.filter((row) => row.parameter.group === id).map((row) => row.element),
    );
  }

  /** @param {Parameter} parameter @returns {Row} */
  _makeRow(parameter) {
    const id = `parameter-${parameter.key}`;
    const changed = () => {
      if (row.control.hasAttribute("aria-invalid")) this._judge(row);
      this._show();
      this._onChange();
    };
    const control = makeControl(parameter, id, changed, () => this._judge(row));
    const mark = make("span", { class: "changed", text: "changed" });
    const hint = make("p", { class: "hint", id: `${id}-hint` });
    const reset = make(
      "button",
      {
        type: "button",
        class: "reset",
        onClick: () => this._reset([row]),
        "aria-label": `Reset to ${describeValue(parameter.standard)}: ${parameter.label}`,
      },
      `Reset to ${describeValue(parameter.standard)}`,
    );
    const label = make(
      "label",
      { for: id },
      parameter.label,
      make("code", { class: "key", text: parameter.key }),
    );
    const inside = parameter.kind === "switch" ? [control, label, mark] : [label, mark];
    const element = make(
      "div",
      { class: "field parameter", "data-parameter": parameter.key },
      make("div", { class: "field-head" }, ...inside),
      make("p", { class: "help", id: `${id}-help`, text: describeHelp(parameter) }),
      make(
        "div",
        { class: "field-input" },
        ...(parameter.kind === "switch" ? [] : [control]),
        parameter.unit ? make("span", { class: "unit", text: parameter.unit }) : null,
        reset,
      ),
      errorOf(id),
      hint,
    );
    /** @type {Row} */
    const row = { parameter, element, control, mark, hint, reset };
    return row;
  }

  /** @param {Row[]} rows */
  _reset(rows) {
    for (const row of rows) {
      // Its button goes away with what it does.
      if (document.activeElement === row.reset) row.control.focus();
      writeControl(row.control, row.parameter.standard);
      showError(row.control, "");
    }
    this._show();
    this._onChange();
  }

  /** @param {Row} row */
  _judge(row) {
    const read = readControl(row);
    showError(row.control, "error" in read ? read.error : "");
  }

  /** @param {Row} row */
  _isChanged(row) {
    if (this._base === null) return false;
    const read = readControl(row);
    const { key } = row.parameter;
    return "error" in read || !isSameValue(row.parameter, read.value, this._base[key]);
  }

  _show() {
    const values = this.values;
    const hints = hintsFor(values, this._metadata);
    for (const row of this._rows) {
      const { parameter } = row;
      const read = readControl(row);
      const isStandard = "value" in read && isSameValue(parameter, read.value, parameter.standard);
      setHidden(row.reset, isStandard);
      setHidden(row.mark, !this._isChanged(row));
      setAttribute(row.element, "data-changed", this._isChanged(row) ? "" : null);
      const unused = parameter.onlyEmbeddings && !values.enable_embeddings;
      setText(row.hint, unused ? "Without effect while embeddings are off." : (hints[parameter.key] ?? ""));
    }
  }
}

/** @param {Parameter} parameter */
function describeHelp(parameter) {
  const range = parameter.range === undefined ? "" : ` Allowed: ${parameter.range}.`;
  return `${parameter.help}${range} Default: ${describeValue(parameter.standard)}.`;
}

/**
 * @param {Parameter} parameter
 * @param {string} id
 * @param {() => void} onChange
 * @param {() => void} onLeave
 * @returns {Control}
 */
function makeControl(parameter, id, onChange, onLeave) {
  const common = {
    id,
    "aria-describedby": `${id}-help ${id}-error ${id}-hint`,
    onInput: onChange,
    onBlur: onLeave,
  };
  if (parameter.kind === "switch") return make("input", { type: "checkbox", ...common });
  if (parameter.kind === "choice") {
    return make(
      "select",
      common,
      ...(parameter.choices ?? []).map((choice) => make("option", { text: choice })),
    );
  }
  return make("input", {
    type: "number",
    step: parameter.kind === "integer" ? "1" : "any",
    required: true,
    inputmode: parameter.kind === "integer" && (parameter.min ?? 0) >= 0 ? "numeric" : "text",
    min: parameter.kind === "integer" ? parameter.min : undefined,
    ...common,
  });
}

/** @param {Control} control @param {number | boolean | string} value */
function writeControl(control, value) {
  if (control instanceof HTMLInputElement && control.type === "checkbox") control.checked = value === true;
  else control.value = String(value);
}

/** @param {Row} row @returns {{value: number | boolean | string} | {error: string}} */
function readControl({ parameter, control }) {
  if (control instanceof HTMLSelectElement) return { value: control.value };
  if (control.type === "checkbox") return { value: control.checked };
  if (control.validity.badInput) {
    return {
      error: `This is no number. It must be ${parameter.kind === "integer" ? "a whole number" : "a number"}: ${parameter.range}.`,
    };
  }
  return readNumber(parameter, control.value);
}
