// A JPEG of ours, dropped on the editor, brings its graph back as a png or webp does. The editor
// reads no JPEG by itself, and has no hook for files.
// @ts-check

import { graphIn, HEAD_BYTES } from "../lib/exif.mjs";

/** @typedef {import("./nodes.mjs").App} App */

/**
 * Listen below the editor's own listener: what takes files itself (a node, a panel) has had its turn
 * by then, and all that is not ours goes on to the editor.
 *
 * @param {App} app
 */
export function watchDrops(app) {
  if (typeof document === "undefined") return;
  document.documentElement.addEventListener("drop", (event) => {
    const file = ourKind(event);
    if (!file || app.dragOverNode?.onDragDrop) return;
    event.preventDefault(); // the browser would leave the page and open the file
    event.stopPropagation();
    void take(app, file, event);
  });
}

/** @param {DragEvent} event */
function ourKind(event) {
  const files = event.dataTransfer?.files ?? [];
  const isOne = files.length === 1 && files[0].type === "image/jpeg";
  return isOne && !event.defaultPrevented ? files[0] : null;
}

/**
 * @param {App} app
 * @param {File} file
 * @param {DragEvent} event
 */
async function take(app, file, event) {
  const graph = await graphOf(file);
  if (!graph) return passOn(file, event);
  const name = file.name.replace(/\.\w+$/, "");
  if (graph.prompt) return app.loadApiJson(graph.prompt, name);
  await app.loadGraphData(graph.workflow, true, true, name, { openSource: "file_drop" });
}

/** @param {File} file */
async function graphOf(file) {
  try {
    return graphIn(await file.slice(0, HEAD_BYTES).arrayBuffer());
  } catch {
    return null; // the editor tells why it cannot be read
  }
}

/**
 * Let the editor have what was dropped, as if we had not been there. A browser empties the first
 * event's files when it ends, so it is a new one.
 *
 * @param {File} file
 * @param {DragEvent} event
 */
function passOn(file, { clientX, clientY }) {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(file);
  const options = { bubbles: true, cancelable: true, clientX, clientY, dataTransfer };
  document.dispatchEvent(new DragEvent("drop", options));
}
