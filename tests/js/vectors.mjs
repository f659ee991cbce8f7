import { readFileSync } from "node:fs";

/** What Python says; see vectors.py. */
export const vectors = JSON.parse(readFileSync(process.env.FLUX_HOTSWAP_VECTORS, "utf8"));
