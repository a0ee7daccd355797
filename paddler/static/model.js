// @ts-check
// The Model page: what all agents are to run, what a change of it would do, and how it goes.

import { confirmChanges, showConflict } from "./change_dialogs.js";
import { EFFECTS, changesBetween } from "./changes.js";
import { announce, make, setHidden, setText } from "./dom.js";
import { formatCount } from "./format.js";
import { isSameReference } from "./model_address.js";
import { ModelMetadata } from "./model_metadata.js";
import { ParameterFields } from "./parameter_fields.js";
import { PRESETS, valuesOf } from "./presets.js";
import { RolloutView } from "./rollout_view.js";
import { SourceFields } from "./source_fields.js";
import { TemplateEditor } from "./template_editor.js";
import { PATHS } from "./wire.js";

/**
 * @typedef {import("./panel.js").Context} Context
 * @typedef {import("./wire.js").DesiredState} DesiredState
 * @typedef {import("./live.js").LiveState} LiveState
 * @typedef {import("./presets.js").Preset} Preset
 */

const LEAVE = "There are changes that are not applied yet. Leave, and lose them?";

/** What was in force before the last change made in this tab; kept while other pages are shown.
 * @type {DesiredState | null} */
let former = null;

/**
 * @param {HTMLElement} root
 * @param {Context} context
 */
export function mount(root, context) {
  const page = new ModelPage(root, context);
  return {
    unmount: () => page.unmount(),
    mayLeave: () => !page.isChanged || window.confirm(LEAVE),
  };
}

class ModelPage {
  /**
   * @param {HTMLElement} root
   * @param {Context} context
   */
  constructor(root, { live, api }) {
    this._live = live;
    this._api = api;
    this._aborter = new AbortController();
    /** The state that the form began with. @type {DesiredState | null} */
    this._base = null;
    /** The fingerprint that agents were told when that was read. */
    this._seen = "";
    /** The newest event of that time. */
    this._seenEvent = 0;
    this._isBusy = false;
    this._isMounted = true;
    this._metadata = new ModelMetadata(api, live, this._aborter.signal, () => this._showChanged());
    /** The fingerprint of what was applied here, until all agents run it. @type {string | null} */
    this._goal = null;
    const changed = () => this._showChanged();
    this._status = make("p", { class: "page-status", role: "status", text: "Loading the desired state…" });
    this._again = make("button", { type: "button", hidden: true, onClick: () => this._load() }, "Try again");
    const help =
      "A GGUF file. An address of the Hub may be pasted into its repository field; a " +
      "private one needs HF_TOKEN on the agents.";
    this._model = new SourceFields(
      "model",
      "Model",
      help,
      {
        hub: "Hugging Face Hub",
        url: "Web address",
        local: "File on the agents",
        none: "No model (unload)",
      },
      changed,
    );
    const eyes = "The part of a model that sees images, made for just that model.";
    this._projection = new SourceFields(
      "projection",
      "Multimodal projection",
      eyes,
      {
        hub: "Hugging Face Hub",
        url: "Web address",
        local: "File on the agents",
        none: "None",
      },
      changed,
    );
    this._parameters = new ParameterFields(changed);
    this._editor = new TemplateEditor(this._api, changed, () => this._metadata.readTemplate());
    this._modelsTemplate = make("input", {
      type: "radio",
      name: "template",
      id: "template-models",
      value: "models",
      onChange: changed,
    });
    this._ownTemplate = make("input", {
      type: "radio",
      name: "template",
      id: "template-own",
      value: "own",
      onChange: changed,
    });
    this._elsewhere = make("div", { class: "notice", role: "status", hidden: true });
    this._refusal = make("div", { class: "failure", role: "alert", tabindex: "-1" });
    this._apply = make("button", { type: "submit", class: "primary" }, "Review and apply…");
    this._discard = make(
      "button",
      { type: "button", onClick: () => this._fill(this._base) },
      "Discard changes",
    );
    this._count = make("span", { class: "hint", role: "status" });
    this._form = make(
      "form",
      { class: "model-form", novalidate: true, hidden: true },
      this._presets(),
      this._model.element,
      this._projection.element,
      this._templateFields(),
      make("h2", { text: "Inference parameters" }),
      this._parameters.element,
      this._refusal,
      make("div", { class: "apply-bar" }, this._elsewhere, this._apply, this._discard, this._count),
    );
    this._form.addEventListener("submit", (event) => {
      event.preventDefault();
      this._submit();
    });
    this._rollout = new RolloutView();
    this._undo = make(
      "button",
      { type: "button", hidden: true, onClick: () => this._putBack() },
      "Put the former state back…",
    );
    root.append(
      make("h1", { text: "Model" }),
      this._status,
      this._again,
      make(
        "section",
        { class: "card", "aria-labelledby": "rollout-title" },
        make("h2", { id: "rollout-title", text: "On the agents" }),
        this._rollout.element,
        make("p", {}, this._undo),
      ),
      this._form,
    );
    this._unsubscribe = live.subscribe((state) => this._onLive(state));
    /** @param {BeforeUnloadEvent} event */
    this._onBeforeUnload = (event) => {
      if (this.isChanged) event.preventDefault();
    };
    window.addEventListener("beforeunload", this._onBeforeUnload);
    this._load();
  }

  unmount() {
    this._isMounted = false;
    this._aborter.abort();
    this._unsubscribe();
    window.removeEventListener("beforeunload", this._onBeforeUnload);
  }

  /** Whether the form holds what is not in force. */
  get isChanged() {
    if (this._base === null) return false;
    return this._parameters.isChanged || changesBetween(this._base, this._draft()).length > 0;
  }

  // --- the page ----------------------------------------------------------------------------

  _presets() {
    const select = make(
      "select",
      { id: "preset", "aria-describedby": "preset-about" },
      make("option", { value: "", text: "Choose…" }),
      ...PRESETS.map(({ name }, index) => make("option", { value: index, text: name })),
    );
    const about = make("p", { class: "help", id: "preset-about", role: "status" });
    select.addEventListener("change", () => {
      const preset = PRESETS[Number(select.value)];
      if (select.value === "" || preset === undefined) setText(about, "");
      else {
        setText(about, `${preset.about} Filled in below; nothing is applied yet.`);
        this._fillPreset(preset);
      }
    });
    return make(
      "div",
      { class: "field" },
      make("label", { for: "preset", text: "Start from a known small model" }),
      select,
      about,
    );
  }

  _templateFields() {
    return make(
      "fieldset",
      { class: "source", id: "template" },
      make("legend", { text: "Chat template" }),
      make("p", {
        class: "help",
        text:
          "It makes a prompt of a conversation. Most models carry one; without any, a model " +
          "for chat fails to load. The text of an own one is kept while it is not used.",
      }),
      make(
        "div",
        { class: "choices" },
        make("label", { for: "template-models" }, this._modelsTemplate, " The model's own (recommended)"),
        make("label", { for: "template-own" }, this._ownTemplate, " My own"),
      ),
      this._editor.element,
    );
  }

  // --- reading and filling -----------------------------------------------------------------

  async _load() {
    setHidden(this._again, true);
    setText(this._status, "Loading the desired state…");
    try {
      const state = await this._api.getJson(PATHS.desiredState, this._aborter.signal);
      if (this._isMounted) this._take(state);
    } catch (error) {
      if (this._api.isAbort(error)) return;
      setText(this._status, `The desired state cannot be read: ${this._api.messageOf(error)}`);
      setHidden(this._again, false);
    }
  }

  /** Begin with what is in force. @param {DesiredState} state */
  _take(state) {
    this._base = state;
    this._seen = this._live.state.desired?.fingerprint ?? "";
    this._seenEvent = this._live.state.events.at(-1)?.id ?? 0;
    setText(this._status, "");
    setHidden(this._form, false);
    setHidden(this._elsewhere, true);
    this._fill(state);
    this._metadata.follow(this._live.state);
  }

  /** @param {DesiredState | null} state */
  _fill(state) {
    if (state === null || this._base === null) return;
    this._parameters.setBase(this._base.inference_parameters);
    this._model.write(state.model);
    this._projection.write(state.multimodal_projection);
    this._editor.write(state.chat_template_override?.content ?? "");
    (state.use_chat_template_override ? this._ownTemplate : this._modelsTemplate).checked = true;
    this._parameters.write(state.inference_parameters);
    setText(this._refusal, "");
    this._showChanged();
  }

  /** @param {Preset} preset */
  _fillPreset(preset) {
    if (this._base === null) return;
    this._model.write(preset.model);
    this._projection.write(preset.projection);
    this._parameters.write(valuesOf(preset, this._base.inference_parameters));
    this._modelsTemplate.checked = true;
    this._showChanged();
    announce(`${preset.name} is filled in`);
  }

  /** @returns {DesiredState} */
  _draft() {
    const text = this._editor.text;
    const before = this._base?.chat_template_override ?? null;
    return {
      // An empty editor is no template, unless that is what was there.
      chat_template_override: text === "" && before?.content !== "" ? null : { content: text },
      inference_parameters: this._parameters.values,
      model: this._model.reference,
      multimodal_projection: this._projection.reference,
      use_chat_template_override: this._ownTemplate.checked,
    };
  }

  _showChanged() {
    setHidden(this._editor.element, !this._ownTemplate.checked);
    if (this._base === null) return;
    const draft = this._draft();
    const count = changesBetween(this._base, draft).length;
    const isChanged = this.isChanged;
    setText(this._count, isChanged ? formatCount(Math.max(count, 1), "change") : "Nothing is changed.");
    this._discard.disabled = !isChanged || this._isBusy;
    const isLoaded = isSameReference(draft.model, this._base.model);
    this._parameters.setMetadata(isLoaded ? this._metadata.values : null);
  }

  // --- applying ----------------------------------------------------------------------------

  async _submit() {
    if (this._isBusy || this._base === null) return;
    setText(this._refusal, "");
    const faulty = [...this._model.check(), ...this._projection.check(), ...this._parameters.check().faulty];
    if (faulty.length > 0) {
      this._refuse(`${formatCount(faulty.length, "field")} cannot be as filled in; see below each.`);
      faulty[0]?.focus();
      return;
    }
    if (this._ownTemplate.checked && this._editor.text.trim() === "") {
      this._refuse("Your own chat template is chosen, and empty. Write one, or choose the model's.");
      return;
    }
    if (changesBetween(this._base, this._draft()).length === 0) {
      setText(this._count, EFFECTS.nothing);
      return;
    }
    await this._review(this._draft());
  }

  /**
   * Show what `state` changes, and put it if a person agrees; not over somebody else's change.
   * @param {DesiredState} state
   */
  async _review(state) {
    this._setBusy(true);
    try {
      const current = await this._api.getJson(PATHS.desiredState, this._aborter.signal);
      if (this._base === null) return;
      if (changesBetween(this._base, current).length > 0) {
        this._showConflict(this._base, state, current);
        return;
      }
      if (await confirmChanges(current, state, this._live.state)) await this._put(state);
    } catch (error) {
      if (!this._api.isAbort(error)) this._refuse(this._api.messageOf(error));
    } finally {
      this._setBusy(false);
    }
  }

  /** @param {DesiredState} state */
  async _put(state) {
    const before = this._base;
    setText(this._apply, "Applying…");
    setText(this._status, "");
    try {
      // Between the review and now somebody may have changed it, too.
      const current = await this._api.getJson(PATHS.desiredState, this._aborter.signal);
      if (before !== null && changesBetween(before, current).length > 0) {
        this._showConflict(before, state, current);
        return;
      }
      await this._api.putJson(PATHS.desiredState, state, this._aborter.signal);
    } catch (error) {
      if (this._api.isAbort(error)) return;
      const text = this._api.messageOf(error);
      this._refuse(`The balancer refuses it: ${text}`);
      this._parameters.mark(text)?.focus();
      return;
    }
    former = before;
    const stored = await this._api.getJson(PATHS.desiredState, this._aborter.signal).catch(() => state);
    // What is live may tell of the former state for a moment yet.
    const told = await this._api.getJson(PATHS.agentDetails, this._aborter.signal).catch(() => null);
    if (!this._isMounted) return;
    this._take(stored);
    this._goal = told?.desired_state ?? null;
    announce("Applied. The agents follow.");
    setText(this._status, "Applied. The agents follow, see below.");
    this._status.scrollIntoView({ block: "nearest" });
    this._onLive(this._live.state);
  }

  _putBack() {
    if (former === null || this._base === null || this._isBusy) return;
    if (this.isChanged && !window.confirm("The form has changes that are not applied. Lose them?")) return;
    this._fill(former);
    this._review(former);
  }

  /**
   * @param {DesiredState} base
   * @param {DesiredState} mine
   * @param {DesiredState} theirs
   */
  _showConflict(base, mine, theirs) {
    showConflict({
      base,
      mine,
      theirs,
      who: this._whoChanged(),
      onTheirs: () => this._take(theirs),
      onMerged: (merged) => {
        this._take(theirs);
        this._fill(merged);
        announce("Your changes stand on top of theirs. Nothing is applied yet.");
      },
    });
  }

  /** @param {string} text */
  _refuse(text) {
    setText(this._refusal, text);
    this._refusal.focus();
  }

  /** @param {boolean} isBusy */
  _setBusy(isBusy) {
    this._isBusy = isBusy;
    this._apply.disabled = isBusy;
    this._form.setAttribute("aria-busy", String(isBusy));
    if (!isBusy) setText(this._apply, "Review and apply…");
    this._showChanged();
  }

  // --- what comes from the fleet -----------------------------------------------------------

  /** @param {LiveState} state */
  _onLive(state) {
    const isDone = this._rollout.show(state);
    setHidden(this._undo, former === null);
    if (isDone && this._goal !== null && this._goal === state.desired?.fingerprint) {
      this._goal = null;
      setText(this._status, "Applied: every agent runs it.");
    }
    const fingerprint = state.desired?.fingerprint ?? "";
    if (this._base !== null && this._seen === "") this._seen = fingerprint;
    if (this._base !== null && !this._isBusy && fingerprint !== this._seen) this._onElsewhere(fingerprint);
    this._metadata.follow(state);
  }

  /** The state is another one now, maybe by this page's own doing. @param {string} fingerprint */
  async _onElsewhere(fingerprint) {
    this._seen = fingerprint;
    const current = await this._api.getJson(PATHS.desiredState, this._aborter.signal).catch(() => null);
    if (current === null || this._base === null || this._isBusy) return;
    if (changesBetween(this._base, current).length === 0) return;
    this._goal = null;
    if (!this.isChanged) {
      const who = this._whoChanged();
      this._take(current);
      setText(this._status, `${who} Shown is the new state.`);
      return;
    }
    this._elsewhere.replaceChildren(
      make("p", { text: `${this._whoChanged()} Your changes are still here, and not applied.` }),
      make(
        "p",
        { class: "actions" },
        make(
          "button",
          {
            type: "button",
            onClick: () => {
              if (this._base) this._showConflict(this._base, this._draft(), current);
            },
          },
          "See what changed…",
        ),
      ),
    );
    setHidden(this._elsewhere, false);
  }

  _whoChanged() {
    const news = this._live.state.events.filter(({ id }) => id > this._seenEvent);
    const by = news.findLast(({ kind }) => kind === "state_changed")?.detail.by;
    // A balancer that came back without its state has no such event.
    if (typeof by !== "string") return "The state was changed meanwhile.";
    return `Somebody else (${by}) changed the state meanwhile.`;
  }
}
