// What the server says about a LoRA source: its parser is asked, there is no second one here.
// @ts-check

import { Answers } from "./answers.mjs";

/** @typedef {import("../lib/lines.mjs").Source} Source */

const LONGEST = 4096;

/** @extends {Answers<Source>} */
export class Sources extends Answers {
  /**
   * @param {import("./nodes.mjs").Api} api
   * @param {() => void} onKnown - called when an answer has come
   */
  constructor(api, onKnown) {
    super(api, "/flux_hotswap/source", LONGEST, onKnown);
  }

  /**
   * Ask what a text means, and then what the file is: looking into a large one takes a while.
   *
   * @override
   * @param {string} text
   * @param {(told: Source | null | undefined) => void} keep
   */
  async learn(text, keep) {
    const source = await this.fetch({ source: text });
    const before = this.known.get(text);
    const isSame = source?.file && source.file === before?.file && source.size === before.size;
    keep(isSame ? { ...source, inside: before.inside } : source);
    if (source?.file) keep(await this.fetch({ source: text, inside: true }));
  }
}
