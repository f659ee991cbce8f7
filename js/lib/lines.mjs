// The lines that the nodes show, as texts. No DOM here.
// @ts-check

import { finalSize, hasNeedlessSteps, knownRoute, tokens } from "./plan.mjs";
import { CLIP_LENGTH, SCHNELL_STEPS, T5_LENGTH } from "./spec.mjs";

/** @typedef {import("./words.mjs").Say} Say */
/** @typedef {import("./plan.mjs").Size} Size */
/**
 * @typedef {object} Line
 * @property {string} text
 * @property {"plain" | "hint" | "error"} [tone]
 * @property {string[]} [words] - at the end of the text, each to be put into a prompt
 */
/**
 * An input picture: absent, there with its size, or there with a size that is not known yet.
 *
 * @typedef {{ given: false } | { given: true, size: Size | null }} Picture
 */
/**
 * What the server says about a LoRA source.
 *
 * @typedef {object} Source
 * @property {string} [error] - why it names none
 * @property {string} [kind] - such as "replicate" or "link"
 * @property {string} [name] - the source without secrets
 * @property {string | null} [file] - its file below the loras folder, if it is there
 * @property {number | null} [size] - of that file in bytes
 * @property {Inside | null} [inside] - what that file is, once it was looked at
 */
/**
 * How many tokens the text encoders make of a prompt, before any is cut.
 *
 * @typedef {{ t5: number, clip: number }} Tokens
 */
/**
 * What a LoRA file is; of one that is damaged only why it is refused.
 *
 * @typedef {object} Inside
 * @property {string | null} refused - why it cannot be used
 * @property {string[]} words - its trigger words
 * @property {string} [kind] - such as "LoRA"
 * @property {string} [rank]
 * @property {string} [alpha] - empty: it is the rank
 * @property {string} [trainer] - empty: not known
 * @property {string} [family] - how it names its keys
 * @property {number} [keys]
 * @property {number} [matched] - how many of them fit
 * @property {string} [left] - what does not fit
 */

/**
 * @param {Record<string, any>} values - what is known of aspect_ratio, megapixels, width and height
 * @param {Picture} picture
 * @param {Say} say
 * @returns {Line}
 */
export function sizeLine(values, picture, say) {
  if (picture.given && !picture.size) return { text: say("size_of_image") };
  const size = finalSize(values, picture);
  if (!size) return { text: say("size_unknown") };
  const megapixels = ((size.width * size.height) / 1e6).toFixed(2);
  return { text: say("size", { ...size, megapixels, tokens: tokens(size) }) };
}

/**
 * @param {Record<string, any>} values - what is known of go_fast and aspect_ratio
 * @param {Picture} picture
 * @param {Say} say
 * @returns {Line[]}
 */
export function routeLines(values, picture, say) {
  const known = knownRoute(values, picture);
  if (!known) return [];
  const { route, reason } = known;
  if (reason === "go_fast") return [{ text: say("route", { route: reason }) }];
  const why = say(`reason_${reason.replaceAll(" ", "_")}`);
  return [{ text: say("route_because", { route, reason: why }) }];
}

/**
 * @param {Record<string, any>} values - what is known of model and num_inference_steps
 * @param {Say} say
 * @returns {Line[]}
 */
export function stepsLines({ model, num_inference_steps: asked }, say) {
  if (!hasNeedlessSteps(model, asked)) return [];
  return [{ text: say("needless_steps", { steps: SCHNELL_STEPS, asked }), tone: "hint" }];
}

/**
 * @param {Tokens | null} tokens - null: the server has not answered
 * @param {unknown} model
 * @param {Say} say
 * @returns {Line[]} none while all of the prompt is read
 */
export function tokenLines(tokens, model, say) {
  const most = T5_LENGTH[String(model)];
  if (!tokens || !most || (tokens.t5 <= most && tokens.clip <= CLIP_LENGTH)) return [];
  return [{ text: say("prompt_tokens", { ...tokens, most, clip_most: CLIP_LENGTH }), tone: "hint" }];
}

/**
 * @param {Source | null} source - null: the server has not answered
 * @param {Say} say
 * @returns {Line[]}
 */
export function sourceLines(source, say) {
  if (!source) return [];
  if (source.error) return [{ text: source.error, tone: "error" }];
  const name = source.name ?? "";
  const first = { text: say(`kind_${source.kind}`, { name }) };
  if (source.file) {
    const size = bytes(source.size ?? 0);
    const here = { text: say("file_here", { file: source.file, size }) };
    return [first, here, ...insideLines(source.inside ?? null, say)];
  }
  if (source.kind === "local") return [first, { text: say("file_missing"), tone: "error" }];
  return [first, { text: say("file_to_fetch"), tone: "hint" }];
}

/**
 * @param {Inside | null} inside
 * @param {Say} say
 * @returns {Line[]}
 */
function insideLines(inside, say) {
  if (!inside) return [];
  const { kind, rank, alpha, trainer, family, refused, words } = inside;
  const ranks = [rank && say("lora_rank", { rank }), alpha && say("lora_alpha", { alpha })];
  const what = [kind, ...ranks, trainer, family].filter(Boolean).join(" · ");
  /** @type {Line[]} */
  const lines = what ? [{ text: what }] : [];
  lines.push(refused ? { text: refused, tone: "error" } : fitLine(inside, say));
  if (words.length) lines.push({ text: say("trigger_words", { words: words.join(", ") }), words });
  return lines;
}

/**
 * @param {Inside} inside
 * @param {Say} say
 * @returns {Line}
 */
function fitLine({ matched = 0, keys = 0, left }, say) {
  if (left) return { text: say("keys_left", { matched, keys, left }), tone: "hint" };
  return { text: say("keys_fit", { matched, keys }) };
}

/**
 * @param {number} done - bytes
 * @param {number} most - bytes in all; one more than done while that is not known
 * @param {Say} say
 * @returns {{ text: string, share: number | null }}
 */
export function downloadLine(done, most, say) {
  if (most <= done + 1 && done !== most)
    return { text: say("download", { done: bytes(done) }), share: null };
  const share = most > 0 ? Math.min(done / most, 1) : 1;
  return { text: say("download_of", { done: bytes(done), total: bytes(most) }), share };
}

/** @param {number} count */
export function bytes(count) {
  if (count < 1e5) return `${count} B`;
  return count < 1e9 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e9).toFixed(2)} GB`;
}
