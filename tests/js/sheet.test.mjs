import assert from "node:assert/strict";
import { test } from "node:test";
import { styleRows } from "../../js/ui/sheet.mjs";

const added = [];
globalThis.document = {
  createElement: () => ({ textContent: "" }),
  head: { append: (element) => added.push(element) },
};

/** The rules for a node with a hidden widget. */
function rulesFor(id, graphId, name) {
  const graph = { id: graphId };
  const inputs = [{ name, widget: { name } }];
  styleRows([{ id, graph, inputs, widgets: [{ name, hidden: true }] }], graph);
  return added[0].textContent.split("\n");
}

const OPEN = '"]{} body{background:url(https://evil.example/x)} i[a="';
const TAME = "\\22 ]{} body{background:url(https://evil.example/x)} i[a=\\22 ";

for (const [name, given, written] of [
  ["a number", [7, "b2fc", "width"], ["7", "b2fc", "width"]],
  ["a text that ends the string", [OPEN, OPEN, OPEN], [TAME, TAME, TAME]],
  ["a backslash", ["1\\", "g", "w"], ["1\\5c ", "g", "w"]],
  ["line breaks", ["1\n2\r3\f", "g", "w"], ["1\\a 2\\d 3\\c ", "g", "w"]],
])
  test(`ids stay texts in the style sheet: ${name}`, () => {
    const [id, graphId, widget] = written;
    assert.deepEqual(rulesFor(...given), [
      `[data-widget-key="${graphId}:${id}:${widget}"] { display: none }`,
      `.lg-node-widget:has([data-slot-key="${id}-in-0"]) { display: none }`,
    ]);
  });
