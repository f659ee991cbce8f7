// Reading the graph: our nodes, and where a connection comes from.
// @ts-check

export const INPUTS = "FluxHotswapInputs";
export const FIELDS = "FluxHotswapFields";
export const LATENT = "FluxHotswapLatent";
export const LORA = "FluxHotswapLora";
export const SAVE = "FluxHotswapSave";

/**
 * The fields that name a LoRA, by the kind of node.
 *
 * @type {Record<string, string[]>}
 */
export const LORA_FIELDS = { [INPUTS]: ["lora", "extra_lora"], [LORA]: ["source"] };

const NEVER = 2;
const BYPASS = 4;
const HOPS = 32;
const BORDER = -10; // stands for the node that a subgraph's inputs come out of

/** @typedef {import("@comfyorg/comfyui-frontend-types").ComfyApp} App */
/** @typedef {import("@comfyorg/comfyui-frontend-types").ComfyApi} Api */
/** @typedef {NonNullable<ReturnType<App["rootGraph"]["getNodeById"]>>} GraphNode */
/**
 * A node with what ComfyUI's editor adds to those of its graph library.
 *
 * @typedef {object} Added
 * @property {(name: string, type: string, element: HTMLElement, options: object) => any} [addDOMWidget]
 * @property {any} [subgraph]
 * @property {{ comfyClass?: string, nodeData?: any }} constructor
 */
/** @typedef {GraphNode & Added} Node */
/** @typedef {{ node: Node, slot: number }} Origin */

/** @param {Node} node */
export function kindOf(node) {
  return node?.comfyClass ?? node?.constructor?.comfyClass ?? node?.type;
}

/**
 * @param {Node} node
 * @param {string} name
 */
export function widgetOf(node, name) {
  return node.widgets?.find((/** @type {any} */ widget) => widget.name === name);
}

/**
 * @param {Node} node
 * @param {string} name
 * @returns {boolean} whether something is connected to the input
 */
export function isLinked(node, name) {
  return linkOf(node, name) != null;
}

/**
 * The node that feeds an input, behind reroutes, bypassed nodes and the borders of subgraphs; null if
 * there is none, undefined if it cannot be told.
 *
 * @param {Node} node
 * @param {string} name
 * @returns {Origin | null | undefined}
 */
export function originOf(node, name) {
  const source = sourceOf(node, name);
  return source && isMuted(source.node) ? null : source;
}

/**
 * The same, but also one that is muted, so that nothing comes from it.
 *
 * @param {Node} node
 * @param {string} name
 * @returns {Origin | null | undefined}
 */
export function sourceOf(node, name) {
  let origin = into(node, name);
  let type = inputOf(node, name)?.type;
  for (let hop = 0; origin && hop < HOPS; hop++) {
    const { node: from, slot } = origin;
    if (isMuted(from)) return origin;
    if (from.mode === BYPASS) {
      const input = passedOn(from, slot, type);
      if (!input) return null;
      origin = into(from, input.name);
      type = input.type;
    } else if (from.subgraph) origin = outOf(from.subgraph, slot);
    else if (from.type === "Reroute") origin = into(from, from.inputs?.[0]?.name);
    else return origin;
  }
  return origin ? undefined : origin;
}

/** @param {Node} node */
export function isMuted({ mode }) {
  return mode === NEVER;
}

/**
 * The input that a bypassed node hands on for one of its outputs, as the editor chooses it.
 *
 * @param {Node} node
 * @param {number} slot - of the output
 * @param {any} type - of the input that it goes into
 */
function passedOn({ inputs = [], outputs }, slot, type) {
  if (!type || type === "*") return inputs[slot] ?? inputs[0];
  const made = outputs?.[slot]?.type;
  const isFit = (/** @type {any} */ input) => input && fits(input.type, made) && fits(input.type, type);
  if (isFit(inputs[slot])) return inputs[slot];
  return inputs.find((input) => input.type === type) ?? inputs.find(isFit);
}

/**
 * @param {any} one - the type of a slot, or several with commas; "*" is any
 * @param {any} other
 */
function fits(one, other) {
  const [these, those] = [one, other].map((type) => String(type || "*").toLowerCase().split(","));
  return these.some((type) => type === "*" || those.includes(type) || those.includes("*"));
}

/**
 * One step of the way to the node that feeds an input.
 *
 * @param {Node} node
 * @param {string} name
 * @returns {Origin | null | undefined}
 */
function into(node, name) {
  const id = linkOf(node, name);
  return id == null ? null : along(node.graph, id);
}

/**
 * The same from an output of a subgraph, seen from inside.
 *
 * @param {any} graph
 * @param {number} slot
 * @returns {Origin | null | undefined}
 */
function outOf(graph, slot) {
  const id = graph.outputs?.[slot]?.linkIds?.[0];
  return id == null ? null : along(graph, id);
}

/**
 * @param {any} graph
 * @param {any} id - of a link
 * @returns {Origin | null | undefined}
 */
function along(graph, id) {
  const link = graph?.getLink?.(id) ?? graph?.links?.[id];
  if (!link) return undefined;
  if (Number(link.origin_id) === BORDER) {
    const hosts = allNodes(graph.rootGraph).filter((node) => node.subgraph === graph);
    if (hosts.length !== 1) return undefined; // of several each hands in its own
    const input = hosts[0].inputs?.[link.origin_slot];
    if (input?.widget && input.link == null) return undefined; // its value stands in that widget
    return into(hosts[0], input?.name ?? "");
  }
  const node = graph.getNodeById?.(link.origin_id);
  return node ? { node, slot: link.origin_slot } : undefined;
}

/**
 * The nearest form that a node hangs on, over any wires.
 *
 * @param {Node} node
 * @returns {Node | undefined}
 */
export function formBefore(node) {
  const seen = new Set([node]);
  for (const at of seen) {
    if (kindOf(at) === INPUTS) return at;
    for (const { name } of at.inputs ?? []) {
      const origin = originOf(at, name);
      if (origin) seen.add(origin.node);
    }
  }
  return undefined;
}

/**
 * The form that is selected, or the only one.
 *
 * @param {App} app
 * @returns {Node | undefined}
 */
export function selectedForm(app) {
  const selected = Object.values(app.canvas?.selected_nodes ?? {});
  const isForm = (/** @type {Node} */ node) => kindOf(node) === INPUTS;
  const forms = allNodes(app.rootGraph ?? app.graph).filter(isForm);
  return selected.find(isForm) ?? (forms.length === 1 ? forms[0] : undefined);
}

/** @param {Origin} origin */
export function outputName({ node, slot }) {
  return node.outputs?.[slot]?.name ?? "";
}

/**
 * Every node of a graph and of the subgraphs in it, once however often a subgraph stands there.
 *
 * @param {any} graph
 * @returns {Node[]}
 */
export function allNodes(graph) {
  const nodes = graph?.nodes ?? graph?._nodes ?? [];
  const all = nodes.flatMap((/** @type {Node} */ node) =>
    node.subgraph ? [node, ...allNodes(node.subgraph)] : [node],
  );
  return [...new Set(all)];
}

/**
 * @param {any} graph
 * @param {unknown} id - as the server names a node: "7", or "3:7" for node 7 of subgraph node 3
 * @returns {Node | undefined}
 */
export function nodeById(graph, id) {
  let at = graph;
  let node;
  for (const part of String(id).split(":")) {
    const number = Number(part);
    node = at?.getNodeById?.(Number.isNaN(number) ? part : number);
    at = node?.subgraph;
  }
  return node ?? undefined;
}

/**
 * @param {Node} node
 * @param {string} name
 */
function linkOf(node, name) {
  return inputOf(node, name)?.link;
}

/**
 * @param {Node} node
 * @param {string} name
 */
function inputOf(node, name) {
  return node.inputs?.find((/** @type {any} */ slot) => slot.name === name);
}
