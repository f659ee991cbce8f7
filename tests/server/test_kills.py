"""Servers that are killed in the middle of something, and two that share all folders."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fast_site import DEV, KEPT, QUANTISED, large, loader_alone
from fetch.servers import Server
from mini_flux import loras
from PIL import Image
from runtime.client import Client
from runtime.comfyui import find_comfyui
from runtime.models import small_models
from runtime.server import ComfyServer

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "FLUX_HOTSWAP_ALLOW_HOSTS": "127.0.0.1"}
LORA = loras.as_bytes(loras.diffusers(loras.blocks()))


@pytest.fixture
def web() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def comfyui(base: Path) -> ComfyServer:
    return ComfyServer(find_comfyui(), models=small_models(), base=base, env=ENVIRONMENT)


def kill(server: ComfyServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.wait()


def until(server: ComfyServer, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, server.log_tail()
        time.sleep(0.0005)  # what is waited for may be over soon


def lora_alone(source: str) -> dict[str, Any]:
    """A prompt that fetches a LoRA and applies it, and draws nothing."""
    prompt = loader_alone(DEV, go_fast=False)
    prompt["lora"] = {
        "class_type": "FluxHotswapLora",
        "inputs": {"model": ["load", 0], "source": source},
    }
    prompt["show"]["inputs"]["source"] = ["lora", 2]
    return prompt


def save_alone(picture: str, copies: int) -> dict[str, Any]:
    """A prompt that saves copies of a picture as png."""
    return {
        "load": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "many": {
            "class_type": "RepeatImageBatch",
            "inputs": {"image": ["load", 0], "amount": copies},
        },
        "save": {
            "class_type": "FluxHotswapSave",
            "inputs": {"images": ["many", 0], "output_format": "png"},
        },
    }


def noisy(path: Path, side: int) -> None:
    """A picture that stays large as png."""
    pixels = np.random.default_rng(3).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)


def pictures(folder: Path) -> list[Path]:
    """The files that anybody would take for pictures; each of them opens."""
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in found:
        with Image.open(path) as picture:
            picture.load()
    return found


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def test_killed_while_it_downloads_and_while_it_saves(tmp_path: Path, web: Server) -> None:
    link = web.file("/a.safetensors", LORA, rate=len(LORA) / 4)
    store = tmp_path / "models" / "loras" / "flux-hotswap"

    with comfyui(tmp_path) as first:
        Client(first.url).submit(lora_alone(link))
        work = store / ".work"
        until(first, lambda: any(path.stat().st_size for path in work.glob("*.part")))
        kill(first)
    assert not list(store.glob("*.safetensors"))
    have = next(work.glob("*.part")).stat().st_size
    assert 0 < have < len(LORA)

    web.file("/a.safetensors", LORA)
    noisy(tmp_path / "input" / "noise.png", 1500)
    with comfyui(tmp_path) as second:
        client = Client(second.url)
        assert "26 weights changed" in client.run(lora_alone(link)).shown("text")[0]
        asked = web.asked("/a.safetensors")[-1].headers["range"]
        assert int(asked.removeprefix("bytes=").rstrip("-")) >= have
        (kept,) = store.glob("*.safetensors")
        assert kept.read_bytes() == LORA
        assert not list(work.glob("*.part"))

        client.submit(save_alone("noise.png", 12))
        until(second, lambda: hidden(tmp_path / "output"))
        kill(second)
    before = pictures(tmp_path / "output")
    assert len(before) < 12
    left = hidden(tmp_path / "output")
    assert left

    with comfyui(tmp_path) as third:
        client = Client(third.url)
        assert len(client.run(save_alone("noise.png", 3)).images()) == 3
        assert len(pictures(tmp_path / "output")) == len(before) + 3
        for path in left:
            os.utime(path, (1, 1))  # as if that was long ago
        assert len(client.run(save_alone("noise.png", 2)).images()) == 2
        assert hidden(tmp_path / "output") == []


def test_two_servers_share_all_folders(tmp_path: Path, web: Server) -> None:
    link = web.file("/a.safetensors", LORA, rate=len(LORA) / 2)
    with comfyui(tmp_path) as one, comfyui(tmp_path) as two, ThreadPoolExecutor(2) as pool:
        large(tmp_path / "models" / "diffusion_models" / "slow.safetensors", copies=2)
        noisy(tmp_path / "input" / "noise.png", 300)
        work = [lora_alone(link), loader_alone("slow.safetensors"), save_alone("noise.png", 8)]
        start = threading.Barrier(2)

        def everything(server: ComfyServer) -> list[str]:
            client, names = Client(server.url), list[str]()
            for prompt in work:
                start.wait(300)
                names += [entry["filename"] for entry in client.run(prompt).images()]
            return names

        saved = list(pool.map(everything, (one, two)))
        log = one.log_text()
    assert len(web.asked("/a.safetensors")) == 1
    assert log.count(QUANTISED) == 1
    assert [len(names) for names in saved] == [8, 8]
    assert len(set(saved[0] + saved[1])) == 16
    assert len(pictures(tmp_path / "output")) == 16
    assert hidden(tmp_path / "output") == []
    kept = tmp_path / "models" / "diffusion_models" / KEPT
    assert sorted(path.suffix for path in kept.iterdir()) == ["", ".json", ".safetensors"]
