// What the Save node says of a picture, and its request.
import assert from "node:assert/strict";
import { test } from "node:test";
import { readTold, recordLines, requestText } from "../../js/lib/record.mjs";
import { speaker } from "../../js/lib/words.mjs";
import { readRequest } from "../../js/lib/request.mjs";

const say = speaker(null, "en");
const texts = (record, seconds) => recordLines(record, seconds, say).map(({ text }) => text);

test("a record is one line, and one for its LoRAs", () => {
  const loras = [{ file: "a.safetensors", strength: 0.75 }, { file: "b.safetensors", strength: -1.1000000000000001 }];
  assert.deepEqual(texts({ seed: 0, engine: "int8", loras }, 12.34), [
    "Seed 0 · 12.3 s · int8",
    "LoRA: a.safetensors 0.75, b.safetensors -1.1",
  ]);
  assert.deepEqual(texts({ seed: 2 ** 53 - 1, engine: "bf16", loras: [] }, null), ["Seed 9007199254740991 · bf16"]);
});

test("what no node of ours knows is not said", () => {
  assert.deepEqual(texts({}, null), []);
  assert.deepEqual(texts({ engine: "fp8" }, 1), ["1.0 s · fp8"]);
});

test("a node tells a JSON text, or nothing", () => {
  assert.deepEqual(readTold(['{"seed": 7}']), { seed: 7 });
  for (const nothing of [undefined, null, [], [{}]]) assert.equal(readTold(nothing), null);
});

test("what a run over a list tells of each picture is told of none", () => {
  assert.equal(readTold(['{"seed": 7}', '{"seed": 8}']), null);
});

test("a request can be pasted back", () => {
  const fields = { prompt: "", aspect_ratio: "1:1", seed: 7, go_fast: true, lora_scale: 0.5 };
  assert.deepEqual(readRequest(requestText(fields)), fields);
});
