// Written by python -m flux_hotswap.tools.schema.
// @ts-check

/**
 * @typedef {object} Field
 * @property {string} name
 * @property {"string" | "uri" | "enum" | "integer" | "number" | "boolean"} kind
 * @property {boolean} required
 * @property {string | number | boolean | null} default - null: not given
 * @property {number | null} minimum
 * @property {number | null} maximum
 * @property {string[]} choices
 * @property {string[]} aliases
 */
/**
 * @typedef {object} Route
 * @property {boolean} go_fast
 * @property {boolean} image
 * @property {boolean} custom
 * @property {string} route
 * @property {string} reason
 */

/** @type {number} */
export const GRID = 16;

/** @type {number} */
export const IMAGE_LIMIT = 1440;

/** @type {string} */
export const CUSTOM = "custom";

/** @type {number} */
export const SCHNELL_STEPS = 4;

/** @type {number} */
export const RANDOM_SEED_LIMIT = 4294967296;

/** @type {number} */
export const CLIP_LENGTH = 77;

/** @type {Record<string, number>} */
export const T5_LENGTH = {
  "dev": 512,
  "schnell": 256,
};

/** @type {Field[]} */
export const FIELDS = [
  {"name": "prompt", "kind": "string", "required": true, "default": null, "minimum": null, "maximum": null, "choices": [], "aliases": []},
  {"name": "image", "kind": "uri", "required": false, "default": null, "minimum": null, "maximum": null, "choices": [], "aliases": []},
  {"name": "mask", "kind": "uri", "required": false, "default": null, "minimum": null, "maximum": null, "choices": [], "aliases": []},
  {"name": "aspect_ratio", "kind": "enum", "required": false, "default": "1:1", "minimum": null, "maximum": null, "choices": ["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21", "custom"], "aliases": []},
  {"name": "height", "kind": "integer", "required": false, "default": null, "minimum": 256, "maximum": 1440, "choices": [], "aliases": []},
  {"name": "width", "kind": "integer", "required": false, "default": null, "minimum": 256, "maximum": 1440, "choices": [], "aliases": []},
  {"name": "prompt_strength", "kind": "number", "required": false, "default": 0.8, "minimum": 0, "maximum": 1, "choices": [], "aliases": []},
  {"name": "model", "kind": "enum", "required": false, "default": "dev", "minimum": null, "maximum": null, "choices": ["dev", "schnell"], "aliases": []},
  {"name": "num_outputs", "kind": "integer", "required": false, "default": 1, "minimum": 1, "maximum": 4, "choices": [], "aliases": []},
  {"name": "num_inference_steps", "kind": "integer", "required": false, "default": 28, "minimum": 1, "maximum": 50, "choices": [], "aliases": []},
  {"name": "guidance_scale", "kind": "number", "required": false, "default": 3, "minimum": 0, "maximum": 10, "choices": [], "aliases": []},
  {"name": "seed", "kind": "integer", "required": false, "default": null, "minimum": 0, "maximum": 9007199254740991, "choices": [], "aliases": []},
  {"name": "output_format", "kind": "enum", "required": false, "default": "webp", "minimum": null, "maximum": null, "choices": ["webp", "jpg", "png"], "aliases": []},
  {"name": "output_quality", "kind": "integer", "required": false, "default": 80, "minimum": 0, "maximum": 100, "choices": [], "aliases": []},
  {"name": "disable_safety_checker", "kind": "boolean", "required": false, "default": false, "minimum": null, "maximum": null, "choices": [], "aliases": []},
  {"name": "go_fast", "kind": "boolean", "required": false, "default": true, "minimum": null, "maximum": null, "choices": [], "aliases": []},
  {"name": "megapixels", "kind": "enum", "required": false, "default": "1", "minimum": null, "maximum": null, "choices": ["1", "0.25"], "aliases": []},
  {"name": "lora", "kind": "string", "required": false, "default": null, "minimum": null, "maximum": null, "choices": [], "aliases": ["replicate_weights", "lora_weights"]},
  {"name": "lora_scale", "kind": "number", "required": false, "default": 1, "minimum": -1, "maximum": 3, "choices": [], "aliases": []},
  {"name": "extra_lora", "kind": "string", "required": false, "default": null, "minimum": null, "maximum": null, "choices": [], "aliases": []},
  {"name": "extra_lora_scale", "kind": "number", "required": false, "default": 1, "minimum": -1, "maximum": 3, "choices": [], "aliases": []},
];

/** @type {Record<string, Record<string, [number, number]>>} */
export const SIZES = {
  "1:1": {"1": [1024, 1024], "0.25": [512, 512]},
  "16:9": {"1": [1344, 768], "0.25": [672, 384]},
  "21:9": {"1": [1536, 640], "0.25": [768, 320]},
  "3:2": {"1": [1216, 832], "0.25": [608, 416]},
  "2:3": {"1": [832, 1216], "0.25": [416, 608]},
  "4:5": {"1": [896, 1088], "0.25": [448, 544]},
  "5:4": {"1": [1088, 896], "0.25": [544, 448]},
  "3:4": {"1": [896, 1152], "0.25": [448, 576]},
  "4:3": {"1": [1152, 896], "0.25": [576, 448]},
  "9:16": {"1": [768, 1344], "0.25": [384, 672]},
  "9:21": {"1": [640, 1536], "0.25": [320, 768]},
};

/** @type {Route[]} */
export const ROUTES = [
  {"go_fast": false, "image": false, "custom": false, "route": "bf16", "reason": "go_fast off"},
  {"go_fast": false, "image": false, "custom": true, "route": "bf16", "reason": "go_fast off"},
  {"go_fast": false, "image": true, "custom": false, "route": "bf16", "reason": "go_fast off"},
  {"go_fast": false, "image": true, "custom": true, "route": "bf16", "reason": "go_fast off"},
  {"go_fast": true, "image": false, "custom": false, "route": "fast", "reason": "go_fast"},
  {"go_fast": true, "image": false, "custom": true, "route": "bf16", "reason": "custom size"},
  {"go_fast": true, "image": true, "custom": false, "route": "bf16", "reason": "image input"},
  {"go_fast": true, "image": true, "custom": true, "route": "bf16", "reason": "image input"},
];
