// The list of suggestions below a field, as a screen reader meets it, and what choosing one does.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { ListBox } from "../../js/ui/listbox.mjs";
import { Suggestions } from "../../js/ui/suggest.mjs";

/** As much of an element as a list needs. */
function element() {
  const attributes = {};
  return {
    ...{ attributes, style: {}, dataset: {}, isConnected: false },
    setAttribute: (name, value) => (attributes[name] = value),
    removeAttribute: (name) => delete attributes[name],
    getBoundingClientRect: () => ({ left: 0, top: 0, bottom: 20, width: 100 }),
    addEventListener: () => {},
    dispatchEvent: () => {},
    scrollIntoView: () => {},
    closest: () => null,
    append: () => {},
    replaceChildren: () => {},
    remove() {
      this.isConnected = false;
    },
  };
}

beforeEach(() => {
  const body = { append: (list) => (list.isConnected = true) };
  Object.assign(globalThis, { document: { createElement: element, body }, innerWidth: 800, innerHeight: 600 });
});

afterEach(() => {
  for (const name of ["document", "innerWidth", "innerHeight"]) delete globalThis[name];
});

test("a field with a list is a combobox, until the list is gone", () => {
  const field = element();
  const list = new ListBox(() => {});
  list.show(field, "LoRAs", [{ value: "a", detail: "" }]);
  list.move(0);
  assert.deepEqual(field.attributes, {
    ...{ role: "combobox", "aria-autocomplete": "list", "aria-haspopup": "listbox" },
    ...{ "aria-controls": list.element.id, "aria-expanded": "true" },
    "aria-activedescendant": `${list.element.id}-0`,
  });
  list.hide();
  assert.deepEqual(field.attributes, {});
});

test("what is known of LoRAs is asked for again when one that is here was chosen", () => {
  const chosen = { count: 0 };
  const suggestions = new Suggestions({}, {}, () => String, () => chosen.count++);
  suggestions.fill("a");
  assert.equal(chosen.count, 0, "no field is open");
  suggestions.field = element();
  suggestions.fill("a");
  assert.deepEqual([suggestions.field.value, chosen.count], ["a", 1]);
});
