"""Many predictions through the hosted model's API while ComfyUI, the API or both are killed.

    python3 dev.py bench soak_api

Several clients ask at a time, each call under an Idempotency-Key, and again when nobody answers.
Every few seconds something is killed. In the end each prediction has to have ended once, each
webhook to have come under one id, no file to be left over, and pictures drawn through kills to
equal those of the same requests drawn alone. Writes bench/results/soak_api.json.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import itertools
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import requests
from common import RESULTS, ROOT, SMALL_PICTURE, machine, write
from PIL import Image

sys.path.append(str(ROOT / "tests"))
sys.path.append(str(ROOT))

from api.hosted import HostedApi
from api.receiver import Receiver
from runtime.comfyui import find_comfyui
from runtime.models import small_models
from runtime.server import ComfyServer, free_port

REQUEST = {**SMALL_PICTURE, "output_format": "png"}
PATH = "/v1/models/black-forest-labs/flux-dev/predictions"
CLIENTS = 4
WHATS = ("comfyui", "api", "both")


class Soak:
    """One run.

    Args:
        folder: of its state and logs.
        many: so many predictions.
        pause: seconds between two kills, at least; each waits until something has ended.
    """

    def __init__(self, folder: Path, many: int, pause: float) -> None:
        self.receiver = Receiver()
        server = ComfyServer(find_comfyui(), models=small_models(), base=folder / "comfyui")
        env = {**server.environment, "FLUX_HOTSWAP_ALLOW_HOSTS": f"127.0.0.1:{self.receiver.port}"}
        self._port = free_port()
        # Attempts are for jobs that kill their worker; here something else does.
        words = [*server.prepared(), "--port", str(self._port), "--queue", "1000"]
        self.api = HostedApi(folder, "", *words, env=env)
        self._url = f"http://127.0.0.1:{self._port}"
        self._many, self._pause = many, pause
        self._over = threading.Event()
        self.kills = dict.fromkeys(WHATS, 0)
        self.told: dict[int, dict[str, Any]] = {}

    def run(self) -> dict[str, Any]:
        """Draw, kill, and look at what came of it."""
        begun = time.monotonic()
        with self.api, ThreadPoolExecutor(CLIENTS + 1) as pool:
            self._draw(0)  # it is up
            killing = pool.submit(self._kill)
            list(pool.map(self._draw, range(1, self._many)))
            self._over.set()
            killing.result()
            problems = [*self._ends(), *self._again(), *self._files()]
        return {
            "predictions": len(self.told),
            "kills": self.kills,
            "drawn_again": sum("drawn again" in told["logs"] for told in self.told.values()),
            "webhooks": len(self.told),
            "problems": problems,
            "minutes": round((time.monotonic() - begun) / 60, 1),
        }

    # --- clients ---

    def _draw(self, seed: int) -> None:
        body = {
            "input": {**REQUEST, "prompt": f"picture {seed}", "seed": seed},
            "webhook": f"{self.receiver.url}/{seed}",
            "webhook_events_filter": ["completed"],
        }
        made = self._call("POST", PATH, json=body, headers={"Idempotency-Key": f"soak {seed}"})
        while made["completed_at"] is None:
            time.sleep(0.2)  # as clients poll
            made = self._call("GET", f"/v1/predictions/{made['id']}")
        self.told[seed] = made

    def _call(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """Call until somebody answers: the API is away for a second after each kill."""
        while True:
            try:
                answer = requests.request(method, f"{self._url}{path}", timeout=60, **more)
            except requests.ConnectionError:
                time.sleep(0.2)  # until it is back
                continue
            answer.raise_for_status()
            return answer.json()

    # --- kills ---

    def _kill(self) -> None:
        for what in itertools.cycle(WHATS):
            before, pause = len(self.told), self._pause * random.uniform(0.5, 1.5)
            while not self._over.wait(pause) and len(self.told) == before:
                pause = 1.0  # what was killed takes a while to be back
            if self._over.is_set():
                return
            self.kills[what] += 1
            if what in ("comfyui", "both"):
                for child in psutil.Process(self.api.pid).children(recursive=True):
                    child.kill()
            if what in ("api", "both"):
                self.api.kill()
                self.api.__enter__()

    # --- what came of it ---

    def _ends(self) -> list[str]:
        """Name predictions that did not end well, and webhooks that came under several ids."""
        problems = [
            f"{seed}: {told['status']} {told['error']}"
            for seed, told in self.told.items()
            if told["status"] != "succeeded"
        ]
        for seed in self.told:
            ids = {each.headers["webhook-id"] for each in self.receiver.wait(str(seed))}
            problems += [f"{seed}: {len(ids)} webhooks"] if len(ids) != 1 else []
        made = self._call("GET", "/v1/predictions?created_after=2000-01-01T00:00:00Z")
        ids = [told["id"] for told in made["results"]]
        return problems + ([] if len(set(ids)) == len(ids) else ["a prediction is listed twice"])

    def _again(self) -> list[str]:
        """Name pictures that differ when they are drawn alone, of those drawn through a kill."""
        through = [seed for seed, told in self.told.items() if "drawn again" in told["logs"]]
        problems = []
        for seed in through[:10]:
            body = {"input": {**REQUEST, "prompt": f"picture {seed}", "seed": seed}}
            alone = self._call("POST", PATH, json=body, headers={"Prefer": "wait"})
            if pixels(alone) != pixels(self.told[seed]):
                problems.append(f"{seed}: another picture")
        return problems

    def _files(self) -> list[str]:
        """Name files that belong to no prediction."""
        outputs = self.api.state / "outputs"
        twice = [path.name for path in outputs.iterdir() if len(list(path.iterdir())) != 1]
        left = [path.name for path in (self.api.state / "comfyui-0" / "output").rglob("*.png")]
        return [f"files of {name}" for name in twice + left]


def pixels(told: dict[str, Any]) -> str:
    """Return a hash of a prediction's picture."""
    data = base64.b64decode(told["output"][0].partition(",")[2])
    return hashlib.sha256(Image.open(io.BytesIO(data)).tobytes()).hexdigest()


def main() -> None:
    """Run and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "soak_api.json")
    parser.add_argument("--predictions", type=int, default=300)
    parser.add_argument("--pause", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = Soak(Path(folder), options.predictions, options.pause).run()
    setup = {"clients": CLIENTS, "picture": "256x256, 4 steps", "comfyui": find_comfyui().version}
    write(options.output, {"machine": machine("torch", "aiohttp"), "setup": setup, **found})
    if found["problems"]:
        raise SystemExit("\n".join(found["problems"]))


if __name__ == "__main__":
    main()
