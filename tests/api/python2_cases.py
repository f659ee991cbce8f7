"""What people do with replicate 2.x for Python; see `script.py`."""

from __future__ import annotations

import asyncio
import importlib
import io
import os
import time
import warnings
from pathlib import Path
from typing import Any

from api.python_cases import shared
from api.script import Script, Setting, files

# In `.venv` lies 1.0.7, whose types are others.
replicate: Any = importlib.import_module("replicate")

script = Script(shared)
case = script.case


@case
def run_async(s: Setting) -> Any:
    async def run() -> Any:
        client = replicate.AsyncReplicate(base_url=f"{s.open}/v1", bearer_token=s.token)
        async with client:
            output = await client.run("acme/flux", input=s.quick())
            return [await each.read() for each in output]

    (data,) = asyncio.run(run())
    return files([io.BytesIO(data)])


@case
def run_https(s: Setting) -> Any:
    return files(guarded(s).run("acme/flux", input=s.quick()))


@case
def run_base_without_v1(s: Setting) -> Any:
    client = replicate.Replicate(base_url=s.open, bearer_token=s.token)
    return files(client.run(f"acme/flux:{s.version}", input=s.quick()))


@case
def run_default_client(s: Setting) -> Any:
    return files(replicate.run("acme/flux", input=s.quick()))


@case
def use_model(s: Setting) -> Any:
    # What has a data: address stays a text here, which the clients' own functions do not read.
    return [text[:23] for text in replicate.use("acme/flux")(**s.quick())]


@case
def use_mapped(s: Setting) -> Any:
    # It calls the version that the model is said to have, alone.
    return [text[:23] for text in replicate.use("acme/plain")(**s.quick())]


@case
def use_without_lora(s: Setting) -> Any:
    return [text[:23] for text in replicate.use("black-forest-labs/flux-dev")(**s.quick())]


@case
def use_unmapped(s: Setting) -> Any:
    # Nobody has named this one: its weights would be fetched, if it did not bring its own.
    run = replicate.use("somebody/unmapped")
    return [text[:23] for text in run(**s.quick(lora=s.lora))]


@case
def use_version(s: Setting) -> Any:
    run = replicate.use(f"acme/flux:{s.version}").create(**s.quick())
    return [[text[:23] for text in run.output()], run.logs()]


@case
def use_streaming(s: Setting) -> Any:
    run = replicate.use("acme/flux", streaming=True)
    return [str(each)[:23] for each in run(**s.quick())]


@case
def use_https(s: Setting) -> Any:
    before = os.environ["REPLICATE_BASE_URL"], os.environ["REPLICATE_API_TOKEN"]
    os.environ |= {"REPLICATE_BASE_URL": f"{s.front}/v1", "REPLICATE_API_TOKEN": s.token}
    try:
        paths = replicate.use(f"acme/flux:{s.version}")(**s.quick())
        return files([io.BytesIO(Path(each).read_bytes()) for each in paths])
    finally:
        os.environ["REPLICATE_BASE_URL"], os.environ["REPLICATE_API_TOKEN"] = before


@case
def run_latest_version(s: Setting) -> Any:
    # The client calls the version alone, as it was told it.
    latest = s.client.models.get(model_owner="acme", model_name="plain").latest_version
    return files(s.client.run(f"acme/plain:{latest.id}", input=s.quick()))


@case
def create_version(s: Setting) -> Any:
    made = s.client.predictions.create(version=s.version, input=s.quick(), cancel_after="1m")
    return {**plain(s.client.predictions.wait(made.id)), "first": made.status}


@case
def create_slug(s: Setting) -> Any:
    made = s.client.predictions.create(version="acme/flux", input=s.quick(), prefer="wait=5")
    return plain(made)


@case
def create_wait(s: Setting) -> Any:
    return plain(s.client.predictions.create(version=s.version, input=s.quick(), prefer="wait"))


@case
def create_model(s: Setting) -> Any:
    return plain(create(s.client, s.quick()))


@case
def create_deployment(s: Setting) -> Any:
    made = s.client.deployments.predictions.create(
        deployment_owner="acme", deployment_name="flux", input=s.quick(), prefer="wait"
    )
    return plain(made)


@case
def get(s: Setting) -> Any:
    made = create(s.client, s.quick())
    return [plain(made), plain(s.client.predictions.get(prediction_id=made.id))]


@case
def seed_again(s: Setting) -> Any:
    first = create(s.client, s.quick(seed=None))
    seed = int(first.logs.partition("Using seed: ")[2].split()[0])
    second = create(s.client, s.quick(seed=seed))
    return {"seed": seed, "outputs": [first.output, second.output]}


@case
def wait_ends_before(s: Setting) -> Any:
    start = time.monotonic()
    made = create(s.client, s.slow(num_inference_steps=50), prefer="wait=1")
    seconds = time.monotonic() - start
    s.client.predictions.cancel(prediction_id=made.id)
    return {"status": made.status, "seconds": seconds}


@case
def cancel(s: Setting) -> Any:
    made = s.client.predictions.create(version=s.version, input=s.slow())
    behind = s.client.predictions.create(version=s.version, input=s.slow())
    queued = s.client.predictions.cancel(prediction_id=behind.id)
    start = time.monotonic()
    s.client.predictions.cancel(prediction_id=made.id)
    running = s.client.predictions.wait(made.id)
    seconds = time.monotonic() - start
    ended = s.client.predictions.get(prediction_id=behind.id)
    return {"running": plain(running), "queued": [plain(queued), plain(ended)], "seconds": seconds}


@case
def cancel_after(s: Setting) -> Any:
    made = s.client.predictions.create(version=s.version, input=s.slow(), cancel_after="1s")
    return plain(s.client.predictions.wait(made.id))


@case
def repeated(s: Setting) -> Any:
    """The client gives up waiting, and asks once more by itself."""
    before = {each.id for each in s.client.predictions.list()}
    impatient = s.client.with_options(timeout=0.5, max_retries=3)
    made = create(impatient, s.slow(num_inference_steps=10))
    after = {each.id for each in s.client.predictions.list()}
    return {"made": plain(made), "new": sorted(after - before)}


@case
def listed(s: Setting) -> Any:
    made = create(s.client, s.quick())
    return {"made": made.id, "pages": [[plain(each) for each in s.client.predictions.list()]]}


@case
def file_base64(s: Setting) -> Any:
    with Path(s.image).open("rb") as file:
        request = s.quick(image=file)
        return files(s.client.run("acme/flux", input=request, file_encoding_strategy="base64"))


@case
def file_guarded(s: Setting) -> Any:
    return files(guarded(s).run("acme/flux", input=s.quick(image=Path(s.image))))


@case
def file_kept(s: Setting) -> Any:
    made = s.client.files.create(
        content=Path(s.image).read_bytes(), filename="image.png", metadata={"case": 1}
    )
    found = s.client.files.get(file_id=made.id)
    listed = [each.id for each in s.client.files.list()]
    s.client.files.delete(file_id=made.id)
    left = [each.id for each in s.client.files.list()]
    return {
        "made": plain(made),
        "found": plain(found),
        "listed": listed,
        "deleted": True,
        "left": left,
    }


@case
def stream(s: Setting) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        events = replicate.stream("acme/flux", input=s.quick())
    return [str(each)[:23] for each in events]


@case
def model(s: Setting) -> Any:
    name = {"model_owner": "acme", "model_name": "flux"}
    found = s.client.models.get(**name)
    versions = s.client.models.versions.list(**name).results
    version = s.client.models.versions.get(**name, version_id=s.version)
    return {
        "owner": found.owner,
        "name": found.name,
        "latest": found.latest_version.id,
        "versions": [each.id for each in versions],
        "schema": version.openapi_schema,
    }


@case
def deployment(s: Setting) -> Any:
    found = s.client.deployments.get(deployment_owner="acme", deployment_name="flux")
    return [found.owner, found.name]


@case
def account(s: Setting) -> Any:
    return plain(s.client.account.get())


@case
def hardware(s: Setting) -> Any:
    return [plain(each) for each in s.client.hardware.list()]


@case
def webhook(s: Setting) -> Any:
    """It has nothing that checks a signature, so it only asks for the secret."""
    name = "python2"
    hook = {"webhook": f"{s.receiver}/{name}", "webhook_events_filter": ["completed"]}
    made = s.client.predictions.create(version=s.version, input=s.quick(), **hook)
    secret = s.client.webhooks.default.secret.get().key
    return {"made": made.id, "came": s.delivered(name), "secret": secret}


@case
def unknown_field(s: Setting) -> Any:
    return plain(create(s.client, s.quick(disco_mode="zebra-7731")))


@case
def error_no_prediction(s: Setting) -> Any:
    s.client.predictions.get(prediction_id="a" * 26)


@case
def error_token(s: Setting) -> Any:
    create(guarded(s, s.wrong), {})


@case
def error_of_another(s: Setting) -> Any:
    made = create(guarded(s), s.quick())
    guarded(s, s.others).predictions.get(prediction_id=made.id)


@case
def error_not_allowed(s: Setting) -> Any:
    client = guarded(s).models.predictions
    client.create(model_owner="somebody", model_name="model", input=s.quick())


@case
def error_full(s: Setting) -> Any:
    # Left to itself it waits as long as the answer says, and asks again.
    client = guarded(s).with_options(max_retries=0)
    made = []
    try:
        for _ in range(5):
            made.append(client.predictions.create(version=s.version, input=s.slow()))  # noqa: PERF401 - kept until one is refused
    finally:
        for each in made:
            client.predictions.cancel(prediction_id=each.id)


def create(client: Any, request: dict[str, Any], prefer: str = "wait") -> Any:
    """Make a prediction of acme/flux and wait for it."""
    name = {"model_owner": "acme", "model_name": "flux"}
    return client.models.predictions.create(**name, input=request, prefer=prefer)


def plain(found: Any) -> Any:
    """An object of the client as JSON says it."""
    return found.model_dump(mode="json")


def guarded(s: Setting, token: str = "") -> Any:
    return replicate.Replicate(base_url=f"{s.front}/v1", bearer_token=token or s.token)


def refused(s: Setting, request: dict[str, Any]) -> Any:
    return s.client.predictions.create(version=s.version, input=request).id


def client(s: Setting) -> Any:
    return replicate.Replicate(base_url=f"{s.open}/v1", bearer_token=s.token)


if __name__ == "__main__":
    script.main(client, refused)
