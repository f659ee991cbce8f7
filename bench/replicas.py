"""Our API over Ray Serve's replicas and without Ray, one after the other; kills; LoRAs in turn.

    python3 dev.py bench replicas

Small models on the CPU, one core for each ComfyUI; all in one run:

- the same calls to our API over ComfyUIs that it starts itself and over replicas of Ray;
- each part of the cluster is killed while a picture is drawn: seconds until that picture is there,
  and until everything is as it was;
- pictures of two models with four LoRAs each, mixed, by our dispatcher and by Ray's own router:
  what the replicas had to load, from what they wrote down themselves.

Writes bench/results/replicas.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import requests
from common import RESULTS, ROOT, SMALL_PICTURE, machine, summary, write

sys.path.append(str(ROOT / "tests"))
sys.path.append(str(ROOT))

from api.hosted import HostedApi
from cluster.farm import START_SECONDS, Farm, cluster_env, farm, small_server
from mini_flux import loras
from runtime.ray import ensure_ray

REQUEST = {**SMALL_PICTURE, "prompt": "a red circle", "output_format": "webp"}
MODEL = "black-forest-labs/flux-dev"
CLIENTS = 4
CALLERS = 24
"""Of the mix: with few, little waits, and there is nothing to choose from."""

KINDS = [(model, f"mixed{number}.safetensors") for model in ("dev", "schnell") for number in "1234"]
KILLS = ("comfyui", "replica", "proxy", "controller")
seeds = itertools.count(1000)


def draw(url: str, request: dict[str, Any]) -> float:
    """Draw a request; the seconds until it was there."""
    begun = time.monotonic()
    body = {"input": request}
    path = f"{url}/v1/models/{MODEL}/predictions"
    told = requests.post(path, json=body, headers={"Prefer": "wait=59"}, timeout=120).json()
    while told.get("completed_at") is None:
        time.sleep(0.1)
        told = requests.get(f"{url}/v1/predictions/{told['id']}", timeout=30).json()
    if told["status"] != "succeeded":
        raise RuntimeError(f"{told}")
    return time.monotonic() - begun


def fresh() -> dict[str, Any]:
    """Return a request that was not drawn before."""
    return {**REQUEST, "seed": next(seeds)}


def a_minute(url: str, many: int) -> float:
    """Pictures a minute of several clients."""
    begun = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda _: draw(url, fresh()), range(many)))
    return round(many / (time.monotonic() - begun) * 60, 1)


def rates(url: str, many: int, workers: int) -> list[float]:
    """Pictures a minute, three times."""
    with ThreadPoolExecutor(workers) as pool:  # each ComfyUI loads its models first
        list(pool.map(lambda _: draw(url, fresh()), range(2 * workers)))
    return [a_minute(url, many) for _ in range(3)]


def kept(url: str, runs: int) -> list[float]:
    """Seconds of a picture that ComfyUI has kept."""
    request = fresh()
    return [draw(url, request) for _ in range(runs + 3)][3:]


def ready(api: HostedApi, workers: int) -> float:
    """Wait until so many draw; the seconds that took."""
    begun = time.monotonic()
    while True:
        told = requests.get(f"{api.url}/readyz", timeout=30).json()["workers"].values()
        if sum(state.startswith("ready") for state in told) == workers:
            return round(time.monotonic() - begun, 1)
        if time.monotonic() - begun > START_SECONDS:
            raise RuntimeError(api.log_text())
        time.sleep(0.1)


def own_ray(folder: Path, workers: int, runs: int, many: int) -> dict[str, Any]:
    """The API with a cluster of its own."""
    server = small_server(folder)
    words = ("--workers", "ray", "--replicas", str(workers))
    with HostedApi(folder, "", *server.prepared(), *words, env=cluster_env(server)) as api:
        found: dict[str, Any] = {"start_seconds": ready(api, workers)}
        found["rates"] = rates(api.url, many, workers)
        found["kept"] = kept(api.url, runs) if runs else []
        children = psutil.Process(api.pid).children(recursive=True)
        ours = [each for each in children if "child.py" not in " ".join(each.cmdline())]
        found["ray_mb"] = round(sum(each.memory_full_info().pss for each in ours) / 2**20)
        found["ray_processes"] = len(ours)
    return found


def local(folder: Path, workers: int, runs: int, many: int) -> dict[str, Any]:
    """The API with ComfyUIs that it starts itself."""
    server = small_server(folder)
    words = server.prepared()
    env = {**server.environment, "OMP_NUM_THREADS": "1"}
    with HostedApi(folder, "", *words[:2] * (workers - 1), *words, env=env) as api:
        found: dict[str, Any] = {"start_seconds": ready(api, workers)}
        found["rates"] = rates(api.url, many, workers)
        found["kept"] = kept(api.url, runs) if runs else []
    return found


def recovery(made: Farm, runs: int) -> dict[str, Any]:
    """Kill each part in the midst of a draw."""
    found: dict[str, Any] = {what: {"picture": [], "whole": []} for what in (*KILLS, "api")}
    for what, _ in itertools.product(found, range(runs)):
        made.wait()
        job = made.caller.create(next(seeds))
        made.caller.until_steps(job)
        begun = time.monotonic()
        if what == "api":
            made.api.kill()
            made.api.__enter__()
        else:
            made.kill(what)
        made.caller.pixels(job)
        found[what]["picture"].append(round(time.monotonic() - begun, 1))
        made.wait()
        found[what]["whole"].append(round(time.monotonic() - begun, 1))
    return found


def mixed(made: Farm, folder: Path, many: int) -> dict[str, Any]:
    """Draw a mix by Ray's own router and by ours."""
    chosen = random.Random(24)
    requests_ = [
        {**REQUEST, "num_inference_steps": 2, "model": model, "lora": lora, "seed": number}
        for number, (model, lora) in enumerate(chosen.choices(KINDS, k=many))
    ]
    found: dict[str, Any] = {}
    for name in ("ray", "ours"):
        path = folder / f"ledger-{name}"
        path.touch()
        app = "flux_hotswap" if name == "ours" else "ray_router"
        # Two replicas at a time: the machine has two cores.
        made.head.ask("delete", "ray_router" if name == "ours" else "flux_hotswap")
        made.head.ask("ledger", [made.settings, app, str(path)])
        begun = time.monotonic()
        if name == "ours":
            made.wait()
            begun = time.monotonic()
            with ThreadPoolExecutor(CALLERS) as pool:
                took = list(pool.map(lambda each: draw(made.api.url, each), requests_))
        else:
            took = made.head.ask("mix", [app, requests_, CALLERS])
        found[name] = {
            "seconds": round(time.monotonic() - begun, 1),
            "wait_median": round(statistics.median(took), 2),
            "wait_worst": round(max(took), 2),
            **switches(path),
        }
    return found


def switches(ledger: Path) -> dict[str, int]:
    """What the replicas had to load after their first picture."""
    last: dict[int, list[Any]] = {}
    found = {"models": 0, "loras": 0, "drawn": 0}
    for line in ledger.read_text().splitlines():
        pid, *kind = json.loads(line)
        before = last.get(pid)
        if before is not None:
            found["models"] += before[:2] != kind[:2]
            found["loras"] += before != kind
        found["drawn"] += 1
        last[pid] = kind
    return found


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "replicas.json")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--mix", type=int, default=96)
    options = parser.parse_args()
    ensure_ray(print)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for workers in (1, 2):
            runs = options.runs if workers == 1 else 0
            for name, way in (("local", local), ("ray", own_ray)):
                folder = Path(scratch, f"{name}{workers}")
                found[f"{name}_{workers}"] = way(folder, workers, runs, options.pictures)
        with farm(Path(scratch, "farm")) as made:
            found["recovery"] = recovery(made, options.kills)
            for number in "1234":
                path = Path(
                    scratch, "farm", "comfyui", "models", "loras", f"mixed{number}.safetensors"
                )
                loras.write(loras.diffusers(loras.blocks(seed=int(number))), path)
            found["mix"] = mixed(made, Path(scratch), options.mix)
    for each in ("local_1", "ray_1"):
        found[each]["kept"] = summary(found[each]["kept"])
    setup = {
        "ray": "2.60.0",
        "clients": CLIENTS,
        "picture": "256x256, 4 steps",
        "kills": options.kills,
        "mix": options.mix,
    }
    write(options.output, {"machine": machine("torch", "aiohttp"), "setup": setup, **found})


if __name__ == "__main__":
    main()
