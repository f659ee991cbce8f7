// A hosted request as JSON to the values of the form's widgets, and back.
// @ts-check

import { CUSTOM, FIELDS, RANDOM_SEED_LIMIT } from "./spec.mjs";

/** @typedef {import("./spec.mjs").Field} Field */
/** @typedef {Record<string, string | number | boolean>} Values */

/** A text that is no valid request; `key` is of a message, `params` fill it in. */
export class RequestError extends Error {
  /**
   * @param {string} key
   * @param {Record<string, string | number>} params
   */
  constructor(key, params = {}) {
    super(`${key} ${JSON.stringify(params)}`);
    this.key = key;
    this.params = params;
  }
}

/**
 * Read a request as the pack's own parser does. The body of a call to the hosted model, which has
 * the request under "input", is understood too.
 *
 * @param {string} text - JSON
 * @returns {Values} the fields that are given, by name
 * @throws {RequestError}
 */
export function readRequest(text) {
  const given = byField(unwrap(toObject(text)));
  /** @type {Values} */
  const values = {};
  for (const field of FIELDS) {
    const value = given.get(field.name);
    if (value === undefined) {
      if (field.required) throw new RequestError("error_missing", { field: field.name });
      continue;
    }
    const checked = check(field, value);
    const blank = typeof checked === "string" && !checked.trim() && !field.required;
    if (!blank) values[field.name] = checked;
  }
  return values;
}

/**
 * What each widget of the form shows for a request.
 *
 * @param {Values} request - from `readRequest`
 * @param {Record<string, unknown>} defaults - what a new form shows
 * @param {() => number} random - 0 to 1, draws the seed that is not given
 * @returns {{ values: Record<string, unknown>, seedIsDrawn: boolean }}
 */
export function toWidgets(request, defaults, random) {
  /** @type {Record<string, unknown>} */
  const values = {};
  for (const { name, kind, default: usual } of FIELDS) {
    const isText = kind === "string" || kind === "uri";
    values[name] = request[name] ?? usual ?? (isText ? "" : defaults[name]);
  }
  const seedIsDrawn = request.seed === undefined;
  if (seedIsDrawn) values.seed = Math.floor(random() * RANDOM_SEED_LIMIT);
  return { values, seedIsDrawn };
}

/**
 * The request that a form asks for.
 *
 * @param {Record<string, unknown>} values - of the widgets; a connected one is left out
 * @returns {Values}
 */
export function toRequest(values) {
  /** @type {Values} */
  const request = {};
  for (const { name, required } of FIELDS) {
    const value = values[name];
    if (typeof value !== "string" && typeof value !== "number" && typeof value !== "boolean") continue;
    if (typeof value === "string" && !value.trim() && !required) continue;
    const isSide = name === "width" || name === "height";
    if (isSide && values.aspect_ratio !== CUSTOM) continue;
    request[name] = value;
  }
  return request;
}

/** @param {string} text */
function toObject(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new RequestError("error_json");
  }
  if (!isObject(value)) throw new RequestError("error_json");
  return value;
}

/** @param {Record<string, unknown>} body */
function unwrap(body) {
  return isObject(body.input) ? body.input : body;
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * @param {Record<string, unknown>} raw
 * @returns {Map<string, unknown>}
 */
function byField(raw) {
  /** @type {Map<string, string>} */
  const names = new Map();
  for (const field of FIELDS)
    for (const name of [field.name, ...field.aliases]) names.set(name, field.name);
  const given = new Map();
  for (const [key, value] of Object.entries(raw)) {
    const name = names.get(key);
    if (name === undefined) throw new RequestError("error_unknown", { field: shorten(key) });
    if (value === null) continue;
    if (given.has(name)) throw new RequestError("error_twice", { field: name });
    given.set(name, value);
  }
  return given;
}

/**
 * @param {Field} field
 * @param {unknown} value
 * @returns {string | number | boolean}
 */
function check(field, value) {
  const params = { field: field.name, value: shorten(JSON.stringify(value)) };
  if (field.kind === "boolean") {
    if (typeof value === "boolean") return value;
    throw new RequestError("error_boolean", params);
  }
  if (field.kind === "integer" || field.kind === "number") return checkNumber(field, value, params);
  if (typeof value !== "string") throw new RequestError("error_text", params);
  if (field.kind === "enum" && !field.choices.includes(value))
    throw new RequestError("error_choice", { ...params, choices: field.choices.join(", ") });
  return value;
}

/**
 * @param {Field} field
 * @param {unknown} value
 * @param {Record<string, string>} params
 * @returns {number}
 */
function checkNumber(field, value, params) {
  const low = field.minimum ?? -Infinity;
  const high = field.maximum ?? Infinity;
  const whole = field.kind === "number" || Number.isInteger(value);
  if (typeof value === "number" && whole && value >= low && value <= high) return value;
  const key = field.kind === "integer" ? "error_integer" : "error_number";
  throw new RequestError(key, { ...params, minimum: low, maximum: high });
}

/** @param {string} text */
function shorten(text) {
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`;
}
