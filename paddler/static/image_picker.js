// @ts-check
// Images for a message: chosen, dropped or pasted, shown small, and taken out again.

import { announce, make, setText } from "./dom.js";
import { formatBytes } from "./format.js";

export const IMAGE_TYPES = Object.freeze([
  "image/png",
  "image/jpeg",
  "image/gif",
  "image/bmp",
  "image/webp",
  "image/tiff",
  "image/svg+xml",
]);
export const MAX_IMAGE_BYTES = 20 * 1024 * 1024;
/** A request may have 64 MiB, and base64 takes a third more than the file. */
export const MAX_ALL_BYTES = 45 * 1024 * 1024;

/**
 * Why a file cannot be sent; empty if it can.
 * @param {{name: string, type: string, size: number}} file
 * @param {number} others bytes of the images that are there
 */
export function refusalOf(file, others) {
  if (!IMAGE_TYPES.includes(file.type)) {
    return `${file.name} is ${file.type || "of an unknown type"}; send PNG, JPEG, GIF, BMP, WebP, TIFF or SVG.`;
  }
  if (file.size === 0) return `${file.name} is empty.`;
  if (file.size > MAX_IMAGE_BYTES) {
    return `${file.name} has ${formatBytes(file.size)}; at most ${formatBytes(MAX_IMAGE_BYTES)} are allowed.`;
  }
  if (others + file.size > MAX_ALL_BYTES) {
    return `With ${file.name} all images have more than ${formatBytes(MAX_ALL_BYTES)}.`;
  }
  return "";
}

export class ImagePicker {
  /**
   * @param {string[]} images `data:` addresses, changed in place
   * @param {() => void} onChange
   */
  constructor(images, onChange) {
    this._images = images;
    this._onChange = onChange;
    /** Those that are being read. @type {Promise<void>} */
    this._taking = Promise.resolve();
    this._input = make("input", {
      type: "file",
      accept: IMAGE_TYPES.join(","),
      multiple: true,
      class: "off-screen",
      tabindex: "-1",
      "aria-label": "Image files",
      id: "image-files",
      onChange: () => {
        this.take([...(this._input.files ?? [])]);
        this._input.value = "";
      },
    });
    this.button = make("button", { type: "button", onClick: () => this._input.click() }, "Add images…");
    this._previews = make("ul", { class: "previews", "aria-label": "Images to send" });
    this._error = make("p", { class: "field-error", role: "alert" });
    this.element = make("div", {}, this._input, this._previews, this._error);
    this.show();
  }

  /** Take what a paste or drop holds; gives back whether there was a file in it. @param {DataTransfer | null} data */
  takeFrom(data) {
    const files = [...(data?.files ?? [])];
    if (files.length > 0) this.take(files);
    return files.length > 0;
  }

  /** Take files, one call after the other: each counts what is there. @param {File[]} files */
  take(files) {
    this._taking = this._taking.then(() => this._read(files));
    return this._taking;
  }

  /** @param {File[]} files */
  async _read(files) {
    const refusals = [];
    let taken = 0;
    for (const file of files) {
      const others = this._images.reduce((sum, url) => sum + (url.length * 3) / 4, 0);
      const refusal = refusalOf(file, others);
      if (refusal !== "") {
        refusals.push(refusal);
        continue;
      }
      try {
        this._images.push(await dataAddressOf(file));
        taken += 1;
      } catch {
        refusals.push(`${file.name} cannot be read.`);
      }
    }
    setText(this._error, refusals.join(" "));
    if (taken > 0) announce(`${taken} ${taken === 1 ? "image" : "images"} added`);
    this.show();
    this._onChange();
  }

  clear() {
    this._images.length = 0;
    setText(this._error, "");
    this.show();
  }

  show() {
    this._previews.replaceChildren(...this._images.map((url, index) => this._preview(url, index)));
  }

  /**
   * @param {string} url
   * @param {number} index
   */
  _preview(url, index) {
    const remove = make(
      "button",
      {
        type: "button",
        class: "small",
        "aria-label": `Remove image ${index + 1}`,
        onClick: () => {
          this._images.splice(index, 1);
          this.show();
          this.button.focus();
          this._onChange();
        },
      },
      "✕",
    );
    return make("li", {}, make("img", { src: url, alt: `Image ${index + 1} to send` }), remove);
  }
}

/** @param {File} file @returns {Promise<string>} */
function dataAddressOf(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(String(reader.result)));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
