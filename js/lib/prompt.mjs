// Trigger words in a prompt.
// @ts-check

/**
 * A prompt with a trigger word at its end, or as it is if it holds the word.
 *
 * @param {string} prompt
 * @param {string} word
 */
export function withWord(prompt, word) {
  const exact = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  // "cat" is not in "category".
  if (new RegExp(`(?<![\\p{L}\\p{N}_])${exact}(?![\\p{L}\\p{N}_])`, "u").test(prompt)) return prompt;
  const before = prompt.replace(/[\s,]+$/, "");
  return before ? `${before}, ${word}` : word;
}
