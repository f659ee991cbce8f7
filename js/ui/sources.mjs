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
    await Promise.all(texts.map((text) => this.learn(text)));
  }

  /**
   * Ask what a text means, and then what the file is: looking into a large one takes a while.
   *
   * @param {string} text
   */
  async learn(text) {
    const source = await this.fetch({ source: text });
    this.known.set(text, source);
    this.onKnown();
    const whole = source?.file ? await this.fetch({ source: text, inside: true }) : null;
    if (!whole) return;
    this.known.set(text, whole);
    this.onKnown();
  }

  /**
   * @param {{ source: string, inside?: boolean }} question
   * @returns {Promise<Source | null>}
   */
  async fetch(question) {
    try {
      const answer = await this.api.fetchApi(ROUTE, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(question),
      });
      return answer.ok ? await answer.json() : null;
    } catch {
      return null;
    }
  }
}
