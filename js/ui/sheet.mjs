// How hidden and greyed widgets look in Nodes 2.0, by a style sheet. That of editor 1.32 looks at a
// widget once, when the node is made, and later ones hardly grey a number.
// @ts-check

import { widgetOf } from "./nodes.mjs";

/** @typedef {import("./nodes.mjs").Node} Node */

/** @type {HTMLStyleElement | undefined} */
let sheet;

/** @param {Node[]} nodes - all of ours */
export function styleRows(nodes) {
  if (typeof document === "undefined") return;
  if (!sheet) document.head.append((sheet = document.createElement("style")));
  const text = nodes.flatMap(rulesOf).join("\n");
  if (sheet.textContent !== text) sheet.textContent = text;
}

/**
 * @param {Node} node
 * @returns {string[]}
 */
function rulesOf(node) {
  return (node.inputs ?? []).flatMap((input, index) => {
    const widget = input.widget && widgetOf(node, input.widget.name);
    const row = `.lg-node-widget:has([data-slot-key="${node.id}-in-${index}"])`;
    if (widget?.hidden) return [`${row} { display: none }`];
    return widget?.disabled ? [`${row} > :last-child { opacity: 0.6; pointer-events: none }`] : [];
  });
}
