// What the Save node shows of its last run: the files, what made them, and what can be done with that.
// @ts-check

import { readTold, recordLines, requestText } from "../lib/record.mjs";
import { button } from "./button.mjs";
import { compareButton, compareRows } from "./compare.mjs";
import { fileRow } from "./files.mjs";
import { formBefore, selectedForm } from "./nodes.mjs";
import { textRow } from "./panel.mjs";
import { copyText, useSeed } from "./requests.mjs";

/** @typedef {import("./nodes.mjs").Node} Node */
/** @typedef {import("./extension.mjs").World} World */
/** @typedef {import("../lib/record.mjs").PictureRecord} PictureRecord */

/**
 * @param {Node} node - a Save node
 * @param {World} world
 * @returns {HTMLElement[]}
 */
export function saveRows(node, world) {
  const output = outputOf(node, world.app);
  const images = Array.isArray(output?.images) ? output.images : [];
  const links = images.map((/** @type {any} */ file) => fileRow(file, world.api));
  const record = readTold(output?.flux_hotswap);
  if (!record) return links;
  const lines = recordLines(record, world.runs.secondsOf(output), world.say).map(textRow);
  const asked = readTold(output?.flux_hotswap_request);
  const before = readTold(output?.flux_hotswap_before);
  const compared = before ? compareRows(node, before, images, world) : [];
  return [...links, ...lines, ...actionRows(node, record, asked, Boolean(before), world), ...compared];
}

/**
 * What a node showed last, as the editor keeps it: with the pictures, through undo and other tabs.
 *
 * @param {Node} node
 * @param {import("./nodes.mjs").App} app
 * @returns {any}
 */
function outputOf({ graph, id }, app) {
  const isOutside = graph === (app.rootGraph ?? app.graph);
  return app.nodeOutputs?.[isOutside ? String(id) : `${graph?.id}:${id}`];
}

/**
 * @param {Node} node
 * @param {PictureRecord} record
 * @param {import("../lib/record.mjs").Asked | null} asked - null: it was no request that ran
 * @param {boolean} canCompare
 * @param {World} world
 * @returns {HTMLElement[]} one row, or none
 */
function actionRows(node, { seed }, asked, canCompare, world) {
  const { app, say } = world;
  const buttons = canCompare ? [compareButton(node, world)] : [];
  if (seed !== undefined)
    buttons.push(button(say("use_seed"), () => {
      useSeed(app, formBefore(node) ?? selectedForm(app), seed, say);
    }));
  if (asked)
    buttons.push(button(say("copy"), () => {
      const names = asked.left_out.join(", ");
      const detail = names ? say("left_out_bytes", { names }) : undefined;
      void copyText(app, requestText(asked.fields), detail, say);
    }));
  if (!buttons.length) return [];
  const row = document.createElement("div");
  Object.assign(row.style, { display: "flex", gap: "8px", height: "18px", alignItems: "center" });
  row.append(...buttons);
  return [row];
}
