"""What the hosted model's API costs over ComfyUI's own, and comfy-api-proxy beside it.

    python3 dev.py bench hosted_api

All ask one ComfyUI, small models on the CPU, in turns: by its own API (POST /prompt, websocket,
/history, /view), by ours (one call that waits), by comfy-api-proxy (a job, whose events are read,
or that is polled each 10 ms). The first table asks for a picture that ComfyUI has kept, all but its
file: what is left is what each way adds. The second draws new pictures, several clients at a time.
Writes bench/results/hosted_api.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import aiohttp
from common import RESULTS, ROOT, SMALL_PICTURE, machine, summary, write
from environment import tools_python

sys.path.append(str(ROOT / "tests"))
sys.path.append(str(ROOT))

from runtime.comfyui import find_comfyui
from runtime.environment import clean_env
from runtime.models import small_models
from runtime.server import ComfyServer, free_port

from flux_hotswap.prediction.fill import fill_prompt, save_as

REQUEST = {**SMALL_PICTURE, "prompt": "a red circle", "output_format": "webp"}
MODEL = "black-forest-labs/flux-dev"
CLIENTS = 4
POLL = 0.01
Way = Callable[[dict[str, Any]], Awaitable[int]]
"""Draws a request and returns the bytes of the picture."""

Wait = Callable[[aiohttp.ClientSession, str], Awaitable[dict[str, Any]]]
"""Waits for a job at an address and returns it."""


def prompt_for(request: dict[str, Any], numbers: Iterator[int]) -> dict[str, Any]:
    """Return ComfyUI's prompt for a request; each has a file of its own, as ours has."""
    path = ROOT / "workflows" / "api" / "text_to_image.json"
    prompt = fill_prompt(json.loads(path.read_text(encoding="utf-8")), request)
    save_as(prompt, f"bench/{next(numbers)}")
    return prompt


def comfyui(session: aiohttp.ClientSession, url: str, numbers: Iterator[int]) -> Way:
    """Return the way by ComfyUI's own API."""

    async def draw(request: dict[str, Any]) -> int:
        client = uuid.uuid4().hex
        async with session.ws_connect(f"{url}/ws?clientId={client}", max_msg_size=0) as socket:
            body = {"prompt": prompt_for(request, numbers), "client_id": client}
            async with session.post(f"{url}/prompt", json=body) as answer:
                wanted = (await answer.json())["prompt_id"]
            async for message in socket:
                told = json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else {}
                data = told.get("data") or {}
                ended = told.get("type") == "executing" and data.get("node") is None
                if ended and data.get("prompt_id") == wanted:
                    break
        async with session.get(f"{url}/history/{wanted}") as answer:
            outputs = (await answer.json())[wanted]["outputs"]
        (image,) = [each for shown in outputs.values() for each in shown.get("images", [])]
        async with session.get(f"{url}/view", params=image) as answer:
            return len(await answer.read())

    return draw


def ours(session: aiohttp.ClientSession, url: str) -> Way:
    """Return the way by our API: one call that waits."""

    async def draw(request: dict[str, Any]) -> int:
        where = f"{url}/v1/models/{MODEL}/predictions"
        body, wait = {"input": request}, {"Prefer": "wait"}
        async with session.post(where, json=body, headers=wait) as answer:
            told = await answer.json()
        _check(told)
        return len(told["output"][0])

    return draw


def proxy(session: aiohttp.ClientSession, url: str, numbers: Iterator[int], wait: Wait) -> Way:
    """Return the way by comfy-api-proxy: a job, waited for in one of its ways."""

    async def draw(request: dict[str, Any]) -> int:
        body = {"workflow": prompt_for(request, numbers)}
        async with session.post(f"{url}/api/v2/jobs", json=body) as answer:
            address = f"{url}/api/v2/jobs/{(await answer.json())['id']}"
        job = await wait(session, address)
        _check(job)
        output = next(each for each in job["outputs"] if "id" in each)
        async with session.get(f"{url}/api/v2/assets/{output['id']}/content") as answer:
            return len(await answer.read())

    return draw


async def events(session: aiohttp.ClientSession, address: str) -> dict[str, Any]:
    """Wait for a job of comfy-api-proxy by its stream of events, which ends with it."""
    async with session.get(f"{address}/events") as stream:
        await stream.read()
    async with session.get(address) as answer:
        return await answer.json()


async def polls(session: aiohttp.ClientSession, address: str) -> dict[str, Any]:
    """Wait for a job of comfy-api-proxy by asking for it each `POLL` seconds."""
    while True:
        async with session.get(address) as answer:
            job = await answer.json()
        if job["status"] in ("succeeded", "failed", "canceled"):
            return job
        await asyncio.sleep(POLL)


def _check(told: dict[str, Any]) -> None:
    if told["status"] != "succeeded":
        raise RuntimeError(f"no picture: {told}")


@contextlib.contextmanager
def api(state: Path, *comfyuis: str) -> Iterator[str]:
    """Run our API over ComfyUIs; its address."""
    words = [word for url in comfyuis for word in ("--comfyui", url)]
    command = [sys.executable, "-m", "hosted_api", "--port", "0", "--state", str(state), *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        env={**clean_env(), "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        yield cast("IO[str]", process.stdout).readline().split()[-1]
        process.terminate()


@contextlib.contextmanager
def peer(comfyui: str) -> Iterator[str]:
    """Run comfy-api-proxy over a ComfyUI; its address."""
    port = free_port()
    program = Path(tools_python()).with_name("comfy-api-proxy")
    command = [str(program), "--comfyui", comfyui, "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_env()
    ) as process:
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@contextlib.asynccontextmanager
async def answering(session: aiohttp.ClientSession, url: str) -> AsyncIterator[None]:
    """Wait until an address answers 200."""
    for _ in range(600):
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(url) as answer:
                if answer.status == 200:
                    yield
                    return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{url} does not answer")


async def latency(ways: dict[str, Way], runs: int) -> dict[str, list[float]]:
    """Let each way fetch the kept picture, in turns."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            await way({**REQUEST, "seed": 1})
            found[name].append(time.perf_counter() - begun)
    return {name: values[1:] for name, values in found.items()}


async def throughput(way: Way, seeds: Iterator[int], many: int) -> float:
    """Draw new pictures with `CLIENTS` clients; pictures a minute."""
    left = iter(range(many))

    async def client() -> None:
        for _ in left:
            await way({**REQUEST, "seed": next(seeds)})

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return many / (time.perf_counter() - begun) * 60


async def measure(first: str, second: str, runs: int, many: int) -> dict[str, Any]:
    """Measure all ways over one ComfyUI, and ours over two."""
    numbers, seeds = itertools.count(), itertools.count(100)
    timeout = aiohttp.ClientTimeout(total=600)
    with (
        tempfile.TemporaryDirectory() as state,
        api(Path(state, "one"), first) as one,
        api(Path(state, "two"), first, second) as two,
        peer(first) as beside,
    ):
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            answering(session, f"{one}/readyz"),
            answering(session, f"{two}/readyz"),
            answering(session, f"{beside}/api/v2/health"),
        ):
            ways = {
                "comfyui": comfyui(session, first, numbers),
                "ours": ours(session, one),
                "comfy_api_proxy": proxy(session, beside, numbers, events),
                "comfy_api_proxy_polled": proxy(session, beside, numbers, polls),
            }
            waited = await latency(ways, runs)
            ways["ours_on_two"] = ours(session, two)
            await throughput(ways["ours_on_two"], seeds, CLIENTS)  # the second loads its models
            rates: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(3):
                for name, way in ways.items():
                    rates[name].append(round(await throughput(way, seeds, many), 1))
    return {
        "kept_picture": {name: summary(values) for name, values in waited.items()},
        "pictures_a_minute": rates,
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "hosted_api.json")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--pictures", type=int, default=24)
    options = parser.parse_args()
    found = find_comfyui()
    servers = [ComfyServer(found, models=small_models()) for _ in range(2)]
    with servers[0] as first, servers[1] as second:
        measured = asyncio.run(measure(first.url, second.url, options.runs, options.pictures))
    setup = {
        "comfyui": found.version,
        "comfy-api-proxy": "0.1.6",
        "clients": CLIENTS,
        "picture": "256x256, 4 steps",
    }
    write(options.output, {"machine": machine("torch", "aiohttp"), "setup": setup, **measured})


if __name__ == "__main__":
    main()
