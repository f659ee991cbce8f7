import assert from "node:assert/strict";
import { test } from "node:test";
import { allNodes, formBefore, originOf, selectedForm } from "../../js/ui/nodes.mjs";
import { Pictures } from "../../js/ui/pictures.mjs";
import { useSeed } from "../../js/ui/requests.mjs";
import { DECIDED, restWhileUnused, showUnused } from "../../js/ui/unused.mjs";
import { formOf, valueOf } from "../../js/ui/values.mjs";
import { formIn, Graph, recorded } from "./graph.mjs";

const pictures = new Pictures({ apiURL: (path) => path }, () => {});
pictures.measure = () => ({ width: 500, height: 300 });

test("the form behind a request is found through reroutes", () => {
  const graph = new Graph();
  const form = formIn(graph);
  const latent = graph.add("FluxHotswapLatent");
  const reroute = graph.add("Reroute", { inputs: [""] });
  assert.equal(formOf(latent), null);
  graph.connect(reroute, "", latent, "request");
  assert.equal(formOf(latent), null, "nothing comes into the reroute");
  graph.connect(form, "request", reroute, "");
  assert.equal(formOf(latent), form);
  form.mode = 2;
  assert.equal(formOf(latent), null, "a muted form hands nothing out");
});

test("what another pack's node hands on cannot be told", () => {
  const graph = new Graph();
  const latent = graph.add("FluxHotswapLatent");
  graph.connect(graph.add("Switch"), "", latent, "request");
  assert.equal(formOf(latent), undefined);
  assert.equal(valueOf(latent, "request", pictures), undefined);
});

test("a ring of reroutes has no end", () => {
  const graph = new Graph();
  const [one, two] = [1, 2].map(() => graph.add("Reroute", { inputs: [""] }));
  graph.connect(one, "", two, "");
  graph.connect(two, "", one, "");
  assert.equal(originOf(one, ""), undefined);
});

for (const border of [-10, "-10"])
  test(`the form is found from inside a subgraph, where the border is ${JSON.stringify(border)}`, () => {
    const [graph, inner] = [new Graph(), new Graph()];
    inner.rootGraph = graph;
    const form = formIn(graph);
    const host = graph.add("uuid", { subgraph: inner, inputs: ["other", "request"] });
    const latent = inner.add("FluxHotswapLatent");
    inner.links[9] = { origin_id: border, origin_slot: 1 };
    latent.inputs[0].link = 9;
    assert.equal(formOf(latent), null);
    graph.connect(form, "request", host, "request");
    assert.equal(formOf(latent), form);
    inner.rootGraph = new Graph();
    assert.equal(formOf(latent), undefined, "a subgraph that stands nowhere");
  });

test("what a subgraph that stands twice gets cannot be told, and it is looked through once", () => {
  const [graph, inner, deep] = [new Graph(), new Graph(), new Graph()];
  inner.rootGraph = deep.rootGraph = graph;
  for (const prompt of ["one", "two"]) {
    const host = graph.add("uuid", { subgraph: inner });
    graph.connect(formIn(graph, { prompt }), "request", host, "request");
  }
  inner.add("uuid", { subgraph: deep });
  const latents = [inner, deep].map((at) => at.add("FluxHotswapLatent"));
  for (const at of [inner, deep]) at.links[9] = { origin_id: -10, origin_slot: 0 };
  for (const node of [inner.nodes[0], ...latents]) node.inputs[0].link = 9;
  assert.deepEqual(latents.map(formOf), [undefined, undefined]);
  assert.equal(new Set(allNodes(graph)).size, allNodes(graph).length);
});

test("the form is found inside a subgraph", () => {
  const [graph, inner] = [new Graph(), new Graph()];
  const form = formIn(inner);
  const host = graph.add("uuid", { subgraph: inner, outputs: [{ name: "request" }] });
  const latent = graph.add("FluxHotswapLatent");
  graph.connect(host, "request", latent, "request");
  assert.equal(formOf(latent), null);
  const sink = inner.add("sink");
  inner.outputs = [{ linkIds: [inner.connect(form, "request", sink, "request")] }];
  assert.equal(formOf(latent), form);
});

/** What a node reads from an output of a form, and from the same one of a Fields node behind it. */
function readings(changed, name) {
  const graph = new Graph();
  const form = formIn(graph, changed);
  const fields = graph.add("FluxHotswapFields");
  graph.connect(form, "request", fields, "request");
  return [form, fields].map((source) => {
    const reader = graph.add("Reader", { widgets: { it: null } });
    if (!source.outputs.some((output) => output.name === name)) return "no such output";
    graph.connect(source, name, reader, "it");
    return valueOf(reader, "it", pictures);
  });
}

test("fields are read through", () => {
  assert.deepEqual(readings({}, "prompt"), ["a fox", "a fox"]);
  assert.deepEqual(readings({}, "megapixels"), ["no such output", "1"]);
});

test("a size is the one that is decided", () => {
  assert.deepEqual(readings({}, "width"), [1344, 1344]);
  assert.deepEqual(readings({ aspect_ratio: "custom" }, "width"), [1008, 1008]);
  assert.deepEqual(readings({ image: "a.png" }, "height"), [304, 304]);
  assert.deepEqual(readings({ image: "https://example.com/a.png" }, "height"), [undefined, undefined]);
});

test("go_fast is whether the fast model runs", () => {
  assert.equal(readings({}, "go_fast")[1], true);
  assert.equal(readings({ aspect_ratio: "custom" }, "go_fast")[1], false);
  assert.equal(readings({ image: "a.png" }, "go_fast")[1], false);
  assert.equal(readings({ go_fast: undefined }, "go_fast")[1], undefined);
});

test("a Fields node without a form hands out what is not known", () => {
  const graph = new Graph();
  const reader = graph.add("Reader", { widgets: { it: 3 } });
  graph.connect(graph.add("FluxHotswapFields"), "seed", reader, "it");
  assert.equal(valueOf(reader, "it", pictures), undefined);
});

test("the picture of a form is found through its outputs", () => {
  const graph = new Graph();
  const form = formIn(graph, { image: "a.png" });
  const fields = graph.add("FluxHotswapFields");
  const latent = graph.add("FluxHotswapLatent", { inputs: ["image"] });
  graph.connect(fields, "image", latent, "image");
  assert.deepEqual(pictures.connected(latent, "image"), { given: true, size: null });
  graph.connect(form, "request", fields, "request");
  assert.deepEqual(pictures.connected(latent, "image"), { given: true, size: { width: 500, height: 300 } });
});

const SILENT = { "a muted node": [2, undefined], "a bypassed node": [4, "a fox"] };

for (const [name, [mode, value]] of Object.entries(SILENT))
  test(`what a field is that is wired from ${name}`, () => {
    const graph = new Graph();
    const form = formIn(graph);
    const reroute = graph.add("Reroute", { inputs: [""] });
    graph.connect(graph.add("PrimitiveString", { inputs: [], widgets: {}, mode }), "", reroute, "");
    graph.connect(reroute, "", form, "prompt");
    assert.equal(valueOf(form, "prompt", pictures), value);
  });

const BYPASSED = {
  "the same slot, if its type fits": [["IMAGE", "IMAGE"], "IMAGE", 0],
  "else the first input of the type": [["MASK", "IMAGE", "IMAGE"], "IMAGE", 1],
  "any type fits": [["*"], "IMAGE", 0],
  "one type of several fits": [["MASK", "LATENT,IMAGE"], "IMAGE", 1],
  "an output of any type": [["IMAGE"], "*", 0],
  "nothing fits": [["MASK", "LATENT"], "IMAGE", undefined],
};

for (const [name, [types, made, slot]] of Object.entries(BYPASSED))
  test(`a bypassed node hands on what comes into it: ${name}`, () => {
    const graph = new Graph();
    const form = formIn(graph);
    const inputs = types.map((_, index) => `in${index}`);
    const typed = Object.fromEntries([["", made], ...types.map((type, index) => [`in${index}`, type])]);
    const scale = graph.add("ImageScale", { inputs, types: typed, mode: 4 });
    const loaders = inputs.map((input) => {
      const loader = graph.add("Loader");
      graph.connect(loader, "", scale, input);
      return loader;
    });
    graph.connect(scale, "", form, "input_image");
    assert.equal(originOf(form, "input_image")?.node, loaders[slot]);
    scale.mode = 2;
    assert.equal(originOf(form, "input_image"), null, "a muted node hands nothing on");
  });

test("a request goes through a bypassed reroute, and not through a bypassed form", () => {
  const graph = new Graph();
  const form = formIn(graph);
  const latent = graph.add("FluxHotswapLatent", { types: { request: "FLUX_HOTSWAP_REQUEST" } });
  const reroute = graph.add("Reroute", { inputs: [""], types: { "": "*" }, mode: 4 });
  graph.connect(form, "request", reroute, "");
  graph.connect(reroute, "", latent, "request");
  assert.equal(formOf(latent), form);
  for (const input of form.inputs) input.type ??= "STRING";
  form.mode = 4;
  assert.equal(formOf(latent), null);
});

const WIRED = {
  "a file name": [{ value: "a.png" }, { given: true, size: { width: 500, height: 300 } }],
  "a blank text": [{ value: " " }, { given: false }],
  "a muted node": [{ value: "a.png", mode: 2 }, { given: false }],
  "a muted node, over a name in the widget": [{ value: "a.png", mode: 2, own: "b.png" }, { given: true, size: null }],
  "a node of another pack": [{ value: "", kind: "Switch" }, { given: true, size: null }],
};

for (const [name, [{ value, mode = 0, kind = "PrimitiveString", own = "" }, picture]] of Object.entries(WIRED))
  test(`a form's image text comes from ${name}`, () => {
    const graph = new Graph();
    const form = formIn(graph, { image: own });
    graph.connect(graph.add(kind, { widgets: { value }, mode }), "", form, "image");
    assert.deepEqual(pictures.ofForm(form), picture);
  });

test("a form's image text on the border of a subgraph cannot be told", () => {
  const [graph, inner] = [new Graph(), new Graph()];
  inner.rootGraph = graph;
  const form = formIn(inner);
  const host = graph.add("uuid", { subgraph: inner, inputs: ["image"] });
  host.inputs[0].widget = { name: "image" };
  inner.links[9] = { origin_id: -10, origin_slot: 0 };
  form.inputs.find((input) => input.name === "image").link = 9;
  assert.deepEqual(pictures.ofForm(form), { given: true, size: null });
});

test("what a request decides are widgets of the nodes that take one", () => {
  const takers = Object.keys(recorded).filter((name) => "request" in (recorded[name].input.optional ?? {}));
  assert.deepEqual(Object.keys(DECIDED).sort(), takers.sort());
  for (const [name, widgets] of Object.entries(DECIDED)) {
    const { required, optional } = recorded[name].input;
    const known = [...Object.keys({ ...required, ...optional }), "control_after_generate"];
    assert.deepEqual(widgets.filter((widget) => !known.includes(widget)), [], name);
  }
});

function noise() {
  const graph = new Graph();
  const form = formIn(graph);
  const node = graph.add("FluxHotswapNoise", { widgets: { seed: 5, control_after_generate: "randomize", source: "hosted" } });
  return { node, form, cut: () => (node.inputs[0].link = null), connect: () => graph.connect(form, "request", node, "request") };
}

test("widgets are greyed while the request is connected", () => {
  const { node, cut, connect } = noise();
  const greyed = () => node.widgets.filter(({ disabled }) => disabled).map(({ name }) => name);
  showUnused(node);
  assert.deepEqual(greyed(), []);
  connect();
  showUnused(node);
  assert.deepEqual(greyed(), ["seed", "control_after_generate"]);
  cut();
  showUnused(node);
  assert.deepEqual(greyed(), []);
});

test("a control that nobody may grey does no harm", () => {
  const { node, connect } = noise();
  Object.defineProperty(node.widgets[1], "disabled", { get: () => node.widgets[0].disabled });
  connect();
  showUnused(node);
  assert.deepEqual(node.widgets.map(({ disabled }) => Boolean(disabled)), [true, true, false]);
});

test("a control rests while the request is connected", () => {
  const { node, cut, connect } = noise();
  const ran = [];
  node.widgets[1].afterQueued = () => ran.push("after");
  restWhileUnused(node);
  connect();
  node.widgets[1].afterQueued();
  assert.deepEqual(ran, []);
  cut();
  node.widgets[1].afterQueued();
  assert.deepEqual(ran, ["after"]);
});

test("a picture's form is the one its node hangs on, over any wires", () => {
  const graph = new Graph();
  const [other, form] = [formIn(graph), formIn(graph)];
  const noise = graph.add("FluxHotswapNoise");
  const sampler = graph.add("Sampler", { inputs: ["noise", "again"] });
  const save = graph.add("FluxHotswapSave", { inputs: ["images", "request"] });
  assert.equal(formBefore(save), undefined);
  graph.connect(form, "request", noise, "request");
  graph.connect(noise, "NOISE", sampler, "noise");
  graph.connect(sampler, "", sampler, "again"); // a circle, as a graph may have while it is changed
  graph.connect(sampler, "", save, "images");
  assert.equal(formBefore(save), form);
  graph.connect(other, "request", save, "request");
  assert.equal(formBefore(save), other, "the nearest");
  assert.equal(selectedForm({ graph }), undefined, "there are two");
  assert.equal(selectedForm({ graph, canvas: { selected_nodes: { 1: form } } }), form);
});

test("a seed goes into a form in one step, and not over a wire", () => {
  const steps = [];
  const canvas = { emitBeforeChange: () => steps.push("before"), emitAfterChange: () => steps.push("after") };
  const toast = { add: ({ severity }) => steps.push(severity) };
  const app = { canvas, extensionManager: { toast } };
  const graph = new Graph();
  const form = formIn(graph, { seed: 1, control_after_generate: "randomize" });
  const values = () => ["seed", "control_after_generate"].map((name) => form.widgets.find((widget) => widget.name === name).value);
  useSeed(app, undefined, 7, String);
  useSeed(app, form, 7, String);
  assert.deepEqual(values(), [7, "fixed"]);
  graph.connect(graph.add("PrimitiveInt"), "", form, "seed");
  useSeed(app, form, 8, String);
  assert.deepEqual(values(), [7, "fixed"]);
  assert.deepEqual(steps, ["warn", "before", "after", "success", "warn"]);
});
