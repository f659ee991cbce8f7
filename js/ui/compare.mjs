// Before and after: the input image over a result, as far as a slider says. It opens on demand below
// the lines of the Save node, and is kept nowhere: neither in the workflow nor among the outputs.
// @ts-check

import { button } from "./button.mjs";
import { urlOf } from "./files.mjs";

/** @typedef {import("./nodes.mjs").Node} Node */
/** @typedef {import("./files.mjs").File} File */
/** @typedef {import("./extension.mjs").World} World */

const LINE = 18; // pixels, of the panel's
const MOST = 16; // lines that the images may be high
const MIDDLE = 50;

/**
 * What is open on each node: the images that it is about, which of the results, and its box.
 *
 * @type {WeakMap<Node, { key: string, shown: number, box: HTMLElement | null }>}
 */
const open = new WeakMap();

/**
 * The button that opens and closes the comparison.
 *
 * @param {Node} node - a Save node
 * @param {World} world
 */
export function compareButton(node, { say, refresh }) {
  return button(say("compare"), () => {
    if (!open.delete(node)) open.set(node, { key: "", shown: 0, box: null });
    refresh();
  });
}

/**
 * @param {Node} node - a Save node
 * @param {File} before
 * @param {File[]} afters
 * @param {World} world
 * @returns {HTMLElement[]} none while it is closed
 */
export function compareRows(node, before, afters, world) {
  const state = open.get(node);
  if (!state || !afters.length) return [];
  const key = JSON.stringify([before, afters]);
  if (state.key !== key) Object.assign(state, { key, shown: 0, box: null });
  // The box stays while it shows the same: a refresh must not end a hand's move.
  state.box ??= compareBox(urlOf(before, world.api), urlOf(afters[state.shown], world.api), world);
  if (afters.length === 1) return [state.box];
  return [state.box, nextRow(state, afters.length, world)];
}

/**
 * @param {{ shown: number, box: HTMLElement | null }} state
 * @param {number} count
 * @param {World} world
 */
function nextRow(state, count, { say, refresh }) {
  const row = document.createElement("div");
  const label = say("compare_next", { number: state.shown + 1, count });
  row.append(
    button(label, () => {
      Object.assign(state, { shown: (state.shown + 1) % count, box: null });
      refresh();
    }),
  );
  Object.assign(row.style, { display: "flex", height: "18px", justifyContent: "center" });
  return row;
}

/**
 * @param {string} before - address of an image
 * @param {string} after
 * @param {World} world
 */
function compareBox(before, after, { say, refresh }) {
  const place = document.createElement("div");
  place.dataset.lines = String(MOST);
  const box = document.createElement("div");
  box.className = "flux-hotswap-compare";
  const line = document.createElement("div");
  const over = picture(before);
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: "0", max: "100", step: "1", value: String(MIDDLE) });
  slider.ariaLabel = slider.title = say("compare_share");
  Object.assign(box.style, { position: "relative", margin: "0 auto" });
  Object.assign(line.style, { ...FILL, width: "2px", background: "#fff", boxShadow: "0 0 3px #000" });
  Object.assign(slider.style, { ...FILL, opacity: "0", cursor: "ew-resize", margin: "0" });
  const show = () => {
    over.style.clipPath = `inset(0 ${100 - Number(slider.value)}% 0 0)`;
    line.style.left = `calc(${slider.value}% - 1px)`;
  };
  const under = picture(after);
  fit(box, under);
  followHeight(place, box, refresh);
  for (const name of ["pointerdown", "pointermove", "wheel"])
    slider.addEventListener(name, (event) => event.stopPropagation());
  slider.addEventListener("input", show);
  slider.addEventListener("focus", () => {
    box.style.outline = slider.matches(":focus-visible") ? "2px solid var(--p-primary-color, #58f)" : "";
  });
  slider.addEventListener("blur", () => (box.style.outline = ""));
  box.append(under, over, line, slider);
  place.append(box);
  show();
  return place;
}

/**
 * Make a box as large as there is room for, so that the slider's ends are those of its image. By CSS:
 * out of sight nothing has a size yet, and a node may be made wider at any time.
 *
 * @param {HTMLElement} box
 * @param {HTMLImageElement} image
 */
function fit(box, image) {
  image.addEventListener("load", () => {
    const ratio = image.naturalWidth / image.naturalHeight;
    const width = `min(100%, ${MOST * LINE * ratio}px)`;
    Object.assign(box.style, { width, aspectRatio: String(ratio) });
  });
}

/**
 * Keep the lines of a row as high as its box. The observer goes when the box does, with its node.
 *
 * @param {HTMLElement} place
 * @param {HTMLElement} box
 * @param {() => void} changed
 */
function followHeight(place, box, changed) {
  const observer = new ResizeObserver(([{ contentRect }]) => {
    const lines = String(Math.min(Math.ceil(contentRect.height / LINE), MOST));
    if (!contentRect.height || place.dataset.lines === lines) return; // none: it is out of sight
    place.dataset.lines = lines;
    changed();
  });
  observer.observe(box);
}

const FILL = { position: "absolute", top: "0", left: "0", width: "100%", height: "100%" };

/** @param {string} address */
function picture(address) {
  const image = document.createElement("img");
  Object.assign(image, { src: address, alt: "", draggable: false });
  Object.assign(image.style, { ...FILL, objectFit: "fill" });
  return image;
}
