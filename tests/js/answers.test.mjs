// What is asked about texts while they are typed, and what is kept of the answers.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Sources } from "../../js/ui/sources.mjs";
import { Prompts } from "../../js/ui/tokens.mjs";

const TOLD = { t5: 3, clip: 3 };

/** Prompts whose server is ours, and a clock that only `pause` moves. */
function asking(context, answer = async () => ({ ok: true, json: async () => TOLD })) {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const asked = [];
  const told = { count: 0 };
  const fetchApi = (_route, { body }) => {
    asked.push(Object.values(JSON.parse(body))[0]);
    return answer();
  };
  const given = [{ fetchApi }, () => told.count++];
  return { prompts: new Prompts(...given), sources: new Sources(...given), asked, told };
}

/** What a refresh gets that shows one text. */
function refresh(answers, text) {
  answers.begin();
  return answers.about(text);
}

async function pause(context, ms = 300) {
  context.mock.timers.tick(ms);
  for (let turn = 0; turn < 10; turn++) await null;
}

test("of a text that is typed only the end is asked about", async (context) => {
  const { prompts, asked } = asking(context);
  for (const text of ["a", "a f", "a fox"]) {
    assert.equal(refresh(prompts, text), null);
    await pause(context, 60);
  }
  await pause(context);
  assert.deepEqual(asked, ["a fox"]);
  assert.deepEqual(refresh(prompts, "a fox"), TOLD);
});

test("all texts of one refresh are asked about", async (context) => {
  const { prompts, asked } = asking(context);
  prompts.begin();
  for (const text of ["one", "two"]) prompts.about(text);
  await pause(context);
  assert.deepEqual(asked, ["one", "two"]);
});

const FAILURES = {
  "the server is away": async () => {
    throw new TypeError("failed to fetch");
  },
  "the server has failed": async () => ({ ok: false, json: async () => ({}) }),
};

for (const [name, answer] of Object.entries(FAILURES))
  test(`where ${name} the next refresh asks again, and nothing before it`, async (context) => {
    const { prompts, asked, told } = asking(context, answer);
    for (const times of [1, 2]) {
      assert.equal(refresh(prompts, "a fox"), null);
      await pause(context);
      await pause(context, 60_000);
      assert.deepEqual([asked.length, told.count], [times, 0]);
    }
  });

test("an answer that is no longer asked for does not count", async (context) => {
  const answers = [];
  const { sources, told } = asking(context, () => new Promise((done) => answers.push(done)));
  refresh(sources, "a/b");
  await pause(context);
  sources.forget();
  answers[0]({ ok: true, json: async () => ({ kind: "replicate", name: "old" }) });
  await pause(context);
  assert.deepEqual([refresh(sources, "a/b"), told.count], [null, 0]);
  await pause(context);
  answers[1]({ ok: true, json: async () => ({ kind: "replicate", name: "new" }) });
  await pause(context);
  assert.equal(refresh(sources, "a/b")?.name, "new");
});

test("what was told stays until it is told anew", async (context) => {
  const kinds = ["replicate", "link"];
  const { sources, asked } = asking(context, async () => ({ ok: true, json: async () => ({ kind: kinds.shift() }) }));
  refresh(sources, "a/b");
  await pause(context);
  for (const times of [1, 2]) {
    sources.forget();
    assert.equal(refresh(sources, "a/b")?.kind, "replicate", `forgotten ${times} times`);
  }
  await pause(context);
  assert.deepEqual([refresh(sources, "a/b")?.kind, asked.length], ["link", 2]);
});

test("what is inside a file stays while the same file is looked into again", async (context) => {
  const file = { kind: "local", file: "a.safetensors", size: 3 };
  const looked = { ...file, inside: { refused: null, words: ["m1x"] } };
  const [fast, other, slow] = [file, { ...file, size: 4 }, looked].map((told) => async () => ({ ok: true, json: async () => told }));
  const never = () => new Promise(() => {});
  const answers = [fast, slow, fast, never, other, never];
  const { sources } = asking(context, () => answers.shift()());
  for (const inside of [looked.inside, looked.inside, undefined]) {
    sources.forget();
    refresh(sources, "a.safetensors");
    await pause(context);
    assert.deepEqual(refresh(sources, "a.safetensors").inside, inside);
  }
});

test("refreshes without a pause put no question off, and ask none twice", async (context) => {
  const { prompts, asked } = asking(context, () => new Promise(() => {}));
  for (let event = 0; event < 20; event++) {
    refresh(prompts, "a fox");
    await pause(context, 100);
  }
  assert.deepEqual(asked, ["a fox"]);
});
