// Requests into a form and out of it, where something is connected.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { speaker } from "../../js/lib/words.mjs";
import { Pictures } from "../../js/ui/pictures.mjs";
import { copyRequest, pasteRequest } from "../../js/ui/requests.mjs";
import { formIn, Graph } from "./graph.mjs";

const say = speaker(null, "en");
const pictures = new Pictures({ apiURL: (path) => path }, () => {});
pictures.measure = () => ({ width: 500, height: 300 });
const shared = { text: "" };

before(() => {
  const clipboard = { readText: async () => shared.text, writeText: async (text) => (shared.text = text) };
  Object.defineProperty(globalThis, "navigator", { value: { clipboard }, configurable: true });
});

/** A form with pictures in its fields and, by another wire, over one of them. */
function wired({ socket, mode = 0 }) {
  const graph = new Graph();
  const form = formIn(graph, { image: "a.png", mask: "b.png" });
  graph.connect(graph.add("LoadImage", { widgets: { image: "c.png" }, inputs: [], mode }), "IMAGE", form, socket);
  const said = [];
  const app = { extensionManager: { toast: { add: ({ detail }) => said.push(detail) } } };
  return { form, app, said };
}

const CASES = {
  "an image": [{ socket: "input_image" }, ["mask"], "Left out, because they are connected: input_image"],
  "a mask": [{ socket: "input_mask" }, ["image"], "Left out, because they are connected: input_mask"],
  "an image from a muted node": [{ socket: "input_image", mode: 2 }, ["image", "mask"], undefined],
};

for (const [name, [wires, left, detail]] of Object.entries(CASES)) {
  test(`a request is copied without what ${name} over a wire is used instead of`, async () => {
    const { form, app, said } = wired(wires);
    await copyRequest(app, form, say, pictures);
    const copied = Object.keys(JSON.parse(shared.text));
    assert.deepEqual(copied.filter((field) => ["image", "mask"].includes(field)), left);
    assert.deepEqual(said, [detail]);
  });

  test(`a request is pasted, and told is what ${name} over a wire is used instead of`, async () => {
    const { form, app, said } = wired(wires);
    shared.text = JSON.stringify({ prompt: "a hen", image: "d.png", mask: "e.png" });
    await pasteRequest(app, form, say);
    assert.equal(form.widgets.find((widget) => widget.name === "image").value, "d.png");
    assert.deepEqual(said, [detail]);
  });
}

test("a field that is wired from a muted node is left out of a copy", async () => {
  const graph = new Graph();
  const form = formIn(graph);
  graph.connect(graph.add("PrimitiveString", { widgets: { value: "a hen" }, inputs: [], mode: 2 }), "", form, "prompt");
  const said = [];
  await copyRequest({ extensionManager: { toast: { add: ({ detail }) => said.push(detail) } } }, form, say, pictures);
  assert.equal("prompt" in JSON.parse(shared.text), false);
  assert.deepEqual(said, ["Left out, because they are connected: prompt"]);
});
