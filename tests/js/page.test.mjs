// What the API's page shows of a prediction.

import assert from "node:assert/strict";
import { test } from "node:test";

import { progressOf, shown } from "../../hosted_api/page/read.mjs";

const START = "http://127.0.0.1:5000/hotswap";
const PREDICTION = {
    id: "abc",
    model: "owner/name",
    version: "hidden",
    status: "processing",
    input: { prompt: "a fox" },
    output: null,
    error: null,
    logs: "Using seed: 7\n",
    metrics: {},
    created_at: "2026-11-28T15:00:00.123456Z",
    data_removed: false,
    urls: { get: `${START}/v1/predictions/abc` },
};

test("a prediction that runs", () => {
    assert.deepEqual(shown(PREDICTION), {
        id: "abc",
        status: "processing",
        open: true,
        model: "owner/name",
        created: "2026-11-28T15:00:00.123456Z",
        prompt: "a fox",
        error: "",
        removed: false,
        progress: 0,
        seconds: "",
        pictures: [],
        addresses: [],
    });
});

test("a version is shown short", () => {
    assert.equal(shown({ ...PREDICTION, version: "6".repeat(64) }).model, "owner/name:666666666666");
});

test("progress is that of the last line that tells one", () => {
    const line = (/** @type {number} */ percent) =>
        ` ${percent}%|███       | 14/28 [00:01<00:01, 9.3it/s]`;
    assert.equal(progressOf(""), 0);
    assert.equal(progressOf(`${line(4)}\n${line(50)}\nsaved\n`), 0.5);
    assert.equal(progressOf(`${line(4)}\r${line(75)}`), 0.75);
    assert.equal(progressOf("900%|x| 1/1"), 1);
    assert.equal(progressOf("it is 50% done"), 0);
});

test("pictures of this server are below this page, whatever it is called", () => {
    const own = `${START}/v1/outputs/abc/1-0.png?expires=1&signature=x`;
    const given = [own, "data:image/png;base64,AA==", "https://cdn.example/1.png",
        "s3://bucket/1.png", "http://other/v1/outputs/1.png", "javascript:alert(1)",
        "data:text/html,x", 7];
    const { pictures, addresses } = shown({ ...PREDICTION, status: "succeeded", output: given });
    assert.deepEqual(pictures, ["v1/outputs/abc/1-0.png?expires=1&signature=x", given[1], given[2]]);
    assert.deepEqual(addresses, given.slice(3, 7));
});

test("what is odd shows as nothing", () => {
    const odd = { ...PREDICTION, status: "x y", input: {}, metrics: { predict_time: 1.26 },
        error: "why", data_removed: true, urls: {}, output: "text" };
    const now = shown(odd);
    assert.deepEqual([now.status, now.open, now.prompt, now.progress], ["unknown", false, "", null]);
    assert.deepEqual([now.seconds, now.error, now.removed], ["1.3 s", "why", true]);
    assert.deepEqual([now.pictures, now.addresses], [[], []]);
});
