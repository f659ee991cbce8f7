// What each of our nodes shows below its widgets.
// @ts-check

import { downloadLine, routeLines, sizeLine, sourceLines, stepsLines, tokenLines } from "../lib/lines.mjs";
import { withWord } from "../lib/prompt.mjs";
import { button } from "./button.mjs";
import { INPUTS, isLinked, LORA_FIELDS, widgetOf } from "./nodes.mjs";
import { textRow } from "./panel.mjs";
import { setWidget } from "./requests.mjs";
import { formOf, SHAPE, valueOf, valuesOf } from "./values.mjs";

/** @typedef {import("../lib/lines.mjs").Line} Line */
/** @typedef {import("./nodes.mjs").Node} Node */
/** @typedef {import("./extension.mjs").World} World */

const LORAS = LORA_FIELDS[INPUTS];

/**
 * @param {Node} node
 * @param {World} world
 * @returns {HTMLElement[]}
 */
export function inputRows(node, world) {
  const { say, pictures, prompts, sources, downloads } = world;
  const names = [...SHAPE, "go_fast", "model", "num_inference_steps"];
  const values = valuesOf(node, names, pictures);
  const picture = pictures.ofForm(node);
  const lines = [
    sizeLine(values, picture, say),
    ...routeLines(values, picture, say),
    ...stepsLines(values, say),
    ...tokenLines(prompts.about(valueOf(node, "prompt", pictures)), values.model, say),
    ...LORAS.flatMap((name) => sourceLines(sources.about(valueOf(node, name, pictures)), say)),
  ];
  const own = downloads.nodes().filter((lora) => lora === node || formOf(lora) === node);
  const rows = lines.map((line) => lineRow(line, node, world));
  return [...rows, ...own.flatMap((lora) => downloadRows(lora, world))];
}

/**
 * @param {Node} node
 * @param {World} world
 * @returns {HTMLElement[]}
 */
export function latentRows(node, { say, pictures }) {
  const form = formOf(node);
  if (form === undefined) return [textRow({ text: say("size_unknown") })];
  const picture = form ? pictures.ofForm(form) : pictures.connected(node, "image");
  return [textRow(sizeLine(valuesOf(form ?? node, SHAPE, pictures), picture, say))];
}

/**
 * @param {Node} node
 * @param {World} world
 * @returns {HTMLElement[]}
 */
export function loraRows(node, world) {
  const { say, pictures, sources } = world;
  const form = formOf(node);
  const texts = form
    ? LORAS.map((name) => valueOf(form, name, pictures))
    : [form === null && valueOf(node, "source", pictures)];
  const lines = texts.flatMap((text) => sourceLines(sources.about(text), say));
  const rows = lines.map((line) => lineRow(line, form ?? null, world));
  return [...rows, ...[node, form].flatMap((asking) => (asking ? downloadRows(asking, world) : []))];
}

/**
 * @param {Line} line
 * @param {Node | null} form - whose prompt takes the words of the line
 * @param {World} world
 * @returns {HTMLElement}
 */
function lineRow(line, form, { app, say }) {
  if (!line.words || !form || !widgetOf(form, "prompt") || isLinked(form, "prompt"))
    return textRow(line);
  const row = textRow({ text: say("trigger_words", { words: "" }) });
  Object.assign(row.style, { display: "flex", gap: "6px", height: "18px", alignItems: "center" });
  Object.assign(row.style, { overflowX: "auto", scrollbarWidth: "none" });
  for (const word of line.words) {
    const add = () => setWidget(app, form, "prompt", withWord(promptOf(form), word));
    const added = button(word, add);
    added.title = say("add_word", { word });
    Object.assign(added.style, { flex: "none", maxWidth: "90%" });
    row.append(added);
  }
  return row;
}

/** @param {Node} form */
function promptOf(form) {
  return String(widgetOf(form, "prompt")?.value ?? "");
}

/**
 * @param {Node} node - a LoRA node, or a form that asked for it
 * @param {World} world
 * @returns {HTMLElement[]}
 */
function downloadRows(node, { say, downloads }) {
  const download = downloads.of(node);
  if (!download) {
    const ending = downloads.endingOf(node);
    if (!ending) return [];
    const text = ending === "failed" ? say("download_failed") : say("download_cancelled");
    return [endingRow(text, () => downloads.retry(), say)];
  }
  const { text, share } = downloadLine(download.done, download.most, say);
  return [textRow({ text }), progressRow(share, say("cancel"), () => downloads.cancel(node))];
}

/**
 * @param {number | null} share - null: not known how much there is
 * @param {string} label
 * @param {() => void} cancel
 */
function progressRow(share, label, cancel) {
  const row = document.createElement("div");
  Object.assign(row.style, { display: "flex", gap: "8px", height: "18px", alignItems: "center" });
  const bar = document.createElement("progress");
  Object.assign(bar.style, { flex: "1", minWidth: "0" });
  if (share !== null) bar.value = share;
  row.append(bar, button(label, cancel, "pointerdown"));
  return row;
}

/**
 * @param {string} text - how a download ended
 * @param {() => void} retry
 * @param {import("../lib/words.mjs").Say} say
 */
function endingRow(text, retry, say) {
  const row = document.createElement("div");
  Object.assign(row.style, { display: "flex", gap: "8px", height: "18px", alignItems: "center" });
  const again = button(say("retry"), retry);
  again.title = say("retry_how");
  row.append(textRow({ text, tone: "error" }), again);
  return row;
}
