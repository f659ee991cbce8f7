// Our messages in the language of the editor.
// @ts-check

import { MESSAGES } from "./messages.mjs";

/** @typedef {Record<string, string | number>} Params */
/** @typedef {(key: string, params?: Params) => string} Say */

/** The key under which ComfyUI hands out our messages among those of all packs. */
const SECTION = "fluxHotswap";

/**
 * A function that says messages in a language, in English where it has none.
 *
 * @param {unknown} catalogue - what ComfyUI answers to /i18n
 * @param {unknown} locale - such as "de" or "pt-BR"
 * @returns {Say}
 */
export function speaker(catalogue, locale) {
  const own = { ...MESSAGES, ...messagesOf(catalogue, "en"), ...messagesOf(catalogue, locale) };
  return (key, params = {}) => fill(own[key] ?? key, params);
}

/**
 * @param {string} text
 * @param {Params} params
 */
function fill(text, params) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in params ? String(params[name]) : whole));
}

/**
 * @param {unknown} catalogue
 * @param {unknown} locale
 * @returns {Record<string, string>}
 */
function messagesOf(catalogue, locale) {
  if (typeof catalogue !== "object" || catalogue === null || typeof locale !== "string") return {};
  const section = /** @type {any} */ (catalogue)[locale]?.[SECTION];
  if (typeof section !== "object" || section === null) return {};
  return Object.fromEntries(Object.entries(section).filter(([, text]) => typeof text === "string"));
}
