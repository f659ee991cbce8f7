// What a request comes to before it runs: its size, its route, a hint. Plain data in, plain data out.
// @ts-check

import { CUSTOM, GRID, IMAGE_LIMIT, ROUTES, SCHNELL_STEPS, SIZES } from "./spec.mjs";

/** @typedef {{ width: number, height: number }} Size */
/** @typedef {import("./lines.mjs").Picture} Picture */
/**
 * @typedef {object} Shape - undefined: not known before it runs, such as a connected value
 * @property {string} [aspect_ratio]
 * @property {string} [megapixels]
 * @property {number} [width]
 * @property {number} [height]
 */

/**
 * The size of the picture that a request without an input picture makes.
 *
 * @param {Shape} shape
 * @returns {Size | null} null: not known
 */
export function shapeSize({ aspect_ratio, megapixels, width, height }) {
  if (aspect_ratio === CUSTOM) {
    if (!isSide(width) || !isSide(height)) return null;
    return { width: nearest(width), height: nearest(height) };
  }
  const pair = SIZES[aspect_ratio ?? ""]?.[megapixels ?? ""];
  return pair ? { width: pair[0], height: pair[1] } : null;
}

/**
 * The size that an input picture is brought to: it is shrunk to fit, then each side goes up to the
 * grid.
 *
 * @param {Size} picture - upright, in pixels
 * @returns {Size}
 */
export function pictureSize({ width, height }) {
  const scale = Math.min(IMAGE_LIMIT / width, IMAGE_LIMIT / height, 1);
  const shrunk = scale < 1 ? [width, height].map((side) => Math.max(Math.trunc(side * scale), 1)) : [width, height];
  const [right, bottom] = shrunk.map((side) => Math.floor((side + GRID - 1) / GRID) * GRID);
  return { width: right, height: bottom };
}

/**
 * The size of the picture that is drawn.
 *
 * @param {Shape} shape
 * @param {Picture} picture - it sets the size, if there is one
 * @returns {Size | null} null: not known
 */
export function finalSize(shape, picture) {
  if (!picture.given) return shapeSize(shape);
  return picture.size && pictureSize(picture.size);
}

/**
 * @param {Size} size
 * @returns {number} latent tokens
 */
export function tokens({ width, height }) {
  return Math.floor(width / GRID) * Math.floor(height / GRID);
}

/**
 * The route that the planner takes, and why.
 *
 * @param {{ go_fast: boolean, image: boolean, custom: boolean }} given
 * @returns {{ route: string, reason: string }}
 */
export function routeOf({ go_fast, image, custom }) {
  const row = ROUTES.find(
    (entry) => entry.go_fast === go_fast && entry.image === image && entry.custom === custom,
  );
  if (!row) throw new Error("no route");
  return { route: row.route, reason: row.reason };
}

/**
 * The same from what is known of a request.
 *
 * @param {Record<string, any>} values - of go_fast and aspect_ratio
 * @param {Picture} picture
 * @returns {{ route: string, reason: string } | null} null: not known
 */
export function knownRoute({ go_fast, aspect_ratio }, picture) {
  if (typeof go_fast !== "boolean" || typeof aspect_ratio !== "string") return null;
  return routeOf({ go_fast, image: picture.given, custom: aspect_ratio === CUSTOM });
}

/**
 * @param {unknown} model
 * @param {unknown} steps
 * @returns {boolean} whether more steps run than schnell needs
 */
export function hasNeedlessSteps(model, steps) {
  return model === "schnell" && typeof steps === "number" && steps > SCHNELL_STEPS;
}

/**
 * @param {unknown} side
 * @returns {side is number}
 */
function isSide(side) {
  return typeof side === "number" && side > 0;
}

/** @param {number} side */
function nearest(side) {
  return Math.floor((side + Math.floor(GRID / 2)) / GRID) * GRID;
}
