// A list of suggestions below a text field that has the focus, as a combobox of the web has one.
// @ts-check

/**
 * @typedef {object} Choice
 * @property {string} value - what is written into the field
 * @property {string} detail - what is known of it, on a line of its own; may be empty
 */

const ID = "flux-hotswap-suggestions";
const WIDTH = 360;
const HEIGHT = 260;
const GAP = 4;

/** What a field with a list is to a screen reader. */
const COMBOBOX = {
  ...{ role: "combobox", "aria-autocomplete": "list", "aria-haspopup": "listbox" },
  ...{ "aria-controls": ID, "aria-expanded": "true" },
};

/** One list for all fields: only one of them has the focus. */
export class ListBox {
  /** @param {(value: string) => void} onChosen */
  constructor(onChosen) {
    this.onChosen = onChosen;
    /** @type {HTMLInputElement | null} */
    this.field = null;
    /** @type {HTMLElement[]} */
    this.options = [];
    this.active = -1;
    this.shows = "";
    this.element = document.createElement("div");
    this.element.id = ID;
    this.element.role = "listbox";
    Object.assign(this.element.style, {
      ...{ position: "fixed", zIndex: "10000", boxSizing: "border-box", padding: "4px 0" },
      ...{ overflowY: "auto", maxHeight: `${HEIGHT}px`, font: "12px/17px sans-serif" },
      ...{ color: "var(--input-text, #ddd)", background: "var(--comfy-menu-bg, #222)" },
      ...{ border: "1px solid var(--border-color, #555)", borderRadius: "6px" },
      ...{ boxShadow: "0 4px 12px #0008" },
    });
    // The field keeps the focus, and the graph below stays where it is.
    this.element.addEventListener("pointerdown", (event) => event.preventDefault());
    this.element.addEventListener("wheel", (event) => event.stopPropagation());
  }

  get isOpen() {
    return this.element.isConnected;
  }

  /**
   * @param {HTMLInputElement} field
   * @param {string} label - what the list holds
   * @param {Choice[]} choices - none: no list
   * @param {string} [note] - below them
   */
  show(field, label, choices, note) {
    const shows = JSON.stringify([choices, note]);
    if (this.isOpen && field === this.field && shows === this.shows) return; // one may be active
    this.hide();
    if (!choices.length) return;
    this.field = field;
    this.shows = shows;
    this.element.ariaLabel = label;
    this.options = choices.map((choice, index) => this.option(choice, index));
    this.element.replaceChildren(...this.options, ...(note ? [dim(note)] : []));
    document.body.append(this.element);
    this.element.scrollTop = 0;
    this.place(field);
    for (const [name, value] of Object.entries(COMBOBOX)) field.setAttribute(name, value);
  }

  hide() {
    this.element.remove();
    this.options = [];
    this.active = -1;
    for (const name of [...Object.keys(COMBOBOX), "aria-activedescendant"])
      this.field?.removeAttribute(name);
    this.field = null;
  }

  /**
   * Take a key of the field while the list is open.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean} whether it was for the list
   */
  key({ key }) {
    if (!this.isOpen) return false;
    if (key === "ArrowDown") this.move(this.active + 1);
    else if (key === "ArrowUp") this.move(this.active - 1);
    else if (key === "Escape") this.hide();
    else if (key === "Enter" && this.active >= 0) this.choose(this.active);
    else return false;
    return true;
  }

  /** @param {number} to - past an end: the other one */
  move(to) {
    const count = this.options.length;
    this.active = to < -1 ? count - 1 : (to + count) % count;
    this.options.forEach((option, index) => {
      const isActive = index === this.active;
      option.ariaSelected = String(isActive);
      option.style.background = isActive ? "var(--border-color, #444)" : "";
      if (isActive) option.scrollIntoView({ block: "nearest" });
    });
    this.field?.setAttribute("aria-activedescendant", `${ID}-${this.active}`);
  }

  /** @param {number} index */
  choose(index) {
    const value = this.options[index].dataset.value ?? "";
    this.hide();
    this.onChosen(value);
  }

  /**
   * @param {Choice} choice
   * @param {number} index
   */
  option({ value, detail }, index) {
    const option = document.createElement("div");
    option.role = "option";
    option.id = `${ID}-${index}`;
    option.dataset.value = value;
    option.title = [value, detail].filter(Boolean).join("\n");
    Object.assign(option.style, { padding: "2px 10px", cursor: "pointer", ...CUT });
    option.append(line(value), ...(detail ? [dim(detail)] : []));
    option.addEventListener("pointermove", () => {
      if (this.active !== index) this.move(index);
    });
    option.addEventListener("click", () => this.choose(index));
    return option;
  }

  /** @param {HTMLElement} field */
  place(field) {
    const { left, top, bottom, width } = field.getBoundingClientRect();
    const wide = Math.max(width, WIDTH);
    const tall = this.element.offsetHeight;
    const isBelow = bottom + GAP + tall <= innerHeight || top < tall + GAP;
    Object.assign(this.element.style, {
      width: `${wide}px`,
      left: `${Math.max(0, Math.min(left, innerWidth - wide))}px`,
      top: `${isBelow ? bottom + GAP : top - tall - GAP}px`,
    });
  }
}

const CUT = { whiteSpace: "nowrap", overflow: "hidden", textOverflow: "ellipsis" };

/** @param {string} text */
function line(text) {
  const made = document.createElement("div");
  made.textContent = text;
  Object.assign(made.style, CUT);
  return made;
}

/** @param {string} text */
function dim(text) {
  const made = line(text);
  Object.assign(made.style, { color: "var(--descrip-text, #999)", fontSize: "11px" });
  return made;
}
