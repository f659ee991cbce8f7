// What the Save node tells of its pictures: as lines, and as the request that made them. No DOM here.
// @ts-check

import { toRequest } from "./request.mjs";

/** @typedef {import("./lines.mjs").Line} Line */
/** @typedef {import("./words.mjs").Say} Say */
/**
 * What is used here of a record; a part that no node of ours knows is missing.
 *
 * @typedef {object} PictureRecord
 * @property {number} [seed]
 * @property {string} [engine]
 * @property {{ file: string, strength: number }[]} [loras]
 */

/**
 * @typedef {object} Asked - a request
 * @property {Record<string, unknown>} fields - each that has a value
 * @property {string[]} left_out - those that hold a picture or a file itself
 */

/**
 * @param {unknown} told - what a node told under one key of its output: a JSON text in a list
 * @returns {any} null: nothing, or several after a run over a list, of which none is that of all
 */
export function readTold(told) {
  const text = Array.isArray(told) && told.length === 1 ? told[0] : undefined;
  return typeof text === "string" ? JSON.parse(text) : null;
}

/**
 * @param {PictureRecord} record
 * @param {number | null} seconds - that the run took, null if it is not known
 * @param {Say} say
 * @returns {Line[]}
 */
export function recordLines({ seed, engine, loras = [] }, seconds, say) {
  const run = [
    seed !== undefined && say("ran_seed", { seed }),
    seconds !== null && say("ran_seconds", { seconds: seconds.toFixed(1) }),
    engine,
  ];
  const names = loras.map(({ file, strength }) => `${file} ${Number(strength.toPrecision(4))}`);
  const texts = [run.filter(Boolean).join(" · "), names.length && say("ran_loras", { loras: names.join(", ") })];
  return texts.flatMap((text) => (text ? [{ text }] : []));
}

/**
 * The request of a picture as JSON.
 *
 * @param {Record<string, unknown>} fields - each as it was
 */
export function requestText(fields) {
  return JSON.stringify(toRequest(fields), null, 2);
}
