// @ts-check
// The Prompt page: a conversation with the model, or embeddings while the fleet makes those.

import { endingOf } from "./answer.js";
import { AnswerView, toolView, userView } from "./answer_view.js";
import { chatRequest, messagesOf } from "./chat_request.js";
import { Conversation } from "./conversation.js";
import { announce, copyButton, make, setHidden, setText } from "./dom.js";
import { EmbeddingsPanel } from "./embeddings.js";
import { failureWords } from "./failure_words.js";
import { fileName } from "./format.js";
import { ImagePicker } from "./image_picker.js";
import { describeReference } from "./model_address.js";
import { outsideAddress, requestAsCurl } from "./request_as_curl.js";
import { SettingsFields } from "./settings_fields.js";

/**
 * @typedef {import("./panel.js").Context} Context
 * @typedef {import("./live.js").LiveState} LiveState
 * @typedef {import("./chat_request.js").Turn} Turn
 */

const NEAR_END_PX = 120;

/** One for the tab, so that it goes on while other pages are shown.
 * @type {Conversation | null} */
let kept = null;

/**
 * @param {HTMLElement} root
 * @param {Context} context
 */
export function mount(root, context) {
  kept ??= new Conversation();
  const page = new PromptPage(root, context, kept);
  return { unmount: () => page.unmount() };
}

class PromptPage {
  /**
   * @param {HTMLElement} root
   * @param {Context} context
   * @param {Conversation} conversation
   */
  constructor(root, context, conversation) {
    this._context = context;
    this._conversation = conversation;
    this._isPlain = false;
    this._isFrameDue = false;
    this._isMounted = true;
    /** @type {AnswerView | null} of the last turn, if that is an answer */
    this._last = null;
    this._shown = 0;
    this._wasRunning = conversation.running !== null;
    this._settings = new SettingsFields(conversation.settings, () => conversation.keep());
    this._images = new ImagePicker(conversation.images, () => this._showComposer());
    this._log = make("div", { class: "log", role: "region", "aria-labelledby": "log-title" });
    this._area = make("textarea", {
      id: "message",
      rows: 2,
      placeholder: "Ask something…",
      "aria-describedby": "message-keys",
      onInput: () => {
        conversation.draft = this._area.value;
        this._grow();
        this._showComposer();
      },
      onKeydown: (event) => this._onKey(/** @type {KeyboardEvent} */ (event)),
      onBlur: () => conversation.keep(),
      onPaste: (event) => {
        const { clipboardData } = /** @type {ClipboardEvent} */ (event);
        // Word processors and spreadsheets add a picture of the text that is copied.
        const isText = ["text/plain", "text/html"].every((type) => clipboardData?.types.includes(type));
        if (!isText && this._images.takeFrom(clipboardData)) event.preventDefault();
      },
    });
    this._area.value = conversation.draft;
    this._send = make("button", { type: "submit", class: "primary" }, "Send");
    this._stop = make("button", { type: "button", class: "danger", onClick: () => this._onStop() }, "Stop");
    this._composer = make(
      "form",
      { class: "composer card", "aria-label": "Your message" },
      make("label", { for: "message", class: "off-screen", text: "Message" }),
      this._images.element,
      this._area,
      make(
        "div",
        { class: "composer-bar" },
        this._send,
        this._stop,
        this._images.button,
        make("span", {
          class: "help",
          id: "message-keys",
          text: "Enter sends, Shift+Enter breaks the line. Drop or paste images.",
        }),
      ),
    );
    this._composer.addEventListener("submit", (event) => {
      event.preventDefault();
      this._onSend();
    });
    this._clear = make("button", { type: "button", class: "small", onClick: () => this._onClear() }, "Clear");
    const talk = make(
      "div",
      { class: "talk" },
      make("h2", { id: "log-title", class: "off-screen", text: "Conversation" }),
      this._toolbar(),
      this._log,
      this._composer,
    );
    this._chat = make("div", { class: "chat" }, talk, this._settings.element);
    this._chat.addEventListener("dragover", (event) => this._onDrag(event, true));
    this._chat.addEventListener("dragleave", (event) => this._onDrag(event, false));
    this._chat.addEventListener("drop", (event) => {
      this._onDrag(event, false);
      this._images.takeFrom(event.dataTransfer);
    });
    this._embeddings = new EmbeddingsPanel(context, () => this._modelName());
    this._noModel = make("p", { class: "notice", role: "status", hidden: true });
    setHidden(this._embeddings.element, true);
    root.append(make("h1", { text: "Prompt" }), this._noModel, this._chat, this._embeddings.element);
    this._unwatch = conversation.watch(() => this._onChange());
    this._unsubscribe = context.live.subscribe((state) => this._onLive(state));
    this._showTurns();
    this._showComposer();
  }

  unmount() {
    this._isMounted = false;
    this._conversation.keep();
    this._embeddings.close();
    this._unwatch();
    this._unsubscribe();
  }

  _toolbar() {
    const plain = make("input", { type: "checkbox", id: "as-text" });
    plain.addEventListener("change", () => {
      this._isPlain = plain.checked;
      this._showTurns();
    });
    const save = make(
      "button",
      { type: "button", class: "small", onClick: () => this._export() },
      "Save as JSON",
    );
    const labelled = (/** @type {HTMLButtonElement} */ button, /** @type {string} */ text) =>
      make("span", { class: "labelled" }, `${text} `, button);
    return make(
      "div",
      { class: "toolbar", role: "group", "aria-label": "Conversation" },
      this._clear,
      save,
      labelled(
        copyButton(() => this._asJson(), "the conversation as JSON"),
        "JSON",
      ),
      labelled(
        copyButton(() => this._asCurl(), "the request as a curl line"),
        "curl",
      ),
      make("label", { for: "as-text" }, plain, " Answers as plain text"),
    );
  }

  // --- asking ------------------------------------------------------------------------------

  /** @param {KeyboardEvent} event */
  _onKey(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this._onSend();
  }

  _onSend() {
    const conversation = this._conversation;
    const text = this._area.value;
    const images = [...conversation.images];
    if (conversation.running !== null || (text.trim() === "" && images.length === 0)) return;
    /** @type {Turn} */
    const turn = { role: "user", text, images };
    if (!this._ask([...conversation.turns, turn])) return;
    this._area.value = "";
    conversation.draft = "";
    this._images.clear();
    this._grow();
    conversation.keep();
  }

  /**
   * Ask for the answer to these turns; false if the settings cannot be.
   * @param {Turn[]} turns
   */
  _ask(turns) {
    const conversation = this._conversation;
    const request = chatRequest(conversation.settings, turns, this._modelName());
    this._settings.showProblems("problems" in request ? request.problems : {});
    if ("problems" in request) {
      announce("The settings cannot be as filled in; see the fields.");
      return false;
    }
    conversation.turns = turns;
    conversation.ask(request.body);
    announce("The model answers");
    this._scrollToEnd();
    return true;
  }

  _onStop() {
    this._conversation.stop();
    this._area.focus();
  }

  /** Ask again from the turn before an answer. @param {number} index of the answer */
  _retry(index) {
    const turns = this._conversation.turns.slice(0, index);
    this._conversation.stop();
    this._ask(turns);
  }

  /** Take a message back into the field. @param {number} index */
  _edit(index) {
    const turn = this._conversation.turns[index];
    if (turn?.role !== "user") return;
    this._conversation.cut(index);
    this._conversation.images.splice(0, Infinity, ...turn.images);
    this._images.show();
    this._area.value = turn.text;
    this._conversation.draft = turn.text;
    this._grow();
    this._showComposer();
    this._area.focus();
  }

  /**
   * @param {number} index of the answer with the calls
   * @param {string[]} results
   */
  _giveBack(index, results) {
    const turn = this._conversation.turns[index];
    if (turn?.role !== "assistant") return;
    const turns = [...this._conversation.turns.slice(0, index + 1)];
    turn.answer.calls.forEach((call, place) => {
      turns.push({ role: "tool", callId: call.id, name: call.function.name, text: results[place] ?? "" });
    });
    this._ask(turns);
  }

  _onClear() {
    this._conversation.cut(0);
    this._area.focus();
    announce("The conversation is cleared");
  }

  // --- taking it along ---------------------------------------------------------------------

  _modelName() {
    const model = this._context.live.state.desired?.model ?? "None";
    return model === "None" ? "default" : fileName(describeReference(model));
  }

  _asJson() {
    const { settings, turns } = this._conversation;
    return JSON.stringify({ model: this._modelName(), messages: messagesOf(settings, turns) }, null, 2);
  }

  /** What was asked last, or would be asked now if something is typed. */
  _asCurl() {
    const { settings, turns, images } = this._conversation;
    const text = this._area.value;
    const asked = [...turns];
    if (text.trim() !== "" || images.length > 0) asked.push({ role: "user", text, images: [...images] });
    else while (asked.at(-1)?.role === "assistant") asked.pop();
    if (asked.length === 0) return "# Nothing is asked yet.";
    const request = chatRequest(settings, asked, this._modelName());
    this._settings.showProblems("problems" in request ? request.problems : {});
    if ("problems" in request) return "# The settings cannot be as filled in; see the page.";
    const outside = outsideAddress(this._context.configuration, location, "/chat/completions");
    return requestAsCurl(outside, request.body);
  }

  _export() {
    const address = URL.createObjectURL(new Blob([this._asJson()], { type: "application/json" }));
    make("a", { href: address, download: "conversation.json" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }

  // --- showing it --------------------------------------------------------------------------

  /** @param {LiveState} state */
  _onLive(state) {
    if (state.desired === null) return;
    const isEmbedding = state.desired.enable_embeddings;
    setHidden(this._chat, isEmbedding);
    setHidden(this._embeddings.element, !isEmbedding);
    let slots = 0;
    for (const agent of state.agents.values()) slots += agent.slots_total;
    setHidden(this._noModel, slots > 0);
    setText(
      this._noModel,
      state.agents.size === 0
        ? "No agent is connected: what you send waits in the buffer, and is refused in the end."
        : "No agent serves a model yet: what you send waits in the buffer until one does.",
    );
  }

  _onChange() {
    if (this._isFrameDue || !this._isMounted) return;
    this._isFrameDue = true;
    requestAnimationFrame(() => {
      this._isFrameDue = false;
      if (!this._isMounted) return;
      const isNearEnd = this._isNearEnd();
      const { running, turns } = this._conversation;
      const last = turns.at(-1);
      const isShown = this._shown === turns.length && last?.role === "assistant";
      if (isShown && this._last?.answer === last.answer) this._last.show();
      else this._showTurns();
      this._tellEnd(running !== null);
      if (isNearEnd) this._scrollToEnd();
    });
  }

  /** Say that the answer has ended; not each token. @param {boolean} isRunning */
  _tellEnd(isRunning) {
    const turn = this._conversation.turns.at(-1);
    if (this._wasRunning && !isRunning && turn?.role === "assistant") {
      const { answer } = turn;
      announce(
        answer.state === "failed"
          ? `The answer failed. ${failureWords(answer.status, answer.error).title}`
          : `The answer has ended. ${endingOf(answer)}`,
      );
    }
    this._wasRunning = isRunning;
    this._showComposer();
  }

  _showTurns() {
    const { turns } = this._conversation;
    this._last = null;
    this._shown = turns.length;
    const focused = this._log.contains(document.activeElement);
    this._log.replaceChildren(...turns.map((turn, index) => this._turnView(turn, index)));
    if (turns.length === 0) {
      this._log.append(make("p", { class: "faint", text: "Nothing has been said yet." }));
    }
    if (focused) this._area.focus();
    this._showComposer();
  }

  /**
   * @param {Turn} turn
   * @param {number} index
   */
  _turnView(turn, index) {
    const isLast = index === this._conversation.turns.length - 1;
    /** @param {string} text @param {() => void} act */
    const action = (text, act) => make("button", { type: "button", class: "small", onClick: act }, text);
    const askAgain = isLast ? [action("Ask again", () => this._retry(index + 1))] : [];
    if (turn.role === "tool") return toolView(turn, askAgain);
    if (turn.role === "user") {
      const isLastOfMine = !this._conversation.turns.slice(index + 1).some(({ role }) => role === "user");
      const edit = isLastOfMine ? [action("Edit", () => this._edit(index))] : [];
      return userView(turn, [...edit, ...askAgain]);
    }
    const actions = isLast ? [action("Try again", () => this._retry(index))] : [];
    const view = new AnswerView(turn.answer, this._isPlain, actions, (results) =>
      this._giveBack(index, results),
    );
    if (isLast) this._last = view;
    else view.settleCalls();
    return view.element;
  }

  _showComposer() {
    const isRunning = this._conversation.running !== null;
    const isEmpty = this._area.value.trim() === "" && this._conversation.images.length === 0;
    this._send.disabled = isRunning || isEmpty;
    setHidden(this._stop, !isRunning);
    this._clear.disabled = this._conversation.turns.length === 0;
  }

  _grow() {
    const lines = this._area.value.split("\n").length;
    this._area.rows = Math.min(Math.max(lines, 2), 12);
  }

  /**
   * @param {DragEvent} event
   * @param {boolean} isOver
   */
  _onDrag(event, isOver) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    this._composer.classList.toggle("drop", isOver);
  }

  /** Whether the end of the conversation is seen, or nearly so. */
  _isNearEnd() {
    return this._log.getBoundingClientRect().bottom < window.innerHeight + NEAR_END_PX;
  }

  _scrollToEnd() {
    requestAnimationFrame(() => this._log.lastElementChild?.scrollIntoView({ block: "end" }));
  }
}
