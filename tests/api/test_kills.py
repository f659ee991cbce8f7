"""Kills in every state: each prediction ends once, with the picture it would have had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from runtime.comfyui import find_comfyui
from runtime.models import small_models
from runtime.server import ComfyServer
from runtime.session import Comfy

from api.caller import Caller
from api.hosted import HostedApi
from api.receiver import Receiver


def messages(receiver: Receiver, seed: int, ends: int = 1) -> set[str]:
    """The ids of the messages that came for a picture."""
    return {each.headers["webhook-id"] for each in receiver.wait(f"seed-{seed}", ends=ends)}


@pytest.fixture
def own(tmp_path: Path, receiver: Receiver) -> Iterator[Caller]:
    """An API that starts its own ComfyUI."""
    server = ComfyServer(find_comfyui(), models=small_models(), base=tmp_path / "comfyui")
    env = {**server.environment, "FLUX_HOTSWAP_ALLOW_HOSTS": f"127.0.0.1:{receiver.port}"}
    with HostedApi(tmp_path, "", *server.prepared(), env=env) as api:
        yield Caller(api, receiver)


def test_kills_of_comfyui_and_of_the_api(own: Caller, receiver: Receiver) -> None:
    api = own.api
    undisturbed = own.pixels(own.create(22))

    # ComfyUI dies in the midst of a draw.
    first = own.create(11)
    own.until_steps(first)
    (comfyui,) = psutil.Process(api.pid).children(recursive=True)
    comfyui.kill()
    disturbed = own.pixels(first)
    assert "drawn again" in own.get(first)["logs"]

    # The API dies: one prediction runs, one waits, one was canceled. ComfyUI goes with it.
    running = own.create(23)
    canceled, waiting = own.create(24), own.create(25)
    assert own.cancel(canceled)["status"] == "canceled"
    own.until_steps(running)
    (comfyui,) = psutil.Process(api.pid).children(recursive=True)
    api.kill()
    gone, _ = psutil.wait_procs([comfyui], timeout=20)
    assert gone, "ComfyUI outlived the API"
    with api:
        again = {seed: own.pixels(job) for seed, job in ((23, running), (25, waiting))}
        assert own.end(canceled)["status"] == "canceled"
        # Undisturbed draws of the same requests, on a ComfyUI that has drawn neither.
        assert np.array_equal(disturbed, own.pixels(own.create(11)))
        assert np.array_equal(undisturbed, own.pixels(own.create(22)))
        # ComfyUI keeps what its last prompt made alone, so these are drawn once more too.
        for seed, pixels in again.items():
            assert np.array_equal(pixels, own.pixels(own.create(seed))), seed
        files = {job: own.get(job) for job in (first, running, waiting, canceled)}
    assert [len(told["output"] or ()) for told in files.values()] == [1, 1, 1, 0]
    for seed, times in ((23, 2), (24, 1), (25, 2)):
        assert len(messages(receiver, seed, times)) == times, seed
    assert stray(api.state) == []


def stray(state: Path) -> list[str]:
    """Files of pictures that belong to no prediction, and what ComfyUI kept."""
    kept = [str(path) for path in (state / "comfyui-0" / "output").rglob("*") if path.is_file()]
    twice = [
        str(folder) for folder in (state / "outputs").iterdir() if len(list(folder.iterdir())) != 1
    ]
    return kept + twice


def test_a_kill_of_the_api_over_a_comfyui_that_lives_on(
    comfy: Comfy, tmp_path: Path, receiver: Receiver
) -> None:
    env = {"FLUX_HOTSWAP_ALLOW_HOSTS": f"127.0.0.1:{receiver.port}"}
    with HostedApi(tmp_path, comfy.server.url, env=env) as api:
        caller = Caller(api, receiver)
        job = caller.create(31)
        caller.until_steps(job)
        api.kill()
        with api:
            pixels = caller.pixels(job)
            assert "The API was started anew" in caller.get(job)["logs"]
        # The lost attempt was stopped: it left neither a prompt nor a file.
        assert comfy.client.queue() == {"queue_running": [], "queue_pending": []}
        assert list((comfy.server.output_dir / "flux_hotswap_api").iterdir()) == []
    comfy.client.free()
    with HostedApi(tmp_path / "other", comfy.server.url, env=env) as other:
        assert np.array_equal(
            pixels, Caller(other, receiver).pixels(Caller(other, receiver).create(31))
        )
    assert len(messages(receiver, 31, 2)) == 2


def test_an_end_by_signal_keeps_everything(
    comfy: Comfy, tmp_path: Path, receiver: Receiver
) -> None:
    env = {"FLUX_HOTSWAP_ALLOW_HOSTS": f"127.0.0.1:{receiver.port}"}
    api = HostedApi(tmp_path, comfy.server.url, env=env)
    caller = Caller(api, receiver)
    with api:
        jobs = [caller.create(seed) for seed in (41, 42)]
    with api:
        assert [caller.end(job)["status"] for job in jobs] == ["succeeded", "succeeded"]
    assert [len(messages(receiver, seed)) for seed in (41, 42)] == [1, 1]
