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
SLOW = "slow.safetensors"
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


def test_killed_while_it_downloads_saves_and_quantises(tmp_path: Path, web: Server) -> None:
    """Each server goes on with what the one before was killed in, and is killed in something."""
    with comfyui(tmp_path) as first:
        have = killed_in_a_download(first, web)
    with comfyui(tmp_path) as second:
        goes_on_downloading(second, web, have)
        left = killed_in_a_save(second)
    with comfyui(tmp_path) as third:
        saves_beside(third, left)
        killed_in_quantising(third)
    with comfyui(tmp_path) as fourth:
        Client(fourth.url).run(loader_alone(SLOW))
        assert fourth.log_text().count(QUANTISED) == 1
        (path,) = int8(fourth).glob("*.safetensors")
        assert path.name.startswith("slow-int8-")
        assert not list(int8(fourth).glob("*.part"))


def store(server: ComfyServer) -> Path:
    return server.models_dir / "loras" / "flux-hotswap"


def int8(server: ComfyServer) -> Path:
    return server.models_dir / "diffusion_models" / KEPT


def killed_in_a_download(server: ComfyServer, web: Server) -> int:
    """How many bytes are there then."""
    link = web.file("/a.safetensors", LORA, rate=len(LORA) / 4)
    Client(server.url).submit(lora_alone(link))
    work = store(server) / ".work"
    until(server, lambda: any(path.stat().st_size for path in work.glob("*.part")))
    kill(server)
    assert not list(store(server).glob("*.safetensors"))
    have = next(work.glob("*.part")).stat().st_size
    assert 0 < have < len(LORA)
    return have


def goes_on_downloading(server: ComfyServer, web: Server, have: int) -> None:
    link = web.file("/a.safetensors", LORA)
    assert "26 weights changed" in Client(server.url).run(lora_alone(link)).shown("text")[0]
    asked = web.asked("/a.safetensors")[-1].headers["range"]
    assert int(asked.removeprefix("bytes=").rstrip("-")) >= have
    (kept,) = store(server).glob("*.safetensors")
    assert kept.read_bytes() == LORA
    assert not list((store(server) / ".work").glob("*.part"))


def killed_in_a_save(server: ComfyServer) -> list[Path]:
    """What is hidden in its output folder then."""
    noisy(server.input_dir / "noise.png", 1500)
    Client(server.url).submit(save_alone("noise.png", 12))
    until(server, lambda: hidden(server.output_dir))
    kill(server)
    assert len(pictures(server.output_dir)) < 12
    left = hidden(server.output_dir)
    assert left
    return left


def saves_beside(server: ComfyServer, left: list[Path]) -> None:
    client, before = Client(server.url), len(pictures(server.output_dir))
    assert len(client.run(save_alone("noise.png", 3)).images()) == 3
    assert len(pictures(server.output_dir)) == before + 3
    for path in left:
        os.utime(path, (1, 1))  # as if that was long ago
    assert len(client.run(save_alone("noise.png", 2)).images()) == 2
    assert hidden(server.output_dir) == []


def killed_in_quantising(server: ComfyServer) -> None:
    large(server.models_dir / "diffusion_models" / SLOW, copies=10)
    Client(server.url).submit(loader_alone(SLOW))
    until(server, lambda: any(path.stat().st_size for path in int8(server).glob("*.part")))
    kill(server)
    assert list(int8(server).glob("*.part"))
    assert not list(int8(server).glob("*.safetensors"))


def test_two_servers_share_all_folders(tmp_path: Path, web: Server) -> None:
    link = web.file("/a.safetensors", LORA, rate=len(LORA) / 2)
    with comfyui(tmp_path) as one, comfyui(tmp_path) as two, ThreadPoolExecutor(2) as pool:
        large(tmp_path / "models" / "diffusion_models" / SLOW, copies=2)
        noisy(tmp_path / "input" / "noise.png", 300)
        work = [lora_alone(link), loader_alone(SLOW), save_alone("noise.png", 8)]
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
    assert sorted(path.suffix for path in int8(one).iterdir()) == ["", ".json", ".safetensors"]
