// The graph in a JPEG of ours, which stands in its EXIF. No DOM here.
// @ts-check

/** So much of a file is looked at: EXIF is one segment of 64 KB at most, and stands in front. */
export const HEAD_BYTES = 1 << 17;

const RECORD = "flux_hotswap"; // no other program writes it
const START = 0xffd8;
const PIXELS = 0xda;
const APP1 = 0xe1;
const EXIF = 0x45786966;
const LITTLE_ENDIAN = 0x4949;
const TIFF = 42;
const ENTRY_BYTES = 12;
const ENTRIES = 64; // ours has a handful, a camera's thirty
const ASCII = 2;

/** @typedef {{ workflow: any, prompt?: undefined } | { workflow?: undefined, prompt: any }} Graph */

/**
 * The graph in a file of ours: the editor's, or what an API client queued; null if it holds none.
 *
 * @param {ArrayBuffer} head - the first bytes of a file of any kind
 * @returns {Graph | null}
 */
export function graphIn(head) {
  const texts = textsIn(head);
  const [workflow, prompt] = ["workflow", "prompt"].map((key) => texts.get(key));
  if (!texts.has(RECORD)) return null;
  try {
    if (workflow) return { workflow: JSON.parse(workflow) };
    return prompt ? { prompt: JSON.parse(prompt) } : null;
  } catch {
    return null;
  }
}

/**
 * The texts of the form `key:text` in a JPEG's EXIF.
 *
 * @param {ArrayBuffer} head - the first bytes of a file of any kind
 * @returns {Map<string, string>} by key
 */
export function textsIn(head) {
  try {
    const block = exifOf(new DataView(head));
    return new Map(block ? entriesOf(block) : []);
  } catch (error) {
    if (error instanceof RangeError) return new Map(); // cut off, or damaged: it leads past the end
    throw error;
  }
}

/**
 * @param {DataView} file
 * @returns {DataView | null}
 */
function exifOf(file) {
  if (file.byteLength < 2 || file.getUint16(0) !== START) return null;
  for (let at = 2; file.getUint8(at) === 0xff; at += 2 + file.getUint16(at + 2)) {
    const marker = file.getUint8(at + 1);
    if (marker === PIXELS) return null;
    if (marker === APP1 && file.getUint32(at + 4) === EXIF)
      return new DataView(file.buffer, at + 10, file.getUint16(at + 2) - 8);
  }
  return null;
}

/**
 * @param {DataView} block - a TIFF file in small
 * @returns {[string, string][]}
 */
function entriesOf(block) {
  const little = block.getUint16(0) === LITTLE_ENDIAN;
  if (block.getUint16(2, little) !== TIFF) return [];
  const start = block.getUint32(4, little);
  const count = Math.min(block.getUint16(start, little), ENTRIES);
  /** @type {[string, string][]} */
  const found = [];
  for (let at = start + 2; at < start + 2 + count * ENTRY_BYTES; at += ENTRY_BYTES) {
    const length = block.getUint32(at + 4, little);
    if (block.getUint16(at + 2, little) !== ASCII || length <= 4) continue;
    const place = block.byteOffset + block.getUint32(at + 8, little);
    const text = new TextDecoder().decode(new Uint8Array(block.buffer, place, length));
    const [key, ...rest] = text.split("\0", 1)[0].split(":");
    found.push([key, rest.join(":")]);
  }
  return found;
}
