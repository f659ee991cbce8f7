// How many tokens a prompt has: the server's tokenizers are asked.
// @ts-check

import { Answers } from "./answers.mjs";

/** @typedef {import("../lib/lines.mjs").Tokens} Tokens */

const LONGEST = 16384;

/** @extends {Answers<Tokens>} */
export class Prompts extends Answers {
  /**
   * @param {import("./nodes.mjs").Api} api
   * @param {() => void} onKnown - called when an answer has come
   */
  constructor(api, onKnown) {
    super(api, "/flux_hotswap/tokens", LONGEST, onKnown);
  }

  /**
   * @override
   * @param {string} text
   * @param {(told: Tokens | null | undefined) => void} keep
   */
  async learn(text, keep) {
    keep(await this.fetch({ prompt: text }));
  }
}
