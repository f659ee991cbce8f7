// How large a picture is, where its file comes late or is another one by now.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { Pictures } from "../../js/ui/pictures.mjs";

/** Pictures whose files arrive when the test says so. */
function looking() {
  const asked = [];
  globalThis.Image = class {
    constructor() {
      asked.push(this);
    }
  };
  const told = { count: 0 };
  const pictures = new Pictures({ apiURL: (path) => path }, () => told.count++);
  const arrive = (image, side) => Object.assign(image, { naturalWidth: side, naturalHeight: side }).onload();
  return { asked, told, arrive, pictures, size: () => pictures.named("a.png").size };
}

afterEach(() => delete globalThis.Image);

test("a file is looked at once", () => {
  const { asked, told, arrive, size } = looking();
  for (const _ of [1, 2]) assert.equal(size(), null);
  arrive(asked[0], 64);
  assert.deepEqual([size(), told.count, asked.length], [{ width: 64, height: 64 }, 1, 1]);
});

test("a file that is not there is looked for again, after a while", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { asked, arrive, size } = looking();
  size();
  asked[0].onerror();
  for (const [ms, times] of [[100, 1], [100, 1], [3000, 2]]) {
    context.mock.timers.tick(ms);
    assert.equal(size(), null);
    assert.equal(asked.length, times);
  }
  arrive(asked[1], 64);
  assert.deepEqual(size(), { width: 64, height: 64 });
});

test("a file that may be another one by now is looked at anew", () => {
  const { asked, arrive, pictures, size } = looking();
  size();
  pictures.forget();
  size();
  arrive(asked[1], 32);
  arrive(asked[0], 64); // late
  assert.deepEqual(size(), { width: 32, height: 32 });
  pictures.reload();
  size();
  assert.equal(asked[0].src, asked[1].src);
  assert.notEqual(asked[2].src, asked[1].src, "the browser has kept that");
});
