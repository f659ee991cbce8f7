"""Asks for pictures by plain HTTP, for tests that kill what answers."""

from __future__ import annotations

import base64
import io
import time
from typing import Any

import numpy as np
import requests
from PIL import Image

from api.hosted import HostedApi
from api.receiver import Receiver

SIZE = (256, 256)
QUICK = {
    "prompt": "a red circle",
    "aspect_ratio": "custom",
    "width": SIZE[0],
    "height": SIZE[1],
    "num_inference_steps": 1,
    "seed": 7,
    "go_fast": False,
    "disable_safety_checker": True,
}
"""Half a second on one core; as long as nobody asks for another picture, a tenth of that."""
SLOW = {**QUICK, "num_inference_steps": 14, "output_format": "png"}
"""Two seconds: time for a kill in its midst."""
MODEL = "black-forest-labs/flux-dev"
WAIT = 60.0


def until_health(url: str, status: str) -> None:
    """Wait until the API there says of itself that it is READY, or BUSY."""
    end = time.monotonic() + WAIT
    while (told := requests.get(f"{url}/health-check", timeout=30).json())["status"] != status:
        assert time.monotonic() < end, told
        time.sleep(0.02)  # between polls


class Caller:
    """Calls the API, whichever process answers at the moment."""

    def __init__(self, api: HostedApi, receiver: Receiver | None = None) -> None:
        self.api = api
        self._receiver = receiver

    def create(self, seed: int, **headers: str) -> str:
        """Ask for a picture; the id of the prediction."""
        body: dict[str, Any] = {"input": {**SLOW, "seed": seed}}
        if self._receiver is not None:
            body["webhook"] = f"{self._receiver.url}/seed-{seed}"
            body["webhook_events_filter"] = ["completed"]
        url = f"{self.api.url}/v1/models/{MODEL}/predictions"
        answer = requests.post(url, json=body, headers=headers, timeout=90)
        assert answer.status_code in (201, 202), answer.text
        return answer.json()["id"]

    def get(self, job: str) -> dict[str, Any]:
        return requests.get(f"{self.api.url}/v1/predictions/{job}", timeout=30).json()

    def cancel(self, job: str) -> dict[str, Any]:
        return requests.post(f"{self.api.url}/v1/predictions/{job}/cancel", timeout=30).json()

    def until_steps(self, job: str) -> None:
        """Wait until it is in the midst of its steps."""
        self._until(job, lambda told: "%|" in told["logs"].rpartition("again")[2])

    def end(self, job: str) -> dict[str, Any]:
        return self._until(job, lambda told: told["completed_at"] is not None)

    def pixels(self, job: str) -> np.ndarray[Any, Any]:
        told = self.end(job)
        assert told["status"] == "succeeded", told
        (output,) = told["output"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(output.partition(",")[2]))))

    def _until(self, job: str, done: Any) -> dict[str, Any]:
        end, told = time.monotonic() + WAIT, self.get(job)
        while time.monotonic() < end:
            if done(told):
                return told
            time.sleep(0.05)  # between polls, as clients do
            told = self.get(job)
        raise AssertionError(
            f"{job} did not get there in {WAIT:.0f} s: {told}\n{self.api.log_text()}"
        )
