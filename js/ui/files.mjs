// The links of files that the Save node has made.
// @ts-check

/** @typedef {{ filename: string, subfolder?: string, type?: string }} File */

/**
 * @param {File} file
 * @param {import("./nodes.mjs").Api} api
 */
export function urlOf({ filename, subfolder = "", type = "output" }, api) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
}

/**
 * @param {File} file
 * @param {import("./nodes.mjs").Api} api
 */
export function fileRow(file, api) {
  const { filename, subfolder } = file;
  const row = document.createElement("div");
  const anchor = document.createElement("a");
  anchor.textContent = subfolder ? `${subfolder}/${filename}` : filename;
  anchor.href = urlOf(file, api);
  anchor.target = "_blank";
  anchor.rel = "noopener";
  anchor.style.color = "var(--fg-color, #fff)";
  Object.assign(row.style, { whiteSpace: "nowrap", overflow: "hidden", textOverflow: "ellipsis" });
  row.append(anchor);
  return row;
}
