// The one script that ComfyUI loads by itself. It only hands ComfyUI's app and api to our modules.
// @ts-check

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { extension } from "./ui/extension.mjs";

const ours = extension(app, api);
// The editor refuses a second extension of a name with an error that helps nobody.
if (app.extensions?.some(({ name }) => name === ours.name))
  console.warn(
    `${ours.name} is installed twice; ${import.meta.url} does nothing. Remove one of the two folders in custom_nodes.`,
  );
else app.registerExtension(ours);
