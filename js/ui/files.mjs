// The link of a file that the Save node has made.
// @ts-check

/** @typedef {{ filename: string, subfolder?: string, type?: string }} File */

/**
 * @param {File} file
 * @param {import("./nodes.mjs").Api} api
 */
export function fileRow({ filename, subfolder = "", type = "output" }, api) {
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
