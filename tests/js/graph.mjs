// A graph as the editor's, for tests of what reads it.
import { readFileSync } from "node:fs";

/** What ComfyUI says of our nodes. */
export const recorded = JSON.parse(readFileSync(new URL("../data/object_info.json", import.meta.url)));

/** As much of it as our scripts read. */
export class Graph {
  nodes = [];
  links = {};
  rootGraph = this;

  add(type, { widgets = {}, inputs = ["request"], types = {}, ...more } = {}) {
    const info = recorded[type];
    const node = {
      id: this.nodes.length + 1,
      type,
      comfyClass: type,
      graph: this,
      mode: 0,
      widgets: Object.entries(widgets).map(([name, value]) => ({ name, value })),
      inputs: [...inputs, ...Object.keys(widgets)].map((name) => ({ name, link: null, type: types[name] })),
      outputs: info
        ? info.output_name.map((name, slot) => ({ name, type: info.output[slot] }))
        : [{ name: "", type: types[""] }],
      ...more,
    };
    this.nodes.push(node);
    return node;
  }

  connect(source, output, target, input) {
    const id = Object.keys(this.links).length + 1;
    const origin_slot = source.outputs.findIndex(({ name }) => name === output);
    this.links[id] = { origin_id: source.id, origin_slot };
    target.inputs.find(({ name }) => name === input).link = id;
    return id;
  }

  getNodeById(id) {
    return this.nodes.find((node) => node.id === id);
  }
}

const FIELDS = { prompt: "a fox", image: "", aspect_ratio: "16:9", megapixels: "1", width: 1000, height: 300, go_fast: true };

export function formIn(graph, changed = {}) {
  const inputs = ["input_image", "input_mask"];
  const types = { input_image: "IMAGE", input_mask: "MASK", image: "STRING" };
  return graph.add("FluxHotswapInputs", { widgets: { ...FIELDS, ...changed }, inputs, types });
}
