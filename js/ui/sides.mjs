// Width and height show only where they count: when aspect_ratio is custom.
// @ts-check

import { CUSTOM } from "../lib/spec.mjs";
import { resizeAround } from "./heights.mjs";
import { INPUTS, isLinked, kindOf, LATENT, widgetOf } from "./nodes.mjs";
import { valueOf } from "./values.mjs";

const SIDES = ["width", "height"];

/**
 * The widgets that we have hidden, with the size that they had a function of.
 *
 * @type {WeakMap<any, unknown>}
 */
const hiddenByUs = new WeakMap();

/**
 * Show or hide the two widgets of a node, where it has them. A connected one stays as it is.
 *
 * @param {import("./nodes.mjs").Node} node
 * @param {import("./pictures.mjs").Pictures} pictures
 */
export function showSides(node, pictures) {
  if (![INPUTS, LATENT].includes(kindOf(node))) return;
  const shape = valueOf(node, "aspect_ratio", pictures);
  for (const name of SIDES) {
    const widget = widgetOf(node, name);
    if (!widget) continue;
    const hide = shape !== undefined && shape !== CUSTOM && !isLinked(node, name);
    if (hiddenByUs.has(widget) === hide) continue;
    resizeAround(node, () => (hide ? hideWidget(widget) : showWidget(widget)));
  }
}

/** @param {any} widget */
function hideWidget(widget) {
  hiddenByUs.set(widget, widget.computeSize);
  setHidden(widget, true);
  // 1.32 leaves a hidden widget its row: this one is as low as the gap between two rows.
  widget.computeSize = () => [0, -4];
}

/** @param {any} widget */
function showWidget(widget) {
  const size = hiddenByUs.get(widget);
  hiddenByUs.delete(widget);
  setHidden(widget, false);
  if (size) widget.computeSize = size;
  else delete widget.computeSize;
}

/**
 * Older editors read the first, newer ones the second.
 *
 * @param {any} widget
 * @param {boolean} hidden
 */
function setHidden(widget, hidden) {
  widget.hidden = hidden;
  if (widget.options) widget.options.hidden = hidden;
}
