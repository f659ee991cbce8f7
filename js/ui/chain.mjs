// Adding to what a node or a widget does, never replacing it.
// @ts-check

/**
 * Call `after` whenever a method of an object was called, with the same arguments.
 *
 * @param {any} owner
 * @param {string} method
 * @param {(...given: any[]) => void} after
 */
export function chain(owner, method, after) {
  const before = owner[method];
  owner[method] = function (/** @type {any[]} */ ...given) {
    const result = before?.apply(this, given);
    attempt(() => after(...given));
    return result;
  };
}

/**
 * Do something; what goes wrong with it is told in the console and stops nothing else.
 *
 * @param {() => void} act
 */
export function attempt(act) {
  try {
    act();
  } catch (error) {
    console.warn("FLUX hotswap:", error);
  }
}
