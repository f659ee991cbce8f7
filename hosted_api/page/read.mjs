// What the page shows of a prediction, as plain values. Nothing here touches the page.

/**
 * @typedef {object} Prediction
 * @property {string} id
 * @property {string} model
 * @property {string} version
 * @property {string} status
 * @property {Record<string, unknown>} input
 * @property {unknown} output
 * @property {string | null} error
 * @property {string | null} logs
 * @property {Record<string, number>} metrics
 * @property {string} created_at
 * @property {boolean} data_removed
 * @property {Record<string, string>} urls
 */

/**
 * @typedef {object} Shown
 * @property {string} id
 * @property {string} status
 * @property {boolean} open whether it can still be canceled
 * @property {string} model
 * @property {string} created
 * @property {string} prompt
 * @property {string} error
 * @property {boolean} removed
 * @property {number | null} progress from 0 to 1
 * @property {string} seconds
 * @property {string[]} pictures addresses that an image can have
 * @property {string[]} addresses of pictures that a browser cannot open, such as s3://...
 */

const STATUSES = ["starting", "processing", "succeeded", "failed", "canceled"];
const PERCENT = /^[\s]*(\d+)%\s*\|.*\|/;

/**
 * @param {Prediction} prediction
 * @returns {Shown}
 */
export function shown(prediction) {
    const status = STATUSES.includes(prediction.status) ? prediction.status : "unknown";
    const open = status === "starting" || status === "processing";
    const base = startOf(prediction);
    const all = (Array.isArray(prediction.output) ? prediction.output : [])
        .filter(address => typeof address === "string")
        .map(address => ownPath(address, base));
    const pictures = all.filter(isPicture);
    const prompt = prediction.input?.prompt;
    return {
        id: prediction.id,
        status,
        open,
        model: nameOf(prediction),
        created: prediction.created_at,
        prompt: typeof prompt === "string" ? prompt : "",
        error: prediction.error ?? "",
        removed: prediction.data_removed === true,
        progress: status === "processing" ? progressOf(prediction.logs ?? "") : null,
        seconds: secondsOf(prediction.metrics),
        pictures,
        addresses: all.filter(address => !pictures.includes(address)),
    };
}

/** @param {string} logs @returns {number} the last line that tells how far it is; 0 before */
export function progressOf(logs) {
    const lines = logs.split(/[\n\r]/).reverse();
    const percent = lines.map(line => PERCENT.exec(line)).find(Boolean)?.[1];
    return percent === undefined ? 0 : Math.min(Number(percent) / 100, 1);
}

/** @param {Prediction} prediction @returns {string} the address of the server, as it gives it out */
function startOf(prediction) {
    const get = prediction.urls?.get ?? "";
    const end = `/v1/predictions/${prediction.id}`;
    return get.endsWith(end) ? get.slice(0, -end.length) : "";
}

/**
 * Pictures of this server by the path below this page: it may be open under another name of the
 * same server, where the browser would not load from the one that is given out.
 * @param {string} address
 * @param {string} base
 */
function ownPath(address, base) {
    const start = `${base}/v1/outputs/`;
    return base && address.startsWith(start) ? address.slice(base.length + 1) : address;
}

/** @param {string} address */
function isPicture(address) {
    return /^(?:data:image\/|https:\/\/|v1\/outputs\/)/.test(address);
}

/** @param {Prediction} prediction */
function nameOf({ model, version }) {
    return version && version !== "hidden" ? `${model}:${version.slice(0, 12)}` : model;
}

/** @param {Record<string, number> | undefined} metrics */
function secondsOf(metrics) {
    const seconds = metrics?.predict_time;
    return typeof seconds === "number" ? `${seconds.toFixed(1)} s` : "";
}
