import assert from "node:assert/strict";
import { test } from "node:test";
import { hasNeedlessSteps, pictureSize, routeOf, shapeSize, tokens } from "../../js/lib/plan.mjs";
import { ROUTES } from "../../js/lib/spec.mjs";
import { vectors } from "./vectors.mjs";

test("preset sizes and tokens are Python's", () => {
  assert.equal(vectors.presets.length, 22);
  for (const { aspect_ratio, megapixels, width, height, tokens: count } of vectors.presets) {
    const size = shapeSize({ aspect_ratio, megapixels, width: 300, height: 300 });
    assert.deepEqual(size, { width, height });
    assert.equal(tokens(size), count);
  }
});

test("every custom side is rounded as Python rounds it", () => {
  assert.equal(vectors.custom.length, 1185);
  for (const { side, width, height, tokens: count } of vectors.custom) {
    const size = shapeSize({ aspect_ratio: "custom", megapixels: "1", width: side, height: 1440 });
    assert.deepEqual(size, { width, height });
    assert.equal(tokens(size), count);
  }
});

test("input pictures come to Python's size", () => {
  for (const { picture, width, height } of vectors.pictures)
    assert.deepEqual(pictureSize(picture), { width, height }, JSON.stringify(picture));
});

test("a shape that is not known has no size", () => {
  assert.equal(shapeSize({}), null);
  assert.equal(shapeSize({ aspect_ratio: "1:1" }), null);
  assert.equal(shapeSize({ aspect_ratio: "1:2", megapixels: "1" }), null);
  assert.equal(shapeSize({ aspect_ratio: "toString", megapixels: "length" }), null);
  assert.equal(shapeSize({ aspect_ratio: "custom", width: 512 }), null);
  assert.equal(shapeSize({ aspect_ratio: "custom", width: 512, height: NaN }), null);
});

test("the route is the planner's", () => {
  assert.equal(ROUTES.length, 8);
  const fast = { go_fast: true, image: false, custom: false };
  assert.deepEqual(routeOf(fast), { route: "fast", reason: "go_fast" });
  assert.equal(routeOf({ ...fast, custom: true }).reason, "custom size");
  assert.equal(routeOf({ ...fast, image: true }).route, "bf16");
});

test("the hint on steps comes where the planner warns", () => {
  for (const { model, steps, needless } of vectors.steps)
    assert.equal(hasNeedlessSteps(model, steps), needless, `${model} ${steps}`);
  assert.equal(hasNeedlessSteps("schnell", undefined), false);
});
