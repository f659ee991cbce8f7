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
    /**
     * The texts about which all is known that there is by now.
     *
     * @type {Set<string>}
     */
    this.fresh = new Set();
    /**
     * Those whose answers are on the way.
     *
     * @type {Set<string>}
     */
    this.asked = new Set();
    /** @type {Set<string>} */
    this.wanted = new Set();
    /**
     * Those that the refresh before wanted.
     *
     * @type {Set<string>}
     */
    this.waiting = new Set();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  /**
   * @param {unknown} text
   * @returns {Told | null} null: nothing is known (yet); what was known stays until it is told anew
   */
  about(text) {
    if (typeof text !== "string" || !text.trim() || text.length > this.longest) return null;
    if (!this.fresh.has(text) && !this.asked.has(text)) this.want(text);
    return this.known.get(text) ?? null;
  }

  /** @param {string} text */
  want(text) {
    this.wanted.add(text);
    if (this.waiting.has(text)) return; // else refreshes without a pause would put it off for ever
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), PAUSE_MS);
  }

  /**
   * Begin a refresh: only the texts that it asks about are still wanted, those before them were on the
   * way to them.
   */
  begin() {
    this.waiting = this.wanted;
    this.wanted = new Set();
  }

  /** Ask again about everything: what is told may be another thing by now. */
  forget() {
    this.fresh = new Set(); // what is on its way goes into the one before
    this.asked = new Set();
  }

  async ask() {
    const texts = [...this.wanted];
    for (const wishes of [this.wanted, this.waiting]) wishes.clear();
    await Promise.all(texts.map((text) => this.askAbout(text)));
  }

  /** @param {string} text */
  async askAbout(text) {
    const { fresh, asked } = this;
    asked.add(text);
    await this.learn(text, (told) => this.keep(fresh, text, told));
    asked.delete(text);
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
   * @param {Set<string>} fresh - as it was when it was asked
   * @param {string} text
   * @param {Told | null | undefined} told - undefined: no answer has come; the next refresh asks again
   */
  keep(fresh, text, told) {
    if (told === undefined || fresh !== this.fresh) return;
    if (this.known.size >= KEPT) for (const kept of [this.known, fresh]) kept.clear();
    this.known.set(text, told);
    fresh.add(text);
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
