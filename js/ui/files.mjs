// The links of the files that the Save node has made.
// @ts-check

import { chain } from "./chain.mjs";

/** @typedef {{ filename: string, subfolder?: string, type?: string }} File */

/**
 * @param {import("./nodes.mjs").Node} node
 * @param {import("./nodes.mjs").Api} api
 * @param {import("./panel.mjs").Panel | null} panel
 */
export function links(node, api, panel) {
  if (!panel) return;
  chain(node, "onExecuted", (output) => {
    const files = Array.isArray(output?.images) ? output.images : [];
    panel.show(files.map((/** @type {File} */ file) => link(file, api)));
  });
}

/**
 * @param {File} file
 * @param {import("./nodes.mjs").Api} api
 */
function link({ filename, subfolder = "", type = "output" }, api) {
  const row = document.createElement("div");
  const anchor = document.createElement("a");
  anchor.textContent = subfolder ? `${subfolder}/${filename}` : filename;
  anchor.href = api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
  anchor.target = "_blank";
  anchor.rel = "noopener";
  anchor.style.color = "var(--fg-color, #fff)";
  Object.assign(row.style, { whiteSpace: "nowrap", overflow: "hidden", textOverflow: "ellipsis" });
  row.append(anchor);
  return row;
}
