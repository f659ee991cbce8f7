// Lets node import the scripts as the editor's page does: /scripts/*.js are a stand-in that holds
// whatever app and api a test has put into globalThis.
import { register } from "node:module";

const HOOK = `
export async function resolve(specifier, context, next) {
  const found = /scripts\\/(app|api)\\.js$/.exec(specifier);
  if (!found) return next(specifier, context);
  const name = found[1];
  const code = "export const " + name + " = globalThis.stand_in_" + name + ";";
  return { url: "data:text/javascript," + encodeURIComponent(code), shortCircuit: true };
}`;
register(`data:text/javascript,${encodeURIComponent(HOOK)}`);
