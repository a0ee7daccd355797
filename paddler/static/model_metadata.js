// @ts-check
// What the file of the model in force says of itself, asked of an agent that has loaded it.

import { agentPath } from "./wire.js";

/** @typedef {import("./live.js").LiveState} LiveState */

export class ModelMetadata {
  /**
   * @param {typeof import("./api.js")} api
   * @param {import("./live.js").Live} live
   * @param {AbortSignal} signal
   * @param {() => void} onChange
   */
  constructor(api, live, signal, onChange) {
    this._api = api;
    this._live = live;
    this._signal = signal;
    this._onChange = onChange;
    this._fingerprint = "";
    /** Null until they are known. @type {Record<string, string> | null} */
    this.values = null;
  }

  /** Ask for them as soon as an agent runs what is in force. @param {LiveState} state */
  async follow(state) {
    const wanted = state.desired?.fingerprint ?? "";
    const agent = [...state.facts.values()].find(
      ({ details }) => details?.applied_state === wanted && details.loaded_model !== null,
    );
    const fingerprint = agent === undefined ? "" : wanted;
    if (fingerprint === this._fingerprint) return;
    this._fingerprint = fingerprint;
    this.values = null;
    if (agent !== undefined) {
      const values = await this._read(agent.id).catch(() => null);
      if (fingerprint !== this._fingerprint || this._signal.aborted) return;
      this.values = values;
    }
    this._onChange();
  }

  /** The chat template of the model that is loaded; null if there is none. */
  async readTemplate() {
    for (const { id, details } of this._live.state.facts.values()) {
      if (!details?.loaded_model) continue;
      const template = (await this._read(id))?.["tokenizer.chat_template"];
      if (template !== undefined) return template;
    }
    return null;
  }

  /** @param {string} agentId @returns {Promise<Record<string, string> | null>} */
  async _read(agentId) {
    const answer = await this._api.getJson(agentPath(agentId, "model_metadata"), this._signal);
    return answer?.metadata ?? null;
  }
}
