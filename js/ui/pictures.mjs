// How large the input pictures are, as far as the browser can see them.
// @ts-check

import { FIELDS, INPUTS, isLinked, kindOf, originOf, outputName, widgetOf } from "./nodes.mjs";
import { formOf, valueOf } from "./values.mjs";

/** @typedef {import("../lib/lines.mjs").Picture} Picture */
/** @typedef {import("../lib/plan.mjs").Size} Size */
/** @typedef {import("./nodes.mjs").Node} Node */

const LOADERS = new Set(["LoadImage", "LoadImageMask", "LoadImageOutput"]);
const KEPT = 50;
const AGAIN_MS = 3000;

/** The pictures of the graph; each file is looked at once. */
export class Pictures {
  /**
   * @param {import("./nodes.mjs").Api} api
   * @param {() => void} onKnown - called when a size has become known
   */
  constructor(api, onKnown) {
    this.api = api;
    this.onKnown = onKnown;
    /** @type {Map<string, Size | null>} */
    this.sizes = new Map();
    this.since = "";
  }

  /**
   * The input picture of a form.
   *
   * @param {Node} node - an Inputs node
   * @returns {Picture}
   */
  ofForm(node) {
    const connected = this.connected(node, "input_image");
    if (connected.given) return connected;
    const text = valueOf(node, "image", this);
    if (text !== undefined || !isLinked(node, "image")) return this.named(text);
    // From a muted node nothing comes: if the widget is blank too, there is none for sure.
    const isSilent = originOf(node, "image") === null;
    const isNone = isSilent && !this.named(widgetOf(node, "image")?.value).given;
    return isNone ? { given: false } : { given: true, size: null };
  }

  /**
   * The picture that is connected to an input.
   *
   * @param {Node} node
   * @param {string} input
   * @returns {Picture}
   */
  connected(node, input) {
    const origin = originOf(node, input);
    if (origin === null) return { given: false };
    if (origin === undefined) return { given: true, size: null };
    const kind = kindOf(origin.node);
    if ((kind === INPUTS || kind === FIELDS) && outputName(origin) === "image") {
      const form = kind === INPUTS ? origin.node : formOf(origin.node);
      return form ? this.ofForm(form) : { given: true, size: null };
    }
    if (LOADERS.has(kind)) return this.named(widgetOf(origin.node, "image")?.value, true);
    return { given: true, size: null };
  }

  /**
   * @param {unknown} source - a file name of ComfyUI's, a data: URI or a link
   * @param {boolean} given - what a blank source means
   * @returns {Picture}
   */
  named(source, given = false) {
    if (typeof source !== "string" || !source.trim())
      return given ? { given: true, size: null } : { given: false };
    const address = addressOf(source.trim(), this.api, this.since);
    return { given: true, size: address ? this.measure(address) : null };
  }

  /**
   * @param {string} address
   * @returns {Size | null} null: not known yet, or no picture
   */
  measure(address) {
    const { sizes } = this;
    const known = sizes.get(address);
    if (known !== undefined) return known;
    if (sizes.size >= KEPT) sizes.clear();
    sizes.set(address, null);
    const image = new Image();
    image.onload = () => {
      sizes.set(address, { width: image.naturalWidth, height: image.naturalHeight });
      this.onKnown();
    };
    // The file may come: a refresh after a while looks again. Not each one, there may be ten a second.
    image.onerror = () => setTimeout(() => sizes.delete(address), AGAIN_MS);
    image.src = address;
    return null;
  }

  /** Look at every file again: one of them may have changed. */
  forget() {
    this.sizes = new Map(); // what is on its way goes into the one before
  }

  /** The same, and past the files that the browser has kept. */
  reload() {
    this.since = String(Date.now());
    this.forget();
  }
}

/**
 * @param {string} source
 * @param {import("./nodes.mjs").Api} api
 * @param {string} since - another one makes the browser ask the server
 * @returns {string | null} null: a link, which only the server fetches
 */
function addressOf(source, api, since) {
  if (/^data:image\//i.test(source)) return source;
  if (/^[a-z]+:/i.test(source)) return null;
  const [, path, type = "input"] = /^(.*?)(?:\s*\[(input|output|temp)\])?$/s.exec(source) ?? [];
  const parts = (path ?? "").split("/");
  const query = new URLSearchParams({
    filename: parts.pop() ?? "",
    subfolder: parts.join("/"),
    ...{ type, since },
  });
  return api.apiURL(`/view?${query}`);
}
