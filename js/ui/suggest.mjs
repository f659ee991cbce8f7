// Suggestions below the fields that name a LoRA: which are here, with size and trigger words. The
// fields stay the editor's own, so that what is typed or pasted goes the way that it always goes.
// @ts-check

import { choiceOf } from "../lib/suggest.mjs";
import { chain } from "./chain.mjs";
import { ListBox } from "./listbox.mjs";
import { kindOf, LORA_FIELDS, widgetOf } from "./nodes.mjs";

/** @typedef {import("./nodes.mjs").App} App */
/** @typedef {import("./nodes.mjs").Node} Node */

const ROUTE = "/flux_hotswap/suggest";
const PAUSE_MS = 150;
const LONGEST = 200; // of what is typed; a longer text is a link

export class Suggestions {
  /**
   * @param {App} app
   * @param {import("./nodes.mjs").Api} api
   * @param {() => import("../lib/words.mjs").Say} say
   * @param {() => void} onChosen - called when one was chosen: it is here, whatever was told of it
   */
  constructor(app, api, say, onChosen) {
    this.app = app;
    this.api = api;
    this.say = say;
    this.onChosen = onChosen;
    /** @type {HTMLInputElement | null} */
    this.field = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    /** @type {ListBox | null} */
    this.list = null;
  }

  /** Listen to the fields of Nodes 2.0 and of App mode, and to the keys of all. */
  listen() {
    if (typeof document === "undefined") return;
    this.list = new ListBox((value) => this.fill(value));
    document.addEventListener("focusin", ({ target }) => {
      if (target instanceof HTMLInputElement && this.isOurs(target)) this.open(target);
    });
    document.addEventListener("focusout", ({ target }) => target === this.field && this.close());
    document.addEventListener("input", ({ target }) => target === this.field && this.askSoon());
    document.addEventListener("wheel", () => this.list?.hide());
    document.addEventListener("keydown", (event) => this.key(event), true); // before the field's own
  }

  /**
   * Listen to a node's fields in the classic look, which draws them and opens a dialog for each.
   *
   * @param {Node} node - that has just been made
   */
  watch(node) {
    for (const name of LORA_FIELDS[kindOf(node)] ?? []) {
      const widget = /** @type {any} */ (widgetOf(node, name));
      if (typeof widget?.onClick !== "function") continue;
      chain(widget, "onClick", () => {
        const field = /** @type {any} */ (this.app.canvas).prompt_box?.querySelector("input.value");
        if (field) this.open(field);
      });
    }
  }

  /**
   * @param {HTMLInputElement} field - of Nodes 2.0 or App mode
   * @returns {boolean} whether it names a LoRA of a node of ours
   */
  isOurs(field) {
    const row = /** @type {HTMLElement | null} */ (field.closest(".lg-node-widget"));
    const id = row?.querySelector("[node-id]")?.getAttribute("node-id");
    const node = id && this.app.canvas?.graph?.getNodeById(Number(id));
    if (!row || !node) return false;
    const slot = row.querySelector("[data-slot-key]")?.getAttribute("data-slot-key");
    const name = row.dataset.widgetName ?? node.inputs[Number(slot?.split("-").pop())]?.name;
    return LORA_FIELDS[kindOf(/** @type {Node} */ (node))]?.includes(name) ?? false;
  }

  /** @param {HTMLInputElement} field */
  open(field) {
    this.field = field;
    void this.ask(""); // all: what stands there is to be another one
  }

  close() {
    clearTimeout(this.timer);
    this.field = null;
    this.list?.hide();
  }

  askSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.ask(this.field?.value.trim() ?? ""), PAUSE_MS);
  }

  /** @param {string} text */
  async ask(text) {
    const field = this.field;
    if (!field) return;
    const told = text.length > LONGEST ? null : await this.fetch(text);
    const isLate = this.field !== field || !field.isConnected || (text && text !== field.value.trim());
    if (isLate || !this.list) return;
    const say = this.say();
    const loras = told?.loras ?? [];
    const isChosen = loras.length === 1 && loras[0].source === field.value;
    const choices = isChosen ? [] : loras.map((lora) => choiceOf(lora, say));
    const note = told?.more ? say("more_loras", { count: told.more }) : undefined;
    this.list.show(field, say("loras_here"), choices, note);
  }

  /**
   * @param {string} text
   * @returns {Promise<import("../lib/suggest.mjs").Told | null>}
   */
  async fetch(text) {
    try {
      const answer = await this.api.fetchApi(ROUTE, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ text }),
      });
      return answer.ok ? await answer.json() : null;
    } catch {
      return null;
    }
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.target !== this.field || event.isComposing || !this.list?.key(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  /**
   * Write a value into the field as typing does, and end the dialog that it may be in.
   *
   * @param {string} value
   */
  fill(value) {
    const { field } = this;
    if (!field) return;
    field.value = value;
    const bubbles = true;
    field.dispatchEvent(new Event("input", { bubbles }));
    clearTimeout(this.timer); // that was no typing
    this.onChosen();
    if (!field.closest(".graphdialog")) return;
    field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles }));
    this.close();
  }
}
