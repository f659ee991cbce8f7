// The downloads of LoRA nodes while a graph runs, from ComfyUI's own progress events, and how they ended.
// @ts-check

import { kindOf, LORA, LORA_FIELDS, nodeById, widgetOf } from "./nodes.mjs";
import { formOf } from "./values.mjs";

/** @typedef {import("./nodes.mjs").Node} Node */
/** @typedef {{ done: number, most: number, prompt: string | undefined }} Download */
/** @typedef {"failed" | "cancelled"} Ending */

/** @type {any[]} - names of events, of which the types know a part */
const ENDS = ["executing", "executed", "execution_success"];

/** Begins with the field: so does no other error of those nodes while they run. */
const ABOUT_A_LORA = /^(?:lora|extra_lora|source): /;

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
    /**
     * What was open when the run began; null: not known. Nobody says from where it was queued, so that
     * where that was another tab its downloads show here.
     *
     * @type {{ graphId: string | undefined, tab: { path: string } | null } | null}
     */
    this.began = null;
    /** @type {Map<Node, Download>} */
    this.running = new Map();
    /** @type {Map<Node, { ending: Ending, texts: string }>} */
    this.ended = new Map();
  }

  /** Follow what the server tells. */
  listen() {
    this.api.addEventListener?.("progress", (/** @type {any} */ event) => this.progress(event.detail));
    for (const name of ENDS) this.api.addEventListener?.(name, () => this.end());
    this.api.addEventListener?.("execution_interrupted", () => this.end("cancelled"));
    this.api.addEventListener?.("execution_error", (/** @type {any} */ event) => this.fail(event.detail));
    this.api.addEventListener?.("execution_start", () => {
      this.began = { graphId: this.graph()?.id, tab: this.tab() };
      this.ended.clear();
      this.onEnd();
    });
  }

  /** The open graph. */
  graph() {
    return this.app.rootGraph ?? this.app.graph;
  }

  /** The open tab; null in editors that know none. */
  tab() {
    return this.app.extensionManager?.workflow?.activeWorkflow ?? null;
  }

  /** Whether what runs is open. Tabs of one template have the same graph id. */
  isOpen() {
    if (!this.began) return true;
    const { graphId, tab } = this.began;
    // Its path as it is by now: one that is saved under another name is still the same.
    return graphId === this.graph()?.id && tab?.path === this.tab()?.path;
  }

  /**
   * A node of the graph that runs; undefined while another one is open, where the same ids may stand.
   *
   * @param {unknown} id
   */
  nodeOf(id) {
    return this.isOpen() ? nodeById(this.graph(), id) : undefined;
  }

  /** @param {any} detail - {value, max, node, prompt_id} */
  progress(detail) {
    const node = this.nodeOf(detail?.node);
    if (!node || kindOf(node) !== LORA) return;
    this.running.set(node, { done: detail.value, most: detail.max, prompt: detail.prompt_id });
    this.onProgress();
  }

  /** @param {Ending} [ending] - unless they came to their end */
  end(ending) {
    if (!this.running.size) return;
    if (ending) for (const node of this.running.keys()) this.note(node, ending);
    this.running.clear();
    this.onEnd();
  }

  /** @param {any} detail - {node_id, exception_message}: also of what failed before a byte came */
  fail(detail) {
    const node = this.nodeOf(detail?.node_id);
    const isOurs = node && kindOf(node) in LORA_FIELDS;
    if (isOurs && ABOUT_A_LORA.test(detail.exception_message)) this.note(node, "failed");
    this.running.clear();
    this.onEnd();
  }

  /**
   * @param {Node} node
   * @param {Ending} ending
   */
  note(node, ending) {
    this.ended.set(node, { ending, texts: textsOf(node) });
  }

  /**
   * How a node's download ended that did not come to its end, until the graph runs again.
   *
   * @param {Node} node - a LoRA node, or a form that asked for it
   * @returns {Ending | null} null also where another LoRA is named by now
   */
  endingOf(node) {
    const ended = this.ended.get(node);
    return ended && ended.texts === textsOf(node) ? ended.ending : null;
  }

  /** Queue the graph as it is, as the editor's own button does. */
  retry() {
    return this.app.queuePrompt(0);
  }

  /** The nodes that download, or whose download has not come to its end. */
  nodes() {
    return [...new Set([...this.running.keys(), ...this.ended.keys()])];
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

/**
 * What names the LoRAs of a node: its form's fields, or its own.
 *
 * @param {Node} node
 */
function textsOf(node) {
  const asking = formOf(node) ?? node;
  const names = LORA_FIELDS[kindOf(asking)] ?? [];
  return JSON.stringify(names.map((name) => widgetOf(asking, name)?.value));
}
