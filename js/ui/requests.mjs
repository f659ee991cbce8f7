// "Paste request JSON", "Copy request JSON" and "Use this seed".
// @ts-check

import { readRequest, RequestError, toRequest, toWidgets } from "../lib/request.mjs";
import { FIELDS } from "../lib/spec.mjs";
import { isLinked, originOf, widgetOf } from "./nodes.mjs";
import { valuesOf } from "./values.mjs";

/** @typedef {import("./nodes.mjs").Node} Node */
/** @typedef {import("../lib/words.mjs").Say} Say */

const LIFE_MS = 6000;
const CONTROL = "control_after_generate";
const NAMES = FIELDS.map((field) => field.name);

/** The connections that are used instead of a field. */
const INSTEAD = { input_image: "image", input_mask: "mask" };

/**
 * Fill a form in from a request in the clipboard, or in a dialog where the browser keeps the
 * clipboard to itself.
 *
 * @param {import("./nodes.mjs").App} app
 * @param {Node | undefined} form
 * @param {Say} say
 */
export async function pasteRequest(app, form, say) {
  if (!form) return tell(app, "warn", say("paste"), say("no_form"));
  const text = (await fromClipboard()) ?? (await ask(app, say("paste"), say("ask_request"), ""));
  if (text === null || text === undefined) return;
  try {
    fillForm(app, form, text);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    return tell(app, "error", say("not_pasted"), say(error.key, error.params));
  }
  const names = NAMES.filter((name) => isLinked(form, name));
  const used = insteadOf(form).map(([socket]) => socket);
  tell(app, "success", say("pasted"), leftOut([...names, ...used], say));
}

/**
 * Put the request that a form asks for into the clipboard.
 *
 * @param {import("./nodes.mjs").App} app
 * @param {Node | undefined} form
 * @param {Say} say
 * @param {import("./pictures.mjs").Pictures} pictures
 */
export async function copyRequest(app, form, say, pictures) {
  if (!form) return tell(app, "warn", say("copy"), say("no_form"));
  const known = valuesOf(form, NAMES, pictures);
  const unknown = NAMES.filter((name) => known[name] === undefined && isLinked(form, name));
  const used = insteadOf(form);
  for (const [, field] of used) delete known[field];
  const text = JSON.stringify(toRequest(known), null, 2);
  await copyText(app, text, leftOut([...used.map(([socket]) => socket), ...unknown], say), say);
}

/**
 * The connections over which something comes that is used instead of a field.
 *
 * @param {Node} form
 * @returns {[string, string][]} each with its field
 */
function insteadOf(form) {
  return Object.entries(INSTEAD).filter(([socket]) => originOf(form, socket) !== null);
}

/**
 * @param {string[]} names - of what is connected
 * @param {Say} say
 */
function leftOut(names, say) {
  return names.length ? say("left_out", { names: names.join(", ") }) : undefined;
}

/**
 * Put a request into the clipboard, or show it where the browser keeps that to itself.
 *
 * @param {import("./nodes.mjs").App} app
 * @param {string} text
 * @param {string | undefined} detail - what else there is to say
 * @param {Say} say
 */
export async function copyText(app, text, detail, say) {
  if (await toClipboard(text)) return tell(app, "success", say("copied"), detail);
  await ask(app, say("copy"), say("take_request"), text);
}

/**
 * Put the seed of a picture into a form, and keep it there.
 *
 * @param {import("./nodes.mjs").App} app
 * @param {Node | undefined} form
 * @param {number} seed
 * @param {Say} say
 */
export function useSeed(app, form, seed, say) {
  if (!form) return tell(app, "warn", say("use_seed"), say("no_form"));
  if (isLinked(form, "seed"))
    return tell(app, "warn", say("use_seed"), leftOut(["seed"], say));
  edit(app, form, () => {
    setWidget(app, form, "seed", seed);
    setWidget(app, form, CONTROL, "fixed");
  });
  tell(app, "success", say("seed_used", { seed }));
}

/**
 * @param {import("./nodes.mjs").App} app
 * @param {Node} form
 * @param {string} text
 */
function fillForm(app, form, text) {
  const { values, seedIsDrawn } = toWidgets(readRequest(text), defaultsOf(form), Math.random);
  edit(app, form, () => {
    for (const [name, value] of Object.entries(values)) setWidget(app, form, name, value);
    setWidget(app, form, CONTROL, seedIsDrawn ? "randomize" : "fixed");
  });
}

/**
 * Change a form in one step of the editor's undo.
 *
 * @param {import("./nodes.mjs").App} app
 * @param {Node} form
 * @param {() => void} change
 */
function edit(app, form, change) {
  app.canvas?.emitBeforeChange?.();
  try {
    change();
  } finally {
    app.canvas?.emitAfterChange?.();
  }
  form.graph?.setDirtyCanvas?.(true, true);
}

/**
 * What a new form shows, from ComfyUI's description of the node.
 *
 * @param {Node} form
 * @returns {Record<string, unknown>}
 */
function defaultsOf(form) {
  const groups = form.constructor?.nodeData?.input ?? {};
  const inputs = Object.entries({ ...groups.required, ...groups.optional });
  return Object.fromEntries(inputs.map(([name, spec]) => [name, spec?.[1]?.default]));
}

/**
 * @param {import("./nodes.mjs").App} app
 * @param {Node} form
 * @param {string} name
 * @param {unknown} value
 */
export function setWidget(app, form, name, value) {
  const widget = widgetOf(form, name);
  if (!widget || value === undefined || value === null || isLinked(form, name)) return;
  widget.value = value;
  widget.callback?.(value, app.canvas, form);
  // The editor's own callback rounds a number to the step of its arrows.
  if (typeof value === "number") widget.value = value;
}

/** @returns {Promise<string | null>} null: the browser does not let us */
async function fromClipboard() {
  try {
    return await navigator.clipboard.readText();
  } catch {
    return null;
  }
}

/** @param {string} text */
async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/**
 * @param {import("./nodes.mjs").App} app
 * @param {string} title
 * @param {string} message
 * @param {string} defaultValue
 * @returns {Promise<string | null | undefined>}
 */
async function ask(app, title, message, defaultValue) {
  return app.extensionManager?.dialog?.prompt?.({ title, message, defaultValue });
}

/**
 * @param {import("./nodes.mjs").App} app
 * @param {"success" | "warn" | "error"} severity
 * @param {string} summary
 * @param {string} [detail]
 */
function tell(app, severity, summary, detail) {
  app.extensionManager?.toast?.add?.({ severity, summary, detail, life: LIFE_MS });
}
