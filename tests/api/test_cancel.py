"""A prediction that is canceled early: before ComfyUI has begun it, or even heard of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from api.caller import MODEL, QUICK, WAIT, Caller, until_health
from api.hosted import HostedApi
from api.site import Site

LONG = {"width": 512, "height": 512, "num_inference_steps": 50}
"""Five seconds at the least."""


@pytest.fixture
def second(site: Site, tmp_path: Path) -> Iterator[Caller]:
    """Another API before the same ComfyUI; its prompts wait behind those of the first."""
    with HostedApi(tmp_path, site.comfy.server.url) as api:
        yield Caller(api)


def create(caller: Caller, **fields: Any) -> str:
    """Ask for a picture without waiting; the id of the prediction."""
    url = f"{caller.api.url}/v1/models/{MODEL}/predictions"
    answer = requests.post(url, json={"input": {**QUICK, **fields}}, timeout=60)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def pending(site: Site) -> list[str]:
    """The ids of the prompts that wait in ComfyUI's queue."""
    told = requests.get(f"{site.comfy.server.url}/queue", timeout=30).json()
    return [str(entry[1]) for entry in told["queue_pending"]]


def test_what_waits_in_comfyui_is_taken_out(site: Site, second: Caller) -> None:
    first = Caller(site.open)
    drawn = create(first, **LONG, seed=1)
    first.until_steps(drawn)
    waits = create(second, seed=2)
    end = time.monotonic() + WAIT
    while not pending(site):
        assert time.monotonic() < end, "its prompt never came to ComfyUI"
        time.sleep(0.02)  # between polls
    assert second.cancel(waits)["status"] == "canceled"
    until_health(second.api.url, "READY")
    assert pending(site) == []
    assert first.get(drawn)["status"] == "processing", "it waited for the other's end"
    assert "lost" not in second.api.log_text()
    first.cancel(drawn)
    assert second.end(create(second, seed=3))["status"] == "succeeded"


def test_waiting_in_comfyui_behind_others_is_a_sign_of_life(site: Site, tmp_path: Path) -> None:
    first = Caller(site.open)
    with HostedApi(tmp_path, site.comfy.server.url, "--stall", "3") as api:
        second = Caller(api)
        drawn = create(first, **LONG, seed=4)
        first.until_steps(drawn)
        assert second.end(create(second, seed=5))["status"] == "succeeded"
        assert first.get(drawn)["status"] == "succeeded", "it came first"
        assert "lost" not in api.log_text()


@pytest.mark.parametrize("after", [0.0, 0.01, 0.03, 0.1, 0.3], ids=lambda seconds: f"{seconds} s")
def test_at_whatever_moment(site: Site, second: Caller, after: float) -> None:
    before = len(site.comfy.server.log_text())
    job = create(second, **LONG, seed=round(1000 * after))
    time.sleep(after)  # the moment is what is tried
    assert second.cancel(job)["status"] == "canceled"
    until_health(second.api.url, "READY")
    assert "lost" not in second.api.log_text()
    assert "50/50" not in site.comfy.server.log_text()[before:], "it was drawn all the same"
    assert second.end(create(second, seed=4))["status"] == "succeeded"
