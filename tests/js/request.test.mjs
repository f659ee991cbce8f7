import assert from "node:assert/strict";
import { test } from "node:test";
import { readRequest, RequestError, toRequest, toWidgets } from "../../js/lib/request.mjs";
import { MESSAGES } from "../../js/lib/messages.mjs";
import { FIELDS } from "../../js/lib/spec.mjs";
import { vectors } from "./vectors.mjs";

const DEFAULTS = { width: 1024, height: 1024, seed: 0 };
const half = () => 0.5;

/** A request with the defaults that Python fills in. */
function complete(request) {
  const usual = FIELDS.filter((field) => field.default !== null);
  return { ...Object.fromEntries(usual.map((field) => [field.name, field.default])), ...request };
}

for (const { text, refused, request } of vectors.requests) {
  test(`${text.slice(0, 80)} is read as Python reads it`, () => {
    if (refused === undefined) assert.deepEqual(complete(readRequest(text)), request);
    else
      assert.throws(
        () => readRequest(text),
        (error) =>
          error instanceof RequestError &&
          error.key in MESSAGES &&
          ([refused, "lora"].includes(error.params.field) || error.key === "error_unknown"),
      );
  });
  if (refused === undefined)
    test(`${text.slice(0, 80)} comes back from the form`, () => {
      const { values } = toWidgets(readRequest(text), DEFAULTS, half);
      assert.deepEqual(Object.keys(values), FIELDS.map((field) => field.name));
      assert.ok(Object.values(values).every((value) => value !== undefined && value !== null));
      const back = readRequest(JSON.stringify(toRequest(values)));
      const expected = { ...request, seed: request.seed ?? 2 ** 31 };
      if (request.aspect_ratio !== "custom") {
        delete expected.width;
        delete expected.height;
      } else {
        expected.width ??= 1024;
        expected.height ??= 1024;
      }
      assert.deepEqual(complete(back), expected);
    });
}

test("the body of a call to the hosted model is understood", () => {
  const body = { version: "abc", input: { prompt: "a fox", seed: 3 } };
  assert.deepEqual(readRequest(JSON.stringify(body)), { prompt: "a fox", seed: 3 });
});

for (const text of ["", "a fox", "[]", "null", "3", '"prompt"', '{"prompt": }', '{"input": []}'])
  test(`${JSON.stringify(text)} is no request`, () => {
    assert.throws(() => readRequest(text), RequestError);
  });

test("a seed that the editor cannot hold is refused, not bent", () => {
  const text = '{"prompt": "x", "seed": 18446744073709551615}';
  assert.throws(() => readRequest(text), { key: "error_integer" });
});

test("a seed that is not given is drawn", () => {
  const drawn = toWidgets({ prompt: "x" }, DEFAULTS, () => 0.999999999999);
  assert.deepEqual([drawn.seedIsDrawn, drawn.values.seed], [true, 2 ** 32 - 1]);
  const given = toWidgets({ prompt: "x", seed: 0 }, DEFAULTS, half);
  assert.deepEqual([given.seedIsDrawn, given.values.seed], [false, 0]);
});

test("what is connected is left out of the copy", () => {
  const { values } = toWidgets({ prompt: "x", seed: 1 }, DEFAULTS, half);
  delete values.prompt;
  assert.ok(!("prompt" in toRequest(values)));
  assert.equal(toRequest(values).seed, 1);
});

test("messages hold the start of a value only", () => {
  const text = JSON.stringify({ prompt: "x", model: "y".repeat(500) });
  assert.throws(() => readRequest(text), (error) => error.params.value.length === 60);
});
