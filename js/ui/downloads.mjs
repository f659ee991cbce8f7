// The downloads of LoRA nodes while a graph runs, from ComfyUI's own progress events.
// @ts-check

import { kindOf, LORA, nodeById } from "./nodes.mjs";

/** @typedef {import("./nodes.mjs").Node} Node */
/** @typedef {{ done: number, most: number, prompt: string | undefined }} Download */

/** @type {any[]} - names of events, of which the types know a part */
const ENDS = ["executing", "executed", "execution_success", "execution_error", "execution_interrupted"];

export class Downloads {
  /**
   * @param {import("./nodes.mjs").App} app
   * @param {import("./nodes.mjs").Api} api
   * @param {() => void} onEnd - called when one has ended
   * @param {() => void} onProgress
   */
  constructor(app, api, onEnd, onProgress) {
    this.app = app;
    this.api = api;
    this.onEnd = onEnd;
    this.onProgress = onProgress;
    /** @type {Map<Node, Download>} */
    this.running = new Map();
  }

  /** Follow what the server tells. */
  listen() {
    this.api.addEventListener?.("progress", (/** @type {any} */ event) => this.progress(event.detail));
    for (const name of ENDS) this.api.addEventListener?.(name, () => this.end());
  }

  /** @param {any} detail - {value, max, node, prompt_id} */
  progress(detail) {
    const node = nodeById(this.app.rootGraph ?? this.app.graph, detail?.node);
    if (!node || kindOf(node) !== LORA) return;
    this.running.set(node, { done: detail.value, most: detail.max, prompt: detail.prompt_id });
    this.onProgress();
  }

  end() {
    if (!this.running.size) return;
    this.running.clear();
    this.onEnd();
  }

  /** The nodes that download. */
  all() {
    return [...this.running.keys()];
  }

  /** @param {Node} node */
  of(node) {
    return this.running.get(node);
  }

  /**
   * Stop the run that a node downloads for, as the editor's own button does.
   *
   * @param {Node} node
   */
  cancel(node) {
    const prompt = this.running.get(node)?.prompt;
    return this.api.fetchApi("/interrupt", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(prompt ? { prompt_id: prompt } : {}),
    });
  }
}
