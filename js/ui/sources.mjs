// What the server says about a LoRA source: its parser is asked, there is no second one here.
// @ts-check

/** @typedef {import("../lib/lines.mjs").Source} Source */

const ROUTE = "/flux_hotswap/source";
const PAUSE_MS = 300;
const LONGEST = 4096;

/** Asks about sources, each once until something may have changed. */
export class Sources {
  /**
   * @param {import("./nodes.mjs").Api} api
   * @param {() => void} onKnown - called when an answer has come
   */
  constructor(api, onKnown) {
    this.api = api;
    this.onKnown = onKnown;
    /** @type {Map<string, Source | null>} */
    this.known = new Map();
    /** @type {Set<string>} */
    this.wanted = new Set();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  /**
   * @param {unknown} text
   * @returns {Source | null} null: nothing is known (yet)
   */
  about(text) {
    if (typeof text !== "string" || !text.trim() || text.length > LONGEST) return null;
    const known = this.known.get(text);
    if (known !== undefined) return known;
    // Only the last text is asked for: those before it were on the way to it.
    this.wanted.add(text);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), PAUSE_MS);
    return null;
  }

  /** Ask again about everything: a file may have come. */
  forget() {
    this.known.clear();
  }

  async ask() {
    const texts = [...this.wanted];
    this.wanted.clear();
    await Promise.all(texts.map(async (text) => this.known.set(text, await this.fetch(text))));
    this.onKnown();
  }

  /**
   * @param {string} text
   * @returns {Promise<Source | null>}
   */
  async fetch(text) {
    try {
      const answer = await this.api.fetchApi(ROUTE, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ source: text }),
      });
      return answer.ok ? await answer.json() : null;
    } catch {
      return null;
    }
  }
}
