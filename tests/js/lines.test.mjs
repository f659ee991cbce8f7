import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import {
  bytes, downloadLine, routeLines, sizeLine, sourceLines, stepsLines, tokenLines,
} from "../../js/lib/lines.mjs";
import { MESSAGES } from "../../js/lib/messages.mjs";
import { ROUTES } from "../../js/lib/spec.mjs";
import { choiceOf } from "../../js/lib/suggest.mjs";
import { speaker } from "../../js/lib/words.mjs";

const say = speaker(null, "en");
const none = { given: false };
const square = { aspect_ratio: "1:1", megapixels: "1" };

test("size line", () => {
  assert.equal(sizeLine(square, none, say).text, "1024 × 1024 · 1.05 MP · 4096 tokens");
  const custom = { aspect_ratio: "custom", width: 1000, height: 257 };
  assert.equal(sizeLine(custom, none, say).text, "1008 × 256 · 0.26 MP · 1008 tokens");
  const picture = { given: true, size: { width: 640, height: 470 } };
  assert.equal(sizeLine(square, picture, say).text, "640 × 480 · 0.31 MP · 1200 tokens");
  assert.equal(sizeLine(square, { given: true, size: null }, say).text, MESSAGES.size_of_image);
  assert.equal(sizeLine({}, none, say).text, MESSAGES.size_unknown);
});

test("route line", () => {
  const fast = { go_fast: true, aspect_ratio: "1:1" };
  const text = (values, picture) => routeLines(values, picture, say).map((line) => line.text);
  assert.deepEqual(text(fast, none), ["go_fast"]);
  assert.deepEqual(text({ ...fast, aspect_ratio: "custom" }, none), ["bf16: custom size"]);
  assert.deepEqual(text(fast, { given: true, size: null }), ["bf16: image input"]);
  assert.deepEqual(text({ ...fast, go_fast: false }, none), ["bf16: go_fast off"]);
  assert.deepEqual(text({ go_fast: true }, none), []);
  assert.deepEqual(text({ aspect_ratio: "1:1" }, none), []);
});

test("every reason of the planner has a message", () => {
  for (const { reason } of ROUTES)
    assert.ok(reason === "go_fast" || `reason_${reason.replaceAll(" ", "_")}` in MESSAGES, reason);
});

test("hint on steps", () => {
  const lines = stepsLines({ model: "schnell", num_inference_steps: 28 }, say);
  assert.deepEqual(lines, [{ text: "schnell needs only 4 steps, 28 will run", tone: "hint" }]);
  assert.deepEqual(stepsLines({ model: "schnell", num_inference_steps: 4 }, say), []);
  assert.deepEqual(stepsLines({ model: "dev", num_inference_steps: 28 }, say), []);
});

test("hint on tokens", () => {
  const lines = (t5, clip, model) => tokenLines({ t5, clip }, model, say).map((line) => line.text);
  assert.deepEqual(lines(256, 77, "schnell"), []);
  assert.deepEqual(lines(512, 77, "dev"), []);
  const long = "Prompt: 513 of 512 tokens for T5, 70 of 77 for CLIP; what is beyond is not read";
  assert.deepEqual(lines(513, 70, "dev"), [long]);
  assert.match(lines(257, 70, "schnell")[0], /257 of 256 tokens/);
  assert.match(lines(90, 78, "dev")[0], /90 of 512 tokens for T5, 78 of 77 for CLIP/);
  assert.deepEqual(lines(9999, 9999, undefined), []);
  assert.deepEqual(tokenLines(null, "dev", say), []);
});

test("source lines", () => {
  const lines = (source) => sourceLines(source, say).map(({ text, tone }) => [text, tone ?? "plain"]);
  assert.deepEqual(lines(null), []);
  assert.deepEqual(lines({ error: "'x': no" }), [["'x': no", "error"]]);
  const car = { kind: "replicate", name: "a/b", file: null, size: null };
  assert.deepEqual(lines(car), [["Replicate: a/b", "plain"], [MESSAGES.file_to_fetch, "hint"]]);
  const here = { ...car, file: "flux-hotswap/a-b.safetensors", size: 171_900_000 };
  assert.deepEqual(lines(here)[1], ["Is here: flux-hotswap/a-b.safetensors (171.9 MB)", "plain"]);
  const local = { kind: "local", name: "x.safetensors", file: null };
  assert.deepEqual(lines(local)[1], [MESSAGES.file_missing, "error"]);
});

const GOOD = {
  kind: "LoRA", rank: "16", alpha: "16", trainer: "ai-toolkit 0.7.8", family: "diffusers",
  keys: 988, matched: 988, left: "", refused: null, words: [],
};

/** What is said of a file's inside, behind the two lines about its source and place. */
function inside(given, speak = say) {
  const source = { kind: "local", name: "x.safetensors", file: "x.safetensors", size: 1, inside: given };
  return sourceLines(source, speak).slice(2);
}

test("what a file is", () => {
  assert.deepEqual(inside(null), []);
  const what = "LoRA · rank 16 · alpha 16 · ai-toolkit 0.7.8 · diffusers";
  assert.deepEqual(inside(GOOD), [{ text: what }, { text: "988 of 988 keys fit" }]);
  assert.equal(inside({ ...GOOD, alpha: "", trainer: "" })[0].text, "LoRA · rank 16 · diffusers");
  const part = { ...GOOD, matched: 987, left: "a.b" };
  assert.deepEqual(inside(part)[1], { text: "987 of 988 keys fit; left out: a.b", tone: "hint" });
});

test("a file that is refused says why instead of what fits", () => {
  const refused = "x.safetensors: it is made for Qwen-Image, not for FLUX.1.";
  const lines = inside({ ...GOOD, refused });
  assert.deepEqual(lines.slice(1), [{ text: refused, tone: "error" }]);
  assert.deepEqual(inside({ refused, words: [] }), [{ text: refused, tone: "error" }]);
});

test("trigger words stand at the end of their line, in every language", async () => {
  const words = ["m1x", "a $& {dog}"];
  const line = inside({ ...GOOD, words })[2];
  assert.deepEqual(line, { text: "Trigger words: m1x, a $& {dog}", words });
  const folder = new URL("../../locales/", import.meta.url);
  for (const language of ["de", "en", "es", "fr", "ja", "ko", "pt-BR", "zh"]) {
    const own = JSON.parse(await readFile(new URL(`${language}/main.json`, folder), "utf-8"));
    const text = inside({ ...GOOD, words }, speaker({ [language]: own }, language))[2].text;
    assert.ok(text.endsWith("m1x, a $& {dog}"), text);
  }
});

test("download line", () => {
  assert.deepEqual(downloadLine(5e6, 2e7, say), { text: "Downloading, 5.0 MB of 20.0 MB", share: 0.25 });
  assert.deepEqual(downloadLine(5e6, 5e6 + 1, say), { text: "Downloading, 5.0 MB so far", share: null });
  assert.equal(downloadLine(10, 10, say).share, 1);
  assert.equal(downloadLine(0, 0, say).share, 1);
});

test("bytes", () => {
  assert.deepEqual([0, 99_999, 1e5, 2.5e9].map(bytes), ["0 B", "99999 B", "0.1 MB", "2.50 GB"]);
});

test("a suggestion", () => {
  const lora = { source: "a/b", file: "flux-hotswap/a-b.safetensors", size: 2e7, words: ["TOK", "m1x dog"] };
  assert.deepEqual(choiceOf(lora, say), { value: "a/b", detail: "20.0 MB · Trigger words: TOK, m1x dog" });
  assert.equal(choiceOf({ ...lora, words: [] }, say).detail, "20.0 MB");
});
