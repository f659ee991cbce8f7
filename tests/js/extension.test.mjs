// The extension in editors that lack what it uses: it must do nothing there, and break nothing.
import assert from "node:assert/strict";
import { test } from "node:test";

const registered = [];
globalThis.stand_in_app = { registerExtension: (given) => registered.push(given) };
globalThis.stand_in_api = {};
await import("../../js/index.js");
const [ours] = registered;

test("a second copy of the pack steps aside with one line", async () => {
  const said = [];
  const warn = console.warn;
  console.warn = (line) => said.push(line);
  globalThis.stand_in_app.extensions = registered;
  try {
    await import("../../js/index.js?second");
  } finally {
    console.warn = warn;
    delete globalThis.stand_in_app.extensions;
  }
  assert.equal(registered.length, 1);
  assert.equal(said.length, 1);
  assert.match(said[0], /^flux-hotswap is installed twice; .*second does nothing/);
});

const tick = () => new Promise((done) => setTimeout(done, 5));
const KINDS = ["FluxHotswapInputs", "FluxHotswapLatent", "FluxHotswapLora", "FluxHotswapSave"];

test("one extension is registered", () => {
  assert.equal(registered.length, 1);
  assert.equal(ours.name, "flux-hotswap");
  assert.deepEqual(ours.commands.map(({ id }) => id), ["FluxHotswap.PasteRequest", "FluxHotswap.CopyRequest"]);
});

test("no hook needs more than an app and an api that can do nothing", async () => {
  await ours.setup();
  ours.afterConfigureGraph();
  await ours.refreshComboInNodes();
  for (const comfyClass of [...KINDS, "LoadImage", "KSampler", undefined]) ours.nodeCreated({ comfyClass });
  for (const command of ours.commands) await command.function();
  await tick();
});

test("nodes without DOM widgets keep their own behaviour", async () => {
  const said = [];
  const widget = { name: "aspect_ratio", value: "1:1", callback: (value) => said.push(value) };
  const sides = ["width", "height"].map((name) => ({ name, value: 1024, options: {} }));
  const node = {
    comfyClass: "FluxHotswapInputs",
    widgets: [widget, ...sides],
    inputs: [],
    onConfigure: () => said.push("configured"),
  };
  globalThis.stand_in_app.graph = { nodes: [node] };
  ours.nodeCreated(node);
  await tick();
  assert.deepEqual(sides.map((side) => side.hidden), [true, true]);
  widget.value = "custom";
  widget.callback("custom");
  node.onConfigure();
  await tick();
  assert.deepEqual(said, ["custom", "configured"]);
  assert.deepEqual(sides.map((side) => side.hidden), [false, false]);
});

test("a node that cannot be read stops no other", async (context) => {
  const warn = context.mock.method(console, "warn", () => {});
  const sides = ["width", "height"].map((name) => ({ name, value: 1024, options: {} }));
  const widgets = [{ name: "aspect_ratio", value: "1:1" }, ...sides];
  const odd = { comfyClass: "FluxHotswapLatent", get inputs() { throw new Error("odd"); } };
  const form = { comfyClass: "FluxHotswapInputs", widgets, inputs: [] };
  globalThis.stand_in_app.graph = { nodes: [odd, form] };
  ours.nodeCreated(form);
  await tick();
  assert.deepEqual(sides.map((side) => side.hidden), [true, true]);
  assert.equal(warn.mock.callCount(), 1);
  globalThis.stand_in_app.graph = { nodes: [] };
});

test("the menu has our entries on the form only", () => {
  assert.deepEqual(ours.getNodeMenuItems({ comfyClass: "KSampler" }), []);
  const entries = ours.getNodeMenuItems({ comfyClass: "FluxHotswapInputs" });
  assert.deepEqual(entries.map(({ content }) => content), ["Paste request JSON", "Copy request JSON"]);
});

test("node definitions are loaded anew: then the language is the editor's by now", async () => {
  const catalogue = { de: { fluxHotswap: { paste: "Anfrage einfügen" } } };
  const [app, api] = [globalThis.stand_in_app, globalThis.stand_in_api];
  const label = async () => {
    await ours.refreshComboInNodes();
    return ours.getNodeMenuItems({ comfyClass: "FluxHotswapInputs" })[0].content;
  };
  api.fetchApi = async () => ({ json: async () => catalogue });
  app.extensionManager = { setting: { get: () => "de" } };
  assert.equal(await label(), "Anfrage einfügen");
  delete api.fetchApi;
  assert.equal(await label(), "Anfrage einfügen", "also while the server is away");
  api.fetchApi = async () => ({ json: async () => catalogue });
  app.extensionManager.setting.get = () => "en";
  assert.equal(await label(), "Paste request JSON");
  delete api.fetchApi;
  delete app.extensionManager;
});

test("nothing global is replaced", () => {
  assert.deepEqual(Object.keys(globalThis.stand_in_app).sort(), ["graph", "registerExtension"]);
  assert.deepEqual(Object.keys(globalThis.stand_in_api), []);
});
