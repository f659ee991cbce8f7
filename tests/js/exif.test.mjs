// The graph in files that our own encoder wrote, and in files that nobody should trust.
import assert from "node:assert/strict";
import { test } from "node:test";
import { graphIn, HEAD_BYTES, textsIn } from "../../js/lib/exif.mjs";
import { vectors } from "./vectors.mjs";

const { graphs, jpegs } = vectors;

/** The first bytes of one of Python's files, as a buffer of its own. */
function head(name) {
  return new Uint8Array(Buffer.from(jpegs[name], "base64")).slice(0, HEAD_BYTES);
}

test("a file of ours holds the editor's graph, else what was queued", () => {
  assert.deepEqual(graphIn(head("editor").buffer), { workflow: graphs.workflow });
  assert.deepEqual(graphIn(head("api").buffer), { prompt: graphs.prompt });
  assert.deepEqual(graphIn(head("little-endian").buffer), { workflow: graphs.workflow });
});

test("other files hold none", () => {
  for (const name of ["too large", "without", "of another program"])
    assert.equal(graphIn(head(name).buffer), null, name);
  assert.deepEqual([...textsIn(head("too large").buffer).keys()], ["flux_hotswap"]);
  assert.deepEqual(JSON.parse(textsIn(head("of another program").buffer).get("prompt")), graphs.prompt);
  for (const bytes of ["", "\xff", "\xff\xd8", "\x89PNG\r\n\x1a\n", "x".repeat(99)])
    assert.equal(graphIn(Uint8Array.from(bytes, (sign) => sign.charCodeAt(0)).buffer), null);
});

test("a file that is cut off anywhere is read up to there", () => {
  const whole = head("editor");
  const found = new Set();
  for (let end = 0; end <= whole.length; end++) found.add(JSON.stringify(graphIn(whole.slice(0, end).buffer)));
  assert.deepEqual([...found], ["null", JSON.stringify({ workflow: graphs.workflow })]);
});

test("no damaged byte is an error", () => {
  const whole = head("little-endian");
  let read = 0;
  for (let at = 0; at < whole.length; at++)
    for (const value of [0, 1, 0x7f, 0xff]) {
      const bytes = whole.slice();
      bytes[at] = value;
      read += Number(graphIn(bytes.buffer) !== null);
    }
  assert.ok(read > 0);
});

test("a directory of very many texts is read to a limit", () => {
  const bytes = Buffer.alloc(70_000);
  bytes.set([0xff, 0xd8, 0xff, 0xe1, 0xff, 0xff, 0x45, 0x78, 0x69, 0x66, 0, 0, 0x4d, 0x4d, 0, 42, 0, 0, 0, 8]);
  bytes.writeUInt16BE(2000, 20);
  for (let entry = 0; entry < 2000; entry++) {
    const [at, text] = [22 + 12 * entry, 26_000 + 8 * entry];
    bytes.writeUInt16BE(2, at + 2);
    bytes.writeUInt32BE(8, at + 4);
    bytes.writeUInt32BE(text - 12, at + 8);
    bytes.write(`k${1000 + entry}:v`, text);
  }
  const found = textsIn(new Uint8Array(bytes).buffer);
  assert.equal(found.get("k1000"), "v");
  assert.equal(found.size, 64);
});
