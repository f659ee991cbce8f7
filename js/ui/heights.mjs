// Nodes that grow and shrink with what we show on them.
// @ts-check

import { chain } from "./chain.mjs";

/** @typedef {import("./nodes.mjs").Node} Node */

/**
 * By how much each node is taller than it would be without us. A workflow file holds the height
 * without it: else a node would grow each time its file is opened.
 *
 * @type {WeakMap<Node, number>}
 */
const grown = new WeakMap();

/** @param {Node} node - that has just been made */
export function keepHeight(node) {
  grown.set(node, 0);
  chain(node, "onSerialize", (data) => {
    const more = grown.get(node);
    if (more && data?.size) data.size = [data.size[0], data.size[1] - more];
  });
  chain(node, "onConfigure", () => {
    const more = grown.get(node);
    if (more) node.setSize?.([node.size[0], node.size[1] + more]);
  });
}

/**
 * Change what a node shows, and its height by as much.
 *
 * @param {Node} node
 * @param {() => void} change
 */
export function resizeAround(node, change) {
  const before = node.computeSize?.()[1];
  change();
  const after = node.computeSize?.()[1];
  if (before === undefined || after === undefined || !node.setSize) return;
  const old = node.size[1];
  const height = Math.max(old + after - before, after);
  if (height === old) return;
  node.setSize([node.size[0], height]);
  grown.set(node, (grown.get(node) ?? 0) + height - old);
  node.graph?.setDirtyCanvas?.(true, true);
}
