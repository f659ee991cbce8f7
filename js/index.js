// The one script that ComfyUI loads by itself. It only hands ComfyUI's app and api to our modules.
// @ts-check

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { extension } from "./ui/extension.mjs";

app.registerExtension(extension(app, api));
