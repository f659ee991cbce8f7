import assert from "node:assert/strict";
import { test } from "node:test";
import { MESSAGES } from "../../js/lib/messages.mjs";
import { speaker } from "../../js/lib/words.mjs";

const catalogue = { de: { fluxHotswap: { cancel: "Abbrechen", size: "{width} mal {height}" } } };

test("the editor's language is spoken where it is known", () => {
  assert.equal(speaker(catalogue, "de")("cancel"), "Abbrechen");
  assert.equal(speaker(catalogue, "de")("size", { width: 1, height: 2 }), "1 mal 2");
});

test("elsewhere it is English", () => {
  for (const odd of [null, undefined, 7, "text", [], {}, { de: null }, { de: { fluxHotswap: 3 } }])
    assert.equal(speaker(odd, "de")("cancel"), MESSAGES.cancel);
  assert.equal(speaker(catalogue, "de")("copy"), MESSAGES.copy);
  assert.equal(speaker(catalogue, undefined)("cancel"), MESSAGES.cancel);
  const broken = { de: { fluxHotswap: { cancel: 3 } } };
  assert.equal(speaker(broken, "de")("cancel"), MESSAGES.cancel);
});

test("what cannot be filled in stays", () => {
  assert.equal(speaker(null, "en")("download", {}), MESSAGES.download);
  assert.equal(speaker(null, "en")("no such key"), "no such key");
});

test("a value is not filled in again", () => {
  assert.equal(speaker(null, "en")("kind_link", { name: "{name}" }), "Link: {name}");
});
