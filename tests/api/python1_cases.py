"""What people do with replicate 1.0.7 for Python; see `script.py`."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path
from typing import Any

import replicate
from replicate.client import Client

from api.python_cases import shared
from api.script import Script, Setting, files

script = Script(shared)
case = script.case


@case
def run_async(s: Setting) -> Any:
    async def run() -> Any:
        client = Client(base_url=s.open, api_token=s.token)
        output: Any = await client.async_run("acme/flux", input=s.quick())
        return [await each.aread() for each in output]

    (data,) = asyncio.run(run())
    return files([io.BytesIO(data)])


@case
def run_https(s: Setting) -> Any:
    client = Client(base_url=s.front, api_token=s.token)
    return files(client.run("acme/flux", input=s.quick()))


@case
def run_base_with_v1(s: Setting) -> Any:
    client = Client(base_url=f"{s.open}/v1", api_token=s.token)
    return files(client.run(f"acme/flux:{s.version}", input=s.quick()))


@case
def run_default_client(s: Setting) -> Any:
    return files(replicate.run("acme/flux", input=s.quick()))


@case
def run_latest_version(s: Setting) -> Any:
    # The client calls the version alone, as it was told it.
    latest = s.client.models.get("acme/plain").latest_version
    return files(s.client.run(f"acme/plain:{latest.id}", input=s.quick()))


@case
def create_version(s: Setting) -> Any:
    made = s.client.predictions.create(version=s.version, input=s.quick())
    first = made.status
    made.wait()
    return {**made.dict(), "first": first}


@case
def create_wait(s: Setting) -> Any:
    return s.client.predictions.create(version=s.version, input=s.quick(), wait=True).dict()


@case
def create_model(s: Setting) -> Any:
    made = s.client.models.predictions.create("acme/flux", input=s.quick(), wait=True)
    return made.dict()


@case
def create_deployment(s: Setting) -> Any:
    made = s.client.deployments.get("acme/flux").predictions.create(input=s.quick())
    made.wait()
    return made.dict()


@case
def get(s: Setting) -> Any:
    made = s.client.predictions.create(version=s.version, input=s.quick(), wait=True)
    found = s.client.predictions.get(made.id)
    return [made.dict(), found.dict()]


@case
def seed_again(s: Setting) -> Any:
    create = s.client.models.predictions.create
    first = create("acme/flux", input=s.quick(seed=None), wait=True)
    seed = int(first.logs.partition("Using seed: ")[2].split()[0])
    second = create("acme/flux", input=s.quick(seed=seed), wait=True)
    return {"seed": seed, "outputs": [first.output, second.output]}


@case
def lora_is_the_name(s: Setting) -> Any:
    plain = files(s.client.run("acme/plain", input=s.quick()))
    named = files(s.client.run("acme/plain", input=s.quick(lora="sticker.safetensors")))
    return plain + named + files(s.client.run("acme/flux", input=s.quick()))


@case
def wait_ends_before(s: Setting) -> Any:
    start = time.monotonic()
    create = s.client.models.predictions.create
    made = create("acme/flux", input=s.slow(num_inference_steps=50), wait=1)
    found = {"status": made.status, "seconds": time.monotonic() - start}
    made.cancel()
    return found


@case
def cancel(s: Setting) -> Any:
    made = s.client.predictions.create(version=s.version, input=s.slow())
    behind = s.client.predictions.create(version=s.version, input=s.slow())
    queued = s.client.predictions.cancel(behind.id)
    start = time.monotonic()
    made.cancel()
    made.wait()
    seconds = time.monotonic() - start
    ended = s.client.predictions.get(behind.id)
    return {"running": made.dict(), "queued": [queued.dict(), ended.dict()], "seconds": seconds}


@case
def progress(s: Setting) -> Any:
    made = s.client.predictions.create(version=s.version, input=s.slow())
    seen = []
    while made.status in ("starting", "processing"):
        if made.progress is not None:
            seen.append(list(made.progress.__dict__.values()))
        time.sleep(0.1)
        made.reload()
    seen.append(list(made.progress.__dict__.values()))
    return seen


@case
def listed(s: Setting) -> Any:
    made = s.client.predictions.create(version=s.version, input=s.quick(), wait=True)
    pages = list(replicate.paginate(s.client.predictions.list))
    return {"made": made.id, "pages": [[each.dict() for each in page.results] for page in pages]}


@case
def file_base64(s: Setting) -> Any:
    request = s.quick(image=Path(s.image))
    return files(s.client.run("acme/flux", input=request, file_encoding_strategy="base64"))


@case
def file_guarded(s: Setting) -> Any:
    client = Client(base_url=s.front, api_token=s.token)
    return files(client.run("acme/flux", input=s.quick(image=Path(s.image))))


@case
def file_kept(s: Setting) -> Any:
    made = s.client.files.create(Path(s.image), metadata={"case": 1})
    found = s.client.files.get(made.id)
    listed = [each.id for each in s.client.files.list()]
    deleted = s.client.files.delete(made.id)
    left = [each.id for each in s.client.files.list()]
    return {
        "made": made.dict(),
        "found": found.dict(),
        "listed": listed,
        "deleted": deleted,
        "left": left,
    }


@case
def stream(s: Setting) -> Any:
    events = s.client.stream("acme/flux", input=s.quick(num_inference_steps=2))
    return [[each.event.value, _data(each), each.id] for each in events]


@case
def stream_of_prediction(s: Setting) -> Any:
    made = s.client.predictions.create(version=s.version, input=s.quick(), stream=True)
    return [[each.event.value, _data(each), each.id] for each in made.stream()]


def _data(event: Any) -> Any:
    # A client makes a file of an output's address.
    return files([event.data]) if hasattr(event.data, "read") else event.data


@case
def model(s: Setting) -> Any:
    found = s.client.models.get("acme/flux")
    versions = found.versions.list().results
    version = found.versions.get(s.version)
    return {
        "owner": found.owner,
        "name": found.name,
        "latest": found.latest_version.id,
        "versions": [each.id for each in versions],
        "schema": version.openapi_schema,
    }


@case
def latest_version(s: Setting) -> Any:
    version = s.client.models.get("acme/flux").latest_version
    return s.client.predictions.create(version=version, input=s.quick(), wait=True).dict()


@case
def deployment(s: Setting) -> Any:
    found = s.client.deployments.get("acme/flux")
    return [found.owner, found.name]


@case
def account(s: Setting) -> Any:
    return s.client.accounts.current().dict()


@case
def hardware(s: Setting) -> Any:
    return [each.dict() for each in s.client.hardware.list()]


@case
def webhook(s: Setting) -> Any:
    name = "python1"
    hook = {"webhook": f"{s.receiver}/{name}"}
    made = s.client.predictions.create(version=s.version, input=s.quick(), **hook)
    secret = s.client.webhooks.default.secret()
    came = s.delivered(name)
    for each in came:
        told = {"headers": each["headers"], "body": each["body"], "secret": secret}
        s.client.webhooks.validate(**told, tolerance=300)
    return {"made": made.id, "came": came}


@case
def unknown_field(s: Setting) -> Any:
    return s.client.predictions.create(
        version=s.version, input=s.quick(disco_mode="zebra-7731"), wait=True
    ).dict()


@case
def error_no_prediction(s: Setting) -> Any:
    s.client.predictions.get("a" * 26)


@case
def error_token(s: Setting) -> Any:
    Client(base_url=s.front, api_token=s.wrong).models.predictions.create("acme/flux", input={})


@case
def error_of_another(s: Setting) -> Any:
    client = Client(base_url=s.front, api_token=s.token)
    made = client.predictions.create(version=s.version, input=s.quick(), wait=True)
    Client(base_url=s.front, api_token=s.others).predictions.get(made.id)


@case
def error_not_allowed(s: Setting) -> Any:
    client = Client(base_url=s.front, api_token=s.token)
    client.models.predictions.create("somebody/model", input=s.quick())


@case
def error_full(s: Setting) -> Any:
    client = Client(base_url=s.front, api_token=s.token)
    made = []
    try:
        for _ in range(5):
            made.append(client.predictions.create(version=s.version, input=s.slow()))  # noqa: PERF401 - kept until one is refused
    finally:
        for each in made:
            each.cancel()


def refused(s: Setting, request: dict[str, Any]) -> Any:
    return s.client.predictions.create(version=s.version, input=request).id


def client(s: Setting) -> Client:
    return Client(base_url=s.open, api_token=s.token)


if __name__ == "__main__":
    script.main(client, refused)
