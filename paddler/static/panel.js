// @ts-check
// Boot, frame and routing: which page a path shows, and what stands around it.

import * as api from "./api.js";
import { readConfiguration } from "./configuration.js";
import { announce, element, make, setAttribute, setHidden, setText } from "./dom.js";
import { formatCount, formatTime } from "./format.js";
import { Live } from "./live.js";

/**
 * What every page is given.
 * @typedef {object} Context
 * @property {import("./configuration.js").Configuration} configuration
 * @property {Live} live
 * @property {typeof api} api
 * @property {(path: string) => void} navigate
 *
 * What a page gives: `unmount` takes it away; `mayLeave` may ask about unsaved work.
 * @typedef {{ unmount(): void, mayLeave?(): boolean }} MountedPage
 * @typedef {{ mount(root: HTMLElement, context: Context): MountedPage }} PageModule
 * @typedef {{ name: string, module: string }} Page `module` is loaded when the page is first shown
 */

/** @type {Record<string, Page>} */
const PAGES = {
  "/": { name: "Dashboard", module: "./dashboard.js" },
  "/model": { name: "Model", module: "./model.js" },
  "/prompt": { name: "Prompt", module: "./prompt.js" },
};

const live = new Live();
/** @type {Context} */
const context = {
  configuration: readConfiguration(element("paddler-dashboard").dataset),
  live,
  api,
  navigate,
};

/** @type {MountedPage | null} */
let mounted = null;
let shownPath = "";
let isPageMissing = false;
let visits = 0; // so that a page that loads late does not replace one that was asked for later

// --- routing -----------------------------------------------------------------------------------

/** @param {string} path */
function navigate(path) {
  if (path === location.pathname) return;
  if (mounted?.mayLeave?.() === false) return;
  history.pushState(null, "", path);
  show(true);
}

function onBack() {
  if (location.pathname === shownPath) return;
  if (mounted?.mayLeave?.() === false) {
    history.pushState(null, "", shownPath);
    return;
  }
  show(true);
}

/** @param {MouseEvent} event */
function onClick(event) {
  if (event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  if (link === null || link.origin !== location.origin || link.target) return;
  if (link.getAttribute("href")?.startsWith("#")) return;
  if (PAGES[link.pathname] === undefined) return;
  event.preventDefault();
  navigate(link.pathname);
}

/** Show what the address says. @param {boolean} isMove whether a user went there within the page */
async function show(isMove) {
  const visit = ++visits;
  const path = location.pathname;
  const page = PAGES[path];
  const root = element("page");
  mounted?.unmount();
  mounted = null;
  shownPath = path;
  for (const link of document.querySelectorAll("nav a")) {
    setAttribute(link, "aria-current", link.getAttribute("href") === path ? "page" : null);
  }
  root.replaceChildren();
  isPageMissing = false;
  showTitle(live.state);
  if (page === undefined) {
    root.append(notFound(path));
  } else {
    try {
      /** @type {PageModule} */
      const module = await import(page.module);
      if (visit !== visits) return;
      mounted = module.mount(root, context);
    } catch (error) {
      if (visit !== visits) return;
      console.error(error);
      isPageMissing = true;
      root.append(notLoaded(page));
    }
  }
  if (isMove) {
    window.scrollTo(0, 0);
    root.focus({ preventScroll: true });
    announce(page === undefined ? "Page not found" : `${page.name} page`);
  }
}

/** @param {string} path */
function notFound(path) {
  return make(
    "section",
    { class: "card" },
    make("h1", { text: "Page not found" }),
    make("p", { text: `There is no page ${path} in this panel.` }),
    make("p", {}, make("a", { href: "/" }, "Go to the dashboard")),
  );
}

function browserTooOld() {
  return make(
    "section",
    { class: "card" },
    make("h1", { text: "This browser cannot show the panel" }),
    make("p", { text: "It has no server-sent events (EventSource), or something turned them off. Any current browser has them." }),
    make("p", {}, "Without it: ", make("code", { text: "paddler status" }), " in a terminal."),
  );
}

/** @param {Page} page */
function notLoaded(page) {
  const again = make("button", { type: "button", onClick: () => location.reload() }, "Load again");
  return make(
    "section",
    { class: "card" },
    make("h1", { text: page.name }),
    make("p", { text: "This page could not be loaded. The balancer may be gone, or have another version." }),
    again,
  );
}

// --- the frame ---------------------------------------------------------------------------------

/** @type {Record<import("./live.js").Connection, string>} */
const CONNECTION_WORDS = {
  connecting: "Connecting…",
  open: "Connected",
  lost: "Balancer lost",
  paused: "Paused",
};
let wasLost = false;
/** @type {string | null} the balancer's version that this page came from */
let ownVersion = null;
/** @type {number | undefined} */
let countdown;

/** @param {import("./live.js").LiveState} state */
function showFrame(state) {
  const isLost = state.connection === "lost" || (wasLost && state.connection === "connecting");
  const connection = element("connection");
  setText(connection, isLost ? CONNECTION_WORDS.lost : CONNECTION_WORDS[state.connection]);
  setAttribute(connection, "data-state", isLost ? "lost" : state.connection);
  setText(element("version"), state.version === null ? "" : `Paddler ${state.version}`);
  setHidden(element("lost-banner"), !isLost);
  ownVersion ??= state.version;
  setHidden(element("upgrade-banner"), state.version === ownVersion);
  element("page").classList.toggle("is-stale", isLost);
  // The balancer was lost before the page was there: browsers do not fetch a module twice.
  if (wasLost && state.connection === "open" && isPageMissing) location.reload();
  if (isLost !== wasLost) announce(isLost ? "The connection to the balancer is lost" : "Connected to the balancer again");
  wasLost = isLost;
  clearInterval(countdown);
  if (isLost) {
    showBanner();
    countdown = setInterval(showBanner, 250);
  }
  showTitle(state);
}

function showBanner() {
  const state = live.state;
  const known =
    state.heardAt === null
      ? "Nothing is known of the fleet yet."
      : `What is shown is from ${formatTime(state.heardAt / 1000)}.`;
  const seconds = Math.max(0, Math.ceil(((state.retryAt ?? 0) - Date.now()) / 1000));
  const next = state.connection === "lost" ? `Trying again in ${seconds} s.` : "Trying again now…";
  setText(element("lost-text"), `The balancer does not answer. ${known}`);
  setText(element("lost-countdown"), next);
}

/** @param {import("./live.js").LiveState} state */
function showTitle(state) {
  const page = PAGES[shownPath];
  const parts = page === undefined || shownPath === "/" ? [] : [page.name];
  if (wasLost) {
    parts.push("Balancer lost");
  } else if (state.wasOpen) {
    let busy = 0;
    let total = 0;
    for (const agent of state.agents.values()) {
      busy += agent.slots_processing;
      total += agent.slots_total;
    }
    parts.push(formatCount(state.agents.size, "agent"), `${busy}/${total} slots`);
  }
  const title = parts.length > 0 ? `${parts.join(" · ")} - Paddler` : "Paddler";
  if (document.title !== title) document.title = title;
}

element("retry").addEventListener("click", () => live.retryNow());
element("reload").addEventListener("click", () => location.reload());
document.addEventListener("click", onClick);
// A file that misses where it was meant to go would take the page's place.
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => event.preventDefault());
}
window.addEventListener("popstate", onBack);
if ("EventSource" in window) {
  live.subscribe(showFrame);
  live.start();
  show(false);
} else {
  setText(element("connection"), "Not connected");
  element("page").append(browserTooOld());
}
