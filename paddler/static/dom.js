// @ts-check
// Small helpers around the DOM. Text is only ever set as text, and only where it changed, so that
// nothing flickers and no selection is lost.

/** @param {string} id @returns {HTMLElement} */
export function element(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page lacks #${id}`);
  return found;
}

/** A copy of the only element in a template. @param {string} templateId @returns {HTMLElement} */
export function clone(templateId) {
  const template = /** @type {HTMLTemplateElement} */ (element(templateId));
  const first = template.content.firstElementChild;
  if (first === null) throw new Error(`the template #${templateId} is empty`);
  return /** @type {HTMLElement} */ (first.cloneNode(true));
}

/** The element marked `data-part="<name>"`. @param {ParentNode} root @param {string} name @returns {HTMLElement} */
export function part(root, name) {
  const found = root.querySelector(`[data-part="${name}"]`);
  if (found === null) throw new Error(`there is no part ${name}`);
  return /** @type {HTMLElement} */ (found);
}

/** @param {Element} target @param {string} text */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** @param {HTMLElement} target @param {boolean} isHidden */
export function setHidden(target, isHidden) {
  if (target.hidden !== isHidden) target.hidden = isHidden;
}

/** `null` takes the attribute away. @param {Element} target @param {string} name @param {string | null} value */
export function setAttribute(target, name, value) {
  if (value === null) {
    if (target.hasAttribute(name)) target.removeAttribute(name);
  } else if (target.getAttribute(name) !== value) {
    target.setAttribute(name, value);
  }
}

/**
 * A new element. `class`, `text` and `on<Event>` are what they say, all else are attributes.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number | boolean | null | undefined | ((event: Event) => void)>} [options]
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === "class") made.className = String(value);
    else if (name === "text") made.textContent = String(value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child !== null && child !== undefined) made.append(child);
  return made;
}

/**
 * Put `nodes` into `parent` in this order, moving only what is not in its place. What moves
 * would lose the focus, so that is given back.
 * @param {Element} parent @param {readonly Element[]} nodes
 */
export function arrange(parent, nodes) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  nodes.forEach((node, index) => {
    const there = parent.children[index];
    if (there !== node) parent.insertBefore(node, there ?? null);
  });
  if (focused instanceof HTMLElement && focused.isConnected && document.activeElement !== focused) {
    focused.focus({ preventScroll: true });
  }
}

/** Say something to users of screen readers. @param {string} text */
export function announce(text) {
  const region = element("announcements");
  // The same text twice is no change, and would not be read again.
  region.textContent = region.textContent === text ? `${text} ` : text;
}

/**
 * A button that copies what `getText` gives when it is pressed.
 * @param {() => string} getText @param {string} label what is copied, for screen readers
 */
export function copyButton(getText, label) {
  const button = make("button", { type: "button", class: "copy", "aria-label": `Copy ${label}` }, "Copy");
  /** @type {number | undefined} */
  let timer;
  button.addEventListener("click", async () => {
    const isCopied = await copyText(getText());
    setText(button, isCopied ? "Copied" : "Select and copy by hand");
    announce(isCopied ? `Copied ${label}` : `The browser does not let the page copy ${label}`);
    clearTimeout(timer);
    timer = setTimeout(() => setText(button, "Copy"), 2000);
  });
  return button;
}

/** Whether it could be copied. @param {string} text */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

/** Without TLS, other hosts than localhost have no clipboard. @param {string} text */
function copyBySelection(text) {
  const area = make("textarea", { class: "off-screen", "aria-hidden": "true", tabindex: "-1" });
  area.value = text;
  const focused = document.activeElement;
  const host = document.querySelector("dialog[open]:last-of-type") ?? document.body;
  host.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return isCopied;
}
