// The lines below a node's widgets: a DOM widget, which both renderers of the editor show.
// @ts-check

import { resizeAround } from "./heights.mjs";
import { quoted } from "./sheet.mjs";

/** @typedef {import("../lib/lines.mjs").Line} Line */
/** @typedef {import("./nodes.mjs").Node} Node */

const NAME = "flux_hotswap_lines";
const CLASS = "flux-hotswap-lines";
const LINE = 18;
const PADDING = 8;
const GAP = 4; // between two widgets: a panel without lines takes no room at all
const COLOURS = {
  plain: "var(--input-text, #ddd)",
  hint: "var(--descrip-text, #999)",
  error: "var(--error-text, #ff4444)",
};

/**
 * @typedef {object} Panel
 * @property {(rows: HTMLElement[]) => void} show - a row with `data-lines` is as tall as so many
 * @property {() => void} takePlace - to be called while the node's graph is shown
 */

/**
 * Give a node a panel; null where the editor has no DOM widgets.
 *
 * @param {Node} node
 * @returns {Panel | null}
 */
export function addPanel(node) {
  if (typeof node.addDOMWidget !== "function") return null;
  const element = document.createElement("div");
  element.className = CLASS;
  Object.assign(element.style, {
    boxSizing: "border-box",
    padding: "4px 12px",
    font: "11px/18px sans-serif",
    overflow: "hidden",
    width: "100%",
  });
  let rows = 0;
  const height = () => (rows ? rows * LINE + PADDING : -GAP);
  const widget = node.addDOMWidget(NAME, NAME, element, {
    serialize: false,
    hideOnZoom: false,
    margin: 0, // its own padding is enough, and the height counts all of it
    getMinHeight: height,
    getMaxHeight: height,
    getHeight: height,
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false;
  return {
    show(lines) {
      fill(element, lines);
      const count = lines.reduce((sum, line) => sum + Number(line.dataset.lines ?? 1), 0);
      if (count === rows) return;
      resizeAround(node, () => {
        rows = count;
        element.style.minHeight = `${Math.max(height(), 0)}px`;
      });
    },
    takePlace() {
      // Undo makes nodes anew, and Nodes 2.0 goes on to show the panel of the one before.
      if (element.isConnected) return;
      const drawn = `.lg-node[data-node-id=${quoted(String(node.id))}]`;
      document.querySelector(`${drawn} .${CLASS}`)?.replaceWith(element);
    },
  };
}

/**
 * Put rows into an element. One that is there already is not taken out: it keeps the focus. If what
 * has the focus was made anew, the new one gets it: else no key would reach it twice.
 *
 * @param {HTMLElement} element
 * @param {HTMLElement[]} rows
 */
function fill(element, rows) {
  const held = /** @type {HTMLElement | null} */ (document.activeElement);
  const place = held && element.contains(held) ? alike(element, held).indexOf(held) : -1;
  for (const child of [...element.children])
    if (!rows.some((row) => row === child)) child.remove();
  let at = element.firstChild;
  for (const row of rows) {
    if (row === at) at = at.nextSibling;
    else element.insertBefore(row, at);
  }
  if (held && place >= 0 && !element.contains(held))
    alike(element, held)[place]?.focus({ preventScroll: true });
}

/**
 * @param {HTMLElement} element
 * @param {HTMLElement} one - a button or a link
 * @returns {HTMLElement[]} those in the element that say the same
 */
function alike(element, one) {
  const all = /** @type {HTMLElement[]} */ ([...element.querySelectorAll("a, button")]);
  return all.filter(({ textContent }) => textContent === one.textContent);
}

/**
 * @param {Line} line
 * @returns {HTMLElement}
 */
export function textRow({ text, tone = "plain" }) {
  const row = document.createElement("div");
  row.textContent = text;
  row.title = text;
  row.dataset.tone = tone;
  Object.assign(row.style, {
    color: COLOURS[tone],
    whiteSpace: "nowrap",
    overflow: "hidden",
    textOverflow: "ellipsis",
  });
  return row;
}
