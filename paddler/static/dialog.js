// @ts-check
// Dialogs on the browser's own: it keeps the focus inside, closes on Escape and gives the focus back.

import { clone, make, part, setText } from "./dom.js";

/**
 * @typedef {object} OpenDialog
 * @property {HTMLDialogElement} element
 * @property {() => void} close
 * @property {(title: string) => void} setTitle
 */

let opened = 0;

/**
 * Open a dialog around `content`.
 * @param {{
 *   title: string,
 *   content: Node,
 *   className?: string,
 *   mayClose?: () => boolean,
 *   onClose?: () => void,
 * }} options `mayClose`: asked when a user closes it by any way; `onClose`: told when it is closed
 * @returns {OpenDialog}
 */
export function openDialog({ title, content, className, mayClose, onClose }) {
  const dialog = /** @type {HTMLDialogElement} */ (clone("dialog-frame"));
  const opener = document.activeElement;
  if (className) dialog.classList.add(className);
  const heading = part(dialog, "title");
  setText(heading, title);
  // One dialog may open above another.
  heading.id = `dialog-title-${++opened}`;
  dialog.setAttribute("aria-labelledby", heading.id);
  part(dialog, "content").append(content);
  const tryClose = () => {
    if (mayClose === undefined || mayClose()) dialog.close();
  };
  part(dialog, "close").addEventListener("click", tryClose);
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    tryClose();
  });
  // The dialog's own box is all but its content: what hits the dialog itself is outside.
  dialog.addEventListener("pointerdown", (event) => {
    if (event.target === dialog && isOutside(dialog, event)) tryClose();
  });
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
    onClose?.();
  });
  document.body.append(dialog);
  dialog.showModal();
  return {
    element: dialog,
    close: () => dialog.close(),
    setTitle: (text) => setText(part(dialog, "title"), text),
  };
}

/**
 * Ask before something that costs. The safe answer has the focus.
 * @param {{ title: string, text: string, confirm: string, isDangerous?: boolean }} options
 * @returns {Promise<boolean>}
 */
export function askFirst({ title, text, confirm, isDangerous = false }) {
  return new Promise((resolve) => {
    let answer = false;
    const cancel = make("button", { type: "button", autofocus: true }, "Cancel");
    const go = make("button", { type: "button", class: isDangerous ? "danger" : "primary" }, confirm);
    const content = make("div", {}, make("p", { text }), make("div", { class: "actions" }, cancel, go));
    const dialog = openDialog({ title, content, className: "narrow", onClose: () => resolve(answer) });
    cancel.addEventListener("click", () => dialog.close());
    go.addEventListener("click", () => {
      answer = true;
      dialog.close();
    });
  });
}

/** @param {HTMLDialogElement} dialog @param {PointerEvent} event */
function isOutside(dialog, event) {
  const box = dialog.getBoundingClientRect();
  return (
    event.clientX < box.left ||
    event.clientX > box.right ||
    event.clientY < box.top ||
    event.clientY > box.bottom
  );
}
