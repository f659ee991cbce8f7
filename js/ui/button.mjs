// A button in a row of ours.
// @ts-check

import { attempt } from "./chain.mjs";

/**
 * @param {string} label
 * @param {() => void} act
 * @param {"pointerup" | "pointerdown"} [when] - "pointerdown" where rows are made anew so often that
 *   one seldom lives until a finger is lifted
 */
export function button(label, act, when = "pointerup") {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = made.title = label;
  Object.assign(made.style, {
    ...{ font: "inherit", lineHeight: "14px", cursor: "pointer", minWidth: "0" },
    ...{ whiteSpace: "nowrap", overflow: "hidden", textOverflow: "ellipsis" },
    ...{ padding: "0 6px", border: "1px solid var(--border-color, #555)", borderRadius: "4px" },
    ...{ background: "var(--comfy-input-bg, #222)", color: "var(--input-text, #ddd)" },
  });
  // Else the editor begins to move the node.
  made.addEventListener("pointerdown", (event) => event.stopPropagation());
  // Rows may be made anew while a button is pressed: a click would never end where it began.
  made.addEventListener(when, (event) => {
    if (event.button === 0) attempt(act);
  });
  made.addEventListener("click", (event) => {
    if (event.detail === 0) attempt(act); // by keyboard
  });
  return made;
}
