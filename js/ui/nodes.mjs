// Reading the graph: our nodes, what their inputs hold, where a connection comes from.
// @ts-check

export const INPUTS = "FluxHotswapInputs";
export const LATENT = "FluxHotswapLatent";
export const LORA = "FluxHotswapLora";
export const SAVE = "FluxHotswapSave";

const NEVER = 2;
const BYPASS = 4;
const HOPS = 32;

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
 * The node that feeds an input, behind reroutes; null if there is none, undefined if it cannot be
 * told.
 *
 * @param {Node} node
 * @param {string} name
 * @returns {Origin | null | undefined}
 */
export function originOf(node, name) {
  let at = node;
  let wanted = name;
  for (let hop = 0; hop < HOPS; hop++) {
    const id = linkOf(at, wanted);
    if (id == null) return null;
    const link = at.graph?.getLink?.(id) ?? at.graph?.links?.[id];
    const from = link && at.graph?.getNodeById?.(link.origin_id);
    if (!from) return undefined;
    if (from.mode === NEVER || from.mode === BYPASS) return null;
    if (from.type !== "Reroute") return { node: from, slot: link.origin_slot };
    at = from;
    wanted = from.inputs?.[0]?.name;
  }
  return undefined;
}

/**
 * What an input holds as far as it is known before the graph runs.
 *
 * @param {Node} node
 * @param {string} name
 * @returns {any} undefined: not known
 */
export function valueOf(node, name) {
  if (!isLinked(node, name)) return widgetOf(node, name)?.value;
  const origin = originOf(node, name);
  if (!origin) return undefined;
  if (kindOf(origin.node) === INPUTS) return valueOf(origin.node, outputName(origin));
  const isPrimitive = String(kindOf(origin.node)).startsWith("Primitive");
  return isPrimitive ? origin.node.widgets?.[0]?.value : undefined;
}

/**
 * @param {Node} node
 * @param {readonly string[]} names
 * @returns {Record<string, any>}
 */
export function valuesOf(node, names) {
  return Object.fromEntries(names.map((name) => [name, valueOf(node, name)]));
}

/** @param {Origin} origin */
export function outputName({ node, slot }) {
  return node.outputs?.[slot]?.name ?? "";
}

/**
 * Every node of a graph and of the subgraphs in it.
 *
 * @param {any} graph
 * @returns {Node[]}
 */
export function allNodes(graph) {
  const nodes = graph?.nodes ?? graph?._nodes ?? [];
  return nodes.flatMap((/** @type {Node} */ node) =>
    node.subgraph ? [node, ...allNodes(node.subgraph)] : [node],
  );
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
  return node.inputs?.find((/** @type {any} */ slot) => slot.name === name)?.link;
}
