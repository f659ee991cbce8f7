// The page at /: predictions, the newest first. It asks the same routes as every client does.
//
// Texts of others get into the page as text and as addresses of images, never as HTML.

import { shown } from "./read.mjs";

/** @typedef {import("./read.mjs").Prediction} Prediction */
/** @typedef {import("./read.mjs").Shown} Shown */

const POLL_MS = 1000;
const TOKEN = "flux-hotswap token";

/** @param {string} id @returns {any} */
const part = id => document.getElementById(id);

/** @type {Map<string, {card: HTMLElement, told: string, shown: Shown}>} */
const cards = new Map();
const only = new URLSearchParams(location.search).get("prediction");
/** @type {string | null} where the list goes on */
let following = null;

class Refused extends Error {
    /** @param {number} status @param {string} detail */
    constructor(status, detail) {
        super(detail);
        this.status = status;
    }
}

/**
 * @param {string} path below this page
 * @param {string} [method]
 * @returns {Promise<any>}
 */
async function ask(path, method = "GET") {
    const token = sessionStorage.getItem(TOKEN);
    /** @type {Record<string, string>} */
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch(path, { method, headers, cache: "no-store" });
    const told = await answer.json().catch(() => null);
    if (answer.ok) return told;
    const detail = typeof told?.detail === "string" ? told.detail : "";
    throw new Refused(answer.status, detail || `The server answered ${answer.status}.`);
}

// --- what is there ---

/**
 * @param {string} query
 * @returns {Promise<{found: Prediction[], next: string | null}>} next: where the list goes on
 */
async function askList(query) {
    const page = await ask(`v1/predictions${query}`);
    return { found: page.results, next: page.next ? new URL(page.next).search : null };
}

/** @param {string} query to put what it finds at the end of the page */
async function goOn(query) {
    const { found, next } = await askList(query);
    following = next;
    put(found);
}

/** @param {number} since @returns {Promise<Prediction[]>} on however many pages they are */
async function askSince(since) {
    const all = [];
    let query = /** @type {string | null} */ (`?created_after=${new Date(since).toISOString()}`);
    while (query !== null) {
        const { found, next } = await askList(query);
        all.push(...found);
        query = next;
    }
    return all;
}

/** Ask for what is new and for what has not ended; all at first. */
async function update() {
    if (only !== null) return put([await ask(onePath(only))]);
    if (!cards.size) return goOn("");
    const found = await askSince(sinceWhen([...cards.values()].map(({ shown }) => shown)));
    put(found);
    const told = new Set(found.map(({ id }) => id));
    const left = [...cards.values()].filter(({ shown }) => shown.open && !told.has(shown.id));
    put(await Promise.all(left.map(({ shown }) => ask(onePath(shown.id)))));
}

/** @param {Shown[]} known @returns {number} before the first that has not ended, or the newest */
function sinceWhen(known) {
    const times = known.map(({ created }) => Date.parse(created));
    const open = known.filter(({ open }) => open).map(({ created }) => Date.parse(created));
    return Math.min(Math.max(...times), ...open) - 1;
}

/** @param {string} id */
function onePath(id) {
    return `v1/predictions/${encodeURIComponent(id)}`;
}

async function run() {
    for (;;) {
        if (!document.hidden) await attempt(update);
        await new Promise(resolve => setTimeout(resolve, POLL_MS));
        if (!part("login").hidden) return; // `enter` goes on
    }
}

/** @param {() => Promise<unknown>} work */
async function attempt(work) {
    try {
        await work();
        tell(countOf());
    } catch (error) {
        if (error instanceof Refused && error.status === 401) askForToken();
        else if (error instanceof Refused) tell(error.message, true);
        else tell("The server does not answer.", true);
    }
}

/** @param {string} text @param {boolean} [bad] */
function tell(text, bad = false) {
    if (part("state").textContent !== text) part("state").textContent = text;
    part("state").classList.toggle("bad", bad);
}

function countOf() {
    const statuses = [...cards.values()].map(({ shown }) => shown.status);
    const many = (/** @type {string} */ name) => statuses.filter(each => each === name).length;
    return `${many("processing")} running, ${many("starting")} waiting`;
}

// --- the token ---

function askForToken() {
    part("wrong").textContent = sessionStorage.getItem(TOKEN) ? "It is not one of them." : "";
    sessionStorage.removeItem(TOKEN);
    tell("");
    part("login").hidden = false;
    part("token").focus();
}

/** @param {Event} event */
function enter(event) {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, part("token").value.trim());
    part("token").value = "";
    part("login").hidden = true;
    void run();
}

// --- the cards ---

/** @param {Prediction[]} predictions */
function put(predictions) {
    for (const prediction of predictions) {
        const now = shown(prediction);
        const told = JSON.stringify({ ...now, progress: null });
        const old = cards.get(now.id);
        if (old?.told === told) {
            move(old.card, now);
            continue;
        }
        const card = drawn(now);
        if (old) old.card.replaceWith(card);
        else place(card, now);
        cards.set(now.id, { card, told, shown: now });
    }
    part("none").hidden = cards.size > 0;
    part("older").hidden = following === null;
    part("all").hidden = only === null;
}

/**
 * Show how far it is. The card stays: somebody may be about to click on its button.
 * @param {HTMLElement} card
 * @param {Shown} now
 */
function move(card, now) {
    const shownBar = card.querySelector("progress");
    if (shownBar && now.progress !== null) shownBar.value = now.progress;
}

/** @param {HTMLElement} card @param {Shown} now */
function place(card, now) {
    const older = [...cards.values()]
        .filter(({ shown }) => shown.created < now.created)
        .reduce((/** @type {any} */ best, each) =>
            best && best.shown.created > each.shown.created ? best : each, null);
    part("list").insertBefore(card, older?.card ?? null);
}

/** @param {Shown} now */
function drawn(now) {
    const card = make("article", "");
    card.dataset.id = now.id;
    const head = make("div", "");
    head.append(make("span", `status ${now.status}`, now.status), when(now.created));
    head.append(make("span", "seconds", now.seconds), make("span", "model", now.model));
    head.append(make("span", "id", now.id));
    if (now.open) head.append(cancelButton(now));
    card.append(head);
    if (now.prompt) card.append(make("p", "prompt", now.prompt));
    if (now.progress !== null) card.append(bar(now.progress));
    if (now.error) card.append(make("p", "error", now.error));
    if (now.removed) card.append(make("p", "removed", "Its data was removed."));
    if (now.pictures.length) card.append(pictures(now));
    for (const address of now.addresses) card.append(make("p", "address", address));
    return card;
}

/**
 * @param {string} tag
 * @param {string} name of its class
 * @param {string} [text]
 */
function make(tag, name, text = "") {
    const made = document.createElement(tag);
    made.className = name;
    made.textContent = text;
    return made;
}

/** @param {string} created */
function when(created) {
    const made = document.createElement("time");
    made.dateTime = created;
    made.textContent = new Date(created).toLocaleString();
    return made;
}

/** @param {number} progress */
function bar(progress) {
    const made = document.createElement("progress");
    made.value = progress;
    made.setAttribute("aria-label", "Progress");
    return made;
}

/** @param {Shown} now */
function pictures(now) {
    const made = make("div", "pictures");
    for (const [number, address] of now.pictures.entries()) {
        const image = document.createElement("img");
        image.loading = "lazy";
        image.alt = `Picture ${number + 1}`;
        image.src = address;
        // A browser opens no data: address by itself.
        if (address.startsWith("data:")) made.append(image);
        else made.append(link(address, image));
    }
    return made;
}

/** @param {string} address @param {HTMLElement} inside */
function link(address, inside) {
    const made = document.createElement("a");
    made.href = address;
    made.target = "_blank";
    made.rel = "noreferrer";
    made.append(inside);
    return made;
}

/** @param {Shown} now */
function cancelButton(now) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = "Cancel";
    made.addEventListener("click", async () => {
        made.disabled = true;
        await attempt(async () => put([await ask(`${onePath(now.id)}/cancel`, "POST")]));
        made.disabled = false; // it may have failed
    });
    return made;
}

part("login").addEventListener("submit", enter);
part("older").addEventListener("click", () =>
    void attempt(async () => following !== null && goOn(following)));
void run();
