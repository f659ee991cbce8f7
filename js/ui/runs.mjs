// How long the runs took that made what nodes show.
// @ts-check

const KEPT = 200;

/** The times of the last results. */
export class Runs {
  /**
   * @param {import("./nodes.mjs").Api} api
   * @param {() => void} onResult - called when a node has shown something
   */
  constructor(api, onResult) {
    this.api = api;
    this.onResult = onResult;
    this.began = 0;
    /** @type {unknown[]} */
    this.cached = [];
    /** @type {Map<string, number>} */
    this.took = new Map();
  }

  listen() {
    this.api.addEventListener?.("execution_start", () => {
      this.began = performance.now();
      this.cached = [];
    });
    this.api.addEventListener?.("execution_cached", ({ detail }) => {
      this.cached = detail.nodes;
    });
    this.api.addEventListener?.("executed", ({ detail }) => {
      if (this.began && !this.cached.includes(detail.node)) this.keep(keyOf(detail.output));
      this.onResult();
    });
  }

  /** @param {string} key */
  keep(key) {
    if (this.took.size >= KEPT) this.took.clear();
    this.took.set(key, (performance.now() - this.began) / 1000);
  }

  /**
   * How long the run took until it had made this.
   *
   * @param {any} output - of a node
   * @returns {number | null} seconds; null: that was before the page was opened
   */
  secondsOf(output) {
    return this.took.get(keyOf(output)) ?? null;
  }
}

/** @param {any} output */
function keyOf(output) {
  return JSON.stringify(output?.images);
}
