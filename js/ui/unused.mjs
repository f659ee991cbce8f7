// Widgets that count for nothing while a request is connected: they are greyed.
// @ts-check

import { kindOf, originOf, widgetOf } from "./nodes.mjs";

/**
 * What a request decides, by the kind of node: the names of its widgets.
 *
 * @type {Record<string, string[]>}
 */
export const DECIDED = {
  FluxHotswapLoader: ["model", "go_fast"],
  FluxHotswapLora: ["source", "scale", "go_fast_multiplier", "go_fast_lora"],
  FluxHotswapPrompt: ["text", "model", "guidance"],
  FluxHotswapLatent: ["aspect_ratio", "megapixels", "width", "height", "num_outputs"],
  FluxHotswapSchedule: ["model", "steps", "width", "height", "prompt_strength", "has_image"],
  FluxHotswapNoise: ["seed", "control_after_generate"],
  FluxHotswapSafety: ["disable_safety_checker"],
  FluxHotswapSave: ["output_format", "output_quality"],
};

/** @typedef {import("./nodes.mjs").Node} Node */

/**
 * Grey what a node's request decides; the values stay, and count again when the wire is cut.
 *
 * @param {Node} node
 */
export function showUnused(node) {
  const names = DECIDED[kindOf(node)];
  if (!names) return;
  const unused = originOf(node, "request") !== null;
  const changed = widgetsOf(node, names).filter((widget) => Boolean(widget.disabled) !== unused);
  // Reflect, because the newest editor lets a seed's control follow its seed, and nobody else.
  for (const widget of changed) Reflect.set(widget, "disabled", unused);
  if (changed.length) node.graph?.setDirtyCanvas?.(true, true);
}

/**
 * Let a seed's control rest while its seed is unused: another seed after each run would run the
 * node anew, and everything behind it.
 *
 * @param {Node} node - that has just been made
 */
export function restWhileUnused(node) {
  const control = widgetOf(node, "control_after_generate");
  if (!control || !(kindOf(node) in DECIDED)) return;
  for (const method of ["beforeQueued", "afterQueued"]) {
    const before = /** @type {any} */ (control)[method];
    if (typeof before !== "function") continue;
    /** @type {any} */ (control)[method] = function (/** @type {any[]} */ ...given) {
      if (originOf(node, "request") === null) before.apply(this, given);
    };
  }
}

/**
 * @param {Node} node
 * @param {string[]} names
 * @returns {any[]}
 */
function widgetsOf(node, names) {
  return names.map((name) => widgetOf(node, name)).filter((widget) => widget !== undefined);
}
