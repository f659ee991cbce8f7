// What the server says about texts that are being typed.
// @ts-check

const PAUSE_MS = 300;
const KEPT = 500;

/**
 * Asks about texts, each once until something may have changed.
 *
 * @template Told
 */
export class Answers {
  /**
   * @param {import("./nodes.mjs").Api} api
   * @param {string} route - that is asked
   * @param {number} longest - so many characters are asked about
   * @param {() => void} onKnown - called when an answer has come
   */
  constructor(api, route, longest, onKnown) {
    this.api = api;
    this.route = route;
    this.longest = longest;
    this.onKnown = onKnown;
    /** @type {Map<string, Told | null>} */
    this.known = new Map();
    /** @type {Set<string>} */
    this.wanted = new Set();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  /**
   * @param {unknown} text
   * @returns {Told | null} null: nothing is known (yet)
   */
  about(text) {
    if (typeof text !== "string" || !text.trim() || text.length > this.longest) return null;
    const known = this.known.get(text);
    if (known !== undefined) return known;
    this.wanted.add(text);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), PAUSE_MS);
    return null;
  }

  /**
   * Begin a refresh: only the texts that it asks about are still wanted, those before them were on the
   * way to them.
   */
  begin() {
    this.wanted.clear();
  }

  /** Ask again about everything: what is told may be another thing by now. */
  forget() {
    this.known = new Map(); // what is on its way goes into the one before
  }

  async ask() {
    const { known } = this;
    const texts = [...this.wanted];
    this.wanted.clear();
    await Promise.all(texts.map((text) => this.learn(text, (told) => this.keep(known, text, told))));
  }

  /**
   * Ask about a text, and keep what is told.
   *
   * @param {string} _text
   * @param {(told: Told | null | undefined) => void} _keep
   * @returns {Promise<void>}
   */
  async learn(_text, _keep) {
    throw new Error("not here");
  }

  /**
   * @param {Map<string, Told | null>} known - what was known when it was asked
   * @param {string} text
   * @param {Told | null | undefined} told - undefined: no answer has come; the next refresh asks again
   */
  keep(known, text, told) {
    if (told === undefined || known !== this.known) return;
    if (known.size >= KEPT) known.clear();
    known.set(text, told);
    this.onKnown();
  }

  /**
   * @param {Record<string, unknown>} question
   * @returns {Promise<Told | null | undefined>} undefined: no answer has come
   */
  async fetch(question) {
    try {
      const answer = await this.api.fetchApi(this.route, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(question),
      });
      return answer.ok ? await answer.json() : undefined;
    } catch {
      return undefined;
    }
  }
}
