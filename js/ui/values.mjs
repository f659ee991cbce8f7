// What the inputs of nodes hold before the graph runs, read through the wire of a request too.
// @ts-check

import { finalSize, knownRoute } from "../lib/plan.mjs";
import { FIELDS, INPUTS, isLinked, isMuted, kindOf, originOf, outputName, sourceOf, widgetOf } from "./nodes.mjs";

/** @typedef {import("./nodes.mjs").Node} Node */
/** @typedef {import("./pictures.mjs").Pictures} Pictures */

/** The fields that make the size of a picture. */
export const SHAPE = ["aspect_ratio", "megapixels", "width", "height"];

/**
 * The form whose request a node takes; null if none is connected, undefined if it cannot be told.
 *
 * @param {Node} node
 * @returns {Node | null | undefined}
 */
export function formOf(node) {
  const origin = originOf(node, "request");
  if (!origin) return origin;
  return kindOf(origin.node) === INPUTS ? origin.node : undefined;
}

/**
 * What an input holds as far as it is known before the graph runs.
 *
 * @param {Node} node
 * @param {string} name
 * @param {Pictures} pictures
 * @returns {any} undefined: not known
 */
export function valueOf(node, name, pictures) {
  if (!isLinked(node, name)) return widgetOf(node, name)?.value;
  const origin = sourceOf(node, name);
  if (origin === null) return widgetOf(node, name)?.value; // the wire brings nothing
  // From a muted node: older editors queue the default then, newer ones what the widget holds.
  if (!origin || isMuted(origin.node)) return undefined;
  const kind = String(kindOf(origin.node));
  if (kind.startsWith("Primitive")) return origin.node.widgets?.[0]?.value;
  const form = kind === FIELDS ? formOf(origin.node) : kind === INPUTS && origin.node;
  return form ? fieldOf(form, outputName(origin), pictures) : undefined;
}

/**
 * @param {Node} node
 * @param {readonly string[]} names
 * @param {Pictures} pictures
 * @returns {Record<string, any>}
 */
export function valuesOf(node, names, pictures) {
  return Object.fromEntries(names.map((name) => [name, valueOf(node, name, pictures)]));
}

/**
 * What a form hands out for a field: what was decided about it, where that can differ from what
 * stands in the widget.
 *
 * @param {Node} form
 * @param {string} name
 * @param {Pictures} pictures
 * @returns {any} undefined: not known
 */
function fieldOf(form, name, pictures) {
  const picture = pictures.ofForm(form);
  if (name === "width" || name === "height")
    return finalSize(valuesOf(form, SHAPE, pictures), picture)?.[name];
  if (name !== "go_fast") return valueOf(form, name, pictures);
  const known = knownRoute(valuesOf(form, ["go_fast", "aspect_ratio"], pictures), picture);
  return known ? known.route === "fast" : undefined;
}
