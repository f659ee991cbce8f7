// What people do with replicate 1.4.0 for node; its frame is that of script.py, which see.

import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const Replicate = createRequire(import.meta.url)(process.env.REPLICATE_CLIENT);
const s = JSON.parse(await text(process.stdin));
const cases = {};
const name = "acme/flux";
const version = s.version;
const model = `${name}:${version}`;
const client = made({});

function made(options) {
  return new Replicate({ auth: s.token, baseUrl: `${s.open}/v1`, ...options });
}

function guarded(auth = s.token) {
  return made({ auth, baseUrl: `${s.front}/v1` });
}

/** A request that is drawn at once: often the same picture, which ComfyUI kept. */
function quick(more = {}) {
  return { ...s.quick, ...more };
}

/** A request that takes seconds, another one each time. */
function slow(more = {}) {
  return { ...s.quick, ...s.slow, seed: s.seed++, ...more };
}

/** What the client's file objects are: the start of their address, their type and bytes. */
async function files(output) {
  return Promise.all(output.map(async (each) => {
    const blob = await each.blob();
    const data = Buffer.from(await blob.arrayBuffer()).toString("base64");
    return { address: String(each).slice(0, 60), type: blob.type, data };
  }));
}

/** What the receiver got for a webhook, once its prediction has ended. */
async function delivered(hook) {
  return (await fetch(`${s.receiver}/${hook}`)).json();
}

async function image() {
  return readFile(s.image);
}

async function picture() {
  return new Blob([await image()], { type: "image/png" });
}

cases.run_version = async () => files(await client.run(model, { input: quick() }));

cases.run_model = async () => files(await client.run(name, { input: quick() }));

cases.run_wait_5 = async () =>
  files(await client.run(name, { input: quick(), wait: { mode: "block", timeout: 5 } }));

cases.run_wait_too_short = async () =>
  files(await client.run(name, { input: slow(), wait: { mode: "block", timeout: 1 } }));

cases.run_poll = async () =>
  files(await client.run(name, { input: quick(), wait: { mode: "poll", interval: 100 } }));

cases.run_two = async () =>
  files(await client.run(name, { input: quick({ num_outputs: 2, output_format: "png" }) }));

cases.run_chunks = async () => {
  const [output] = await client.run(name, { input: quick() });
  const path = `${s.image}.copy`;
  await writeFile(path, output);
  return [{ address: "", data: await readFile(path, "base64") }];
};

cases.run_plain = async () => {
  const output = await made({ useFileOutput: false }).run(name, { input: quick() });
  return output.map((each) => each.slice(0, 23));
};

cases.run_https = async () => files(await guarded().run(name, { input: quick() }));

cases.run_failed = async () => client.run("acme/broken", { input: quick() });

cases.run_base_without_v1 = async () =>
  files(await made({ baseUrl: s.open }).run(model, { input: quick() }));

cases.run_told = async () => {
  const told = [];
  const options = { input: quick(), wait: { mode: "poll", interval: 100 } };
  await client.run(name, options, (prediction) => told.push(prediction.status));
  return told;
};

cases.run_aborted = async () => {
  const abort = new AbortController();
  const options = { input: slow(), wait: { mode: "poll", interval: 100 }, signal: abort.signal };
  let id;
  const output = await client.run(name, options, (prediction) => {
    id = prediction.id;
    abort.abort();
  });
  const ended = await client.wait(await client.predictions.get(id), { interval: 100 });
  return { output, status: ended.status };
};

cases.create_version = async () => {
  const first = await client.predictions.create({ version, input: quick() });
  return { ...(await client.wait(first, { interval: 100 })), first: first.status };
};

cases.create_wait = async () =>
  client.predictions.create({ version, input: quick(), wait: true });

cases.create_model = async () =>
  client.predictions.create({ model: name, input: quick(), wait: 7 });

cases.create_deployment = async () =>
  client.deployments.predictions.create("acme", "flux", { input: quick(), wait: true });

cases.get = async () => {
  const first = await client.predictions.create({ version, input: quick(), wait: true });
  return [first, await client.predictions.get(first.id)];
};

cases.seed_again = async () => {
  const draw = (seed) =>
    client.predictions.create({ model: name, input: quick({ seed }), wait: true });
  const first = await draw(undefined);
  const seed = Number(/Using seed: (\d+)/.exec(first.logs)[1]);
  return { seed, outputs: [first.output, (await draw(seed)).output] };
};

cases.wait_ends_before = async () => {
  const start = performance.now();
  const input = slow({ num_inference_steps: 50 });
  const first = await client.predictions.create({ model: name, input, wait: 1 });
  const seconds = (performance.now() - start) / 1000;
  await client.predictions.cancel(first.id);
  return { status: first.status, seconds };
};

cases.cancel = async () => {
  const first = await client.predictions.create({ version, input: slow() });
  const behind = await client.predictions.create({ version, input: slow() });
  const queued = await client.predictions.cancel(behind.id);
  const start = performance.now();
  const running = await client.wait(await client.predictions.cancel(first.id), { interval: 100 });
  const seconds = (performance.now() - start) / 1000;
  return { running, queued: [queued, await client.predictions.get(behind.id)], seconds };
};

cases.progress = async () => {
  const seen = [];
  const note = (prediction) => {
    const found = Replicate.parseProgressFromLogs(prediction);
    if (found) seen.push([found.percentage, found.current, found.total]);
  };
  await client.run(name, { input: slow(), wait: { mode: "poll", interval: 100 } }, note);
  return seen;
};

cases.listed = async () => {
  const first = await client.predictions.create({ version, input: quick(), wait: true });
  const pages = [];
  for await (const page of client.paginate(client.predictions.list)) pages.push(page);
  return { made: first.id, pages };
};

cases.file_buffer = async () =>
  files(await client.run(name, { input: quick({ image: await image() }) }));

cases.file_blob = async () =>
  files(await client.run(name, { input: quick({ image: await picture() }) }));

cases.file_guarded = async () =>
  files(await guarded().run(name, { input: quick({ image: await picture() }) }));

cases.file_upload = async () => {
  const uploads = made({ fileEncodingStrategy: "upload" });
  const file = new File([await image()], "image.png", { type: "image/png" });
  return files(await uploads.run(name, { input: quick({ image: file }) }));
};

// This client sends itself, with its token, where the input belongs.
cases.error_data_uri = async () => {
  const faulty = made({ auth: s.leaked, fileEncodingStrategy: "data-uri" });
  return faulty.run(name, { input: quick({ image: await picture() }) });
};

cases.file_kept = async () => {
  const file = new File([await image()], "image.png", { type: "image/png" });
  const first = await client.files.create(file, { case: 1 });
  const found = await client.files.get(first.id);
  const listed = (await client.files.list()).results.map((each) => each.id);
  const deleted = await client.files.delete(first.id);
  const left = (await client.files.list()).results.map((each) => each.id);
  return { made: first, found, listed, deleted, left };
};

cases.stream = async () => {
  const events = [];
  for await (const each of client.stream(name, { input: quick({ num_inference_steps: 2 }) })) {
    const data = each.event === "output" ? await files([fetched(each.data)]) : each.data;
    events.push([each.event, data, each.id]);
  }
  return events;
};

/** An address that a stream gave, as if it were a file object of the client. */
function fetched(address) {
  return { blob: async () => (await fetch(address)).blob(), toString: () => address };
}

cases.run_latest_version = async () => {
  const latest = (await client.models.get("acme", "plain")).latest_version;
  return files(await client.run(`acme/plain:${latest.id}`, { input: quick() }));
};

cases.model = async () => {
  const found = await client.models.get("acme", "flux");
  const versions = (await client.models.versions.list("acme", "flux")).results;
  const one = await client.models.versions.get("acme", "flux", version);
  return {
    owner: found.owner,
    name: found.name,
    latest: found.latest_version.id,
    versions: versions.map((each) => each.id),
    schema: one.openapi_schema,
  };
};

cases.deployment = async () => {
  const found = await client.deployments.get("acme", "flux");
  return [found.owner, found.name];
};

cases.account = async () => client.accounts.current();

cases.hardware = async () => client.hardware.list();

cases.webhook = async () => {
  const webhook = `${s.receiver}/node`;
  const first = await client.predictions.create({ version, input: quick(), webhook });
  const { key } = await client.webhooks.default.secret.get();
  const came = await delivered("node");
  for (const { headers, body } of came) {
    if (!(await Replicate.validateWebhook({ headers, body }, key))) throw new Error("not valid");
    const other = { headers, body: `${body} ` };
    if (await Replicate.validateWebhook(other, key)) throw new Error("valid when changed");
  }
  return { made: first.id, came };
};

cases.unknown_field = async () => {
  const input = quick({ disco_mode: "zebra-7731" });
  return client.predictions.create({ version, input, wait: true });
};

cases.error_no_prediction = async () => client.predictions.get("a".repeat(26));

cases.error_no_version = async () =>
  client.predictions.create({ version: "b".repeat(64), input: quick() });

cases.error_bare_version = async () => client.run(version, { input: quick() });

cases.error_token = async () => guarded(s.wrong).run(name, { input: quick() });

cases.error_of_another = async () => {
  const first = await guarded().predictions.create({ version, input: quick(), wait: true });
  return guarded(s.others).predictions.get(first.id);
};

cases.error_not_allowed = async () => guarded().run("somebody/model", { input: quick() });

cases.error_full = async () => {
  const predictions = [];
  try {
    for (let count = 0; count < 5; count++) {
      predictions.push(await guarded().predictions.create({ version, input: slow() }));
    }
  } finally {
    for (const each of predictions) await guarded().predictions.cancel(each.id);
  }
};

for (const [title, input] of s.bad) {
  cases[`bad: ${title}`] = async () => (await client.predictions.create({ version, input })).id;
}

for (const [title, run] of Object.entries(cases)) {
  const line = { case: title, value: null, error: null };
  const start = performance.now();
  try {
    line.value = (await run()) ?? null;
  } catch (error) {
    const status = error.response?.status ?? null;
    line.error = { type: error.name, status, text: error.message };
  }
  line.seconds = (performance.now() - start) / 1000;
  console.log(JSON.stringify(line));
}
