// The suggestions of LoRAs, as texts. No DOM here.
// @ts-check

import { bytes } from "./lines.mjs";

/** @typedef {import("./words.mjs").Say} Say */
/**
 * A LoRA that is here.
 *
 * @typedef {object} Lora
 * @property {string} source - what to write into a field to have it
 * @property {string} file - below the loras folders
 * @property {number} size - of the file in bytes
 * @property {string[]} words - its trigger words
 */
/**
 * @typedef {object} Told
 * @property {Lora[]} loras
 * @property {number} more - how many fit beside them
 */

/**
 * @param {Lora} lora
 * @param {Say} say
 * @returns {{ value: string, detail: string }}
 */
export function choiceOf({ source, size, words }, say) {
  const known = words.length ? say("trigger_words", { words: words.join(", ") }) : "";
  return { value: source, detail: [bytes(size), known].filter(Boolean).join(" · ") };
}
