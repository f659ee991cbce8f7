// How hidden and greyed widgets look in Nodes 2.0, by a style sheet. That of editor 1.32 looks at a
// widget once, when the node is made, and later ones hardly grey a number. In App mode the label of a
// hidden widget would stay.
// @ts-check

import { widgetOf } from "./nodes.mjs";

/** @typedef {import("./nodes.mjs").Node} Node */

/** @type {HTMLStyleElement | undefined} */
let sheet;

/**
 * @param {Node[]} nodes - all of ours
 * @param {unknown} graph - the one that is shown; in another one the same ids may stand
 */
export function styleRows(nodes, graph) {
  if (typeof document === "undefined") return;
  if (!sheet) document.head.append((sheet = document.createElement("style")));
  const rules = nodes.flatMap((node) => [...itemRules(node), ...(node.graph === graph ? rowRules(node) : [])]);
  const text = rules.join("\n");
  if (sheet.textContent !== text) sheet.textContent = text;
}

/**
 * @param {Node} node
 * @returns {string[]}
 */
function rowRules(node) {
  return (node.inputs ?? []).flatMap((input, index) => {
    const widget = input.widget && widgetOf(node, input.widget.name);
    const row = `.lg-node-widget:has([data-slot-key=${quoted(`${node.id}-in-${index}`)}])`;
    if (widget?.hidden) return [`${row} { display: none }`];
    return widget?.disabled ? [`${row} > :last-child { opacity: 0.6; pointer-events: none }`] : [];
  });
}

/**
 * @param {Node} node
 * @returns {string[]}
 */
function itemRules(node) {
  const hidden = (node.widgets ?? []).filter((widget) => widget.hidden);
  const keyOf = (/** @type {string} */ name) => quoted(`${node.graph?.id}:${node.id}:${name}`);
  return hidden.map(({ name }) => `[data-widget-key=${keyOf(name)}] { display: none }`);
}

/**
 * A text as CSS writes it: the ids in a workflow file may be any texts, and end a string early.
 *
 * @param {string} text
 */
export function quoted(text) {
  return `"${text.replace(/["\\\n\r\f]/g, (sign) => `\\${sign.charCodeAt(0).toString(16)} `)}"`;
}
