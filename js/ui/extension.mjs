// What we add to the editor: lines on our nodes, menu entries and commands of the Inputs node.
// @ts-check

import { speaker } from "../lib/words.mjs";
import { attempt, chain } from "./chain.mjs";
import { Downloads } from "./downloads.mjs";
import { watchDrops } from "./drops.mjs";
import { keepHeight } from "./heights.mjs";
import { inputRows, latentRows, loraRows } from "./rows.mjs";
import { styleRows } from "./sheet.mjs";
import { showSides } from "./sides.mjs";
import { allNodes, INPUTS, kindOf, LATENT, LORA, SAVE, selectedForm } from "./nodes.mjs";
import { addPanel } from "./panel.mjs";
import { Pictures } from "./pictures.mjs";
import { copyRequest, pasteRequest } from "./requests.mjs";
import { saveRows } from "./results.mjs";
import { Runs } from "./runs.mjs";
import { Sources } from "./sources.mjs";
import { Suggestions } from "./suggest.mjs";
import { Prompts } from "./tokens.mjs";
import { restWhileUnused, showUnused } from "./unused.mjs";

/** @typedef {import("./nodes.mjs").Node} Node */
/** @typedef {import("./panel.mjs").Panel} Panel */

/** @type {Record<string, (node: Node, world: World) => HTMLElement[]>} */
const ROWS = { [INPUTS]: inputRows, [LATENT]: latentRows, [LORA]: loraRows, [SAVE]: saveRows };

/**
 * What the rows are made of.
 *
 * @typedef {object} World
 * @property {import("./nodes.mjs").App} app
 * @property {import("./nodes.mjs").Api} api
 * @property {import("../lib/words.mjs").Say} say
 * @property {Pictures} pictures
 * @property {Prompts} prompts
 * @property {Sources} sources
 * @property {Downloads} downloads
 * @property {Runs} runs
 * @property {() => void} refresh - all rows, soon
 */

/**
 * The extension to register.
 *
 * @param {import("./nodes.mjs").App} app
 * @param {import("./nodes.mjs").Api} api
 * @returns {import("@comfyorg/comfyui-frontend-types").ComfyExtension}
 */
export function extension(app, api) {
  /** @type {WeakMap<Node, Panel>} */
  const panels = new WeakMap();
  const refresh = later(() => refreshAll());
  /** @type {World} */
  const world = {
    app,
    api,
    say: speaker(null, "en"),
    pictures: new Pictures(api, refresh),
    prompts: new Prompts(api, refresh),
    sources: new Sources(api, refresh),
    downloads: new Downloads(app, api, lookAgain, refresh),
    runs: new Runs(api, refresh),
    refresh,
  };

  const suggestions = new Suggestions(app, api, () => world.say, lookAgain);

  /** Ask about LoRAs again: files have come, or gone. */
  function lookAgain() {
    world.sources.forget();
    refresh();
  }

  async function learnLanguage() {
    world.say = (await speakerOf(app, api)) ?? world.say;
    refresh();
  }

  const shownGraph = () => app.canvas?.graph ?? app.graph;

  /** @param {Node} node */
  function refreshNode(node) {
    const panel = panels.get(node);
    const rows = ROWS[kindOf(node)];
    if (panel && rows) panel.show(rows(node, world));
    if (node.graph === shownGraph()) panel?.takePlace();
    showSides(node, world.pictures);
    showUnused(node);
  }

  function refreshAll() {
    const nodes = allNodes(app.rootGraph ?? app.graph).filter(isOurs);
    for (const asked of [world.prompts, world.sources]) asked.begin();
    for (const node of nodes) attempt(() => refreshNode(node));
    styleRows(nodes, shownGraph());
  }

  /** @param {string} id @param {"paste" | "copy"} key @param {Function} act */
  const command = (id, key, act) => ({
    id,
    label: `FLUX Hotswap: ${world.say(key)}`,
    icon: key === "paste" ? "pi pi-file-import" : "pi pi-file-export",
    function: () => act(app, selectedForm(app), world.say, world.pictures),
  });

  return {
    name: "flux-hotswap",
    commands: [
      command("FluxHotswap.PasteRequest", "paste", pasteRequest),
      command("FluxHotswap.CopyRequest", "copy", copyRequest),
    ],
    async setup() {
      watchDrops(app);
      suggestions.listen();
      world.downloads.listen();
      world.runs.listen();
      // A node that is muted, a wire at a reroute: no hook of our own nodes tells of those.
      api.addEventListener?.("graphChanged", refresh);
      app.canvas?.canvas?.addEventListener?.("litegraph:set-graph", refresh);
      await learnLanguage();
    },
    /** @param {Node} node */
    nodeCreated(node) {
      const kind = kindOf(node);
      if (kind in ROWS) keepHeight(node);
      if (kind === "LoadImage" || isOurs(node)) watch(node, refresh);
      if (!isOurs(node)) return;
      restWhileUnused(node);
      suggestions.watch(node);
      const panel = kind in ROWS ? addPanel(node) : null;
      if (panel) panels.set(node, panel);
      refresh();
    },
    onNodeOutputsUpdated: refresh,
    afterConfigureGraph() {
      world.pictures.forget();
      lookAgain();
    },
    /** The editor's key R, and a change of its language. */
    async refreshComboInNodes() {
      world.pictures.reload();
      lookAgain();
      await learnLanguage();
    },
    /** @param {Node} node */
    getNodeMenuItems(node) {
      if (kindOf(node) !== INPUTS) return [];
      return [
        { content: world.say("paste"), callback: () => pasteRequest(app, node, world.say) },
        { content: world.say("copy"), callback: () => copyRequest(app, node, world.say, world.pictures) },
      ];
    },
  };
}

/** @param {Node} node */
function isOurs(node) {
  return String(kindOf(node)).startsWith("FluxHotswap");
}

/**
 * Call `changed` whenever a value or a connection of a node changes.
 *
 * @param {Node} node
 * @param {() => void} changed
 */
function watch(node, changed) {
  for (const widget of node.widgets ?? []) chain(widget, "callback", changed);
  for (const method of ["onConnectionsChange", "onConfigure", "onWidgetChanged"])
    chain(node, method, changed);
}

/**
 * Run something once, soon, however often it is asked for.
 *
 * @param {() => void} run
 */
function later(run) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => {
      waiting = false;
      run();
    }, 0);
  };
}

/**
 * @param {import("./nodes.mjs").App} app
 * @param {import("./nodes.mjs").Api} api
 * @returns {Promise<import("../lib/words.mjs").Say | null>} null: the server has not answered
 */
async function speakerOf(app, api) {
  try {
    const locale = app.extensionManager?.setting?.get?.("Comfy.Locale");
    const answer = await api.fetchApi("/i18n");
    return speaker(await answer.json(), locale);
  } catch {
    return null;
  }
}
