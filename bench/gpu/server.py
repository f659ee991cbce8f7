"""Stage 5: the real server on the card, with the small FLUX that draws."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from runtime import inside
from runtime.comfyui import ComfyUI
from runtime.studio import Picture, Studio, psnr

from .kit import Kit

GROUND = "a red heart on the left on a striped green ground"
STAR = "a red heart beside a yellow star on a striped green ground"
LEAST_DB = 35
"""Of a picture on the card against the CPU's, in bf16 and float32 as each computes."""

Pictures = dict[str, Picture]


def run(kit: Kit) -> None:
    """Draw on the card and on the CPU, compare, free the memory and draw again."""
    steps = 2 if kit.small else 28
    with studio(cpu=kit.device.type == "cpu") as here:
        made = draw(here, steps, small=kit.small)
        kit.note("pictures drawn by the server", len(made))
        back(kit, here, made["text"], steps)
        if kit.device.type == "cpu":
            return
    with studio(cpu=True) as there:
        wanted = draw(there, steps, small=kit.small)
    for name, picture in made.items():
        alike = min(psnr(picture, wanted[name]), 99.0)
        asked: dict[str, Any] = {}
        if "go_fast" not in name:  # which may run on another engine there
            asked = {"predicted": f"above {LEAST_DB} dB", "holds": alike > LEAST_DB}
        kit.note(f"{name}: like the CPU's", round(alike, 1), "dB", **asked)


@contextmanager
def studio(*, cpu: bool) -> Iterator[Studio]:
    """A server of this Python, on a front end that is one empty page."""
    with tempfile.TemporaryDirectory() as folder:
        front = Path(folder, "front")
        front.mkdir()
        front.joinpath("index.html").write_text("<!doctype html>", encoding="utf-8")
        kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        comfyui = ComfyUI(inside.folder(), Path(sys.executable), ours=False)
        options: dict[str, Any] = {"arguments": ("--front-end-root", str(front)), "env": kept}
        with Studio(comfyui, cpu=cpu, **options) as made:
            yield made


def draw(at: Studio, steps: int, *, small: bool) -> Pictures:
    """Draw by every kind of request."""
    asked: dict[str, Any] = {"num_inference_steps": steps, "seed": 3}
    (text,) = at.draw(prompt=GROUND, **asked)
    (fast,) = at.draw(prompt=GROUND, go_fast=True, **asked)
    lora = {"lora": "sticker.safetensors", "lora_scale": 1.0}
    (fast_lora,) = at.draw(prompt=f"a sticker, {GROUND}", go_fast=True, **lora, **asked)
    made = {"text": text, "text, go_fast": fast, "LoRA, go_fast": fast_lora}
    if small:
        return made
    (made["LoRA"],) = at.draw(prompt=f"a sticker, {GROUND}", **lora, **asked)
    mask = np.zeros_like(text)
    mask[128:384, 288:496] = 1
    picture = {"image": at.upload("before.png", text), "prompt_strength": 0.8}
    (made["image"],) = at.draw(prompt=STAR, **picture, **asked)
    picture["mask"] = at.upload("mask.png", mask)
    (made["inpaint"],) = at.draw(prompt=STAR, **picture, **asked)
    return made


def back(kit: Kit, at: Studio, first: Picture, steps: int) -> None:
    """Free what the server holds, draw the first picture again, free it once more."""

    def taken() -> float:
        at.client.free()
        # It frees what it was asked to before the next prompt.
        at.draw(prompt=GROUND, num_inference_steps=1, megapixels="0.25", seed=1)
        card = at.client.system_stats()["devices"][0]
        return (card["torch_vram_total"] - card["torch_vram_free"]) / 1e6

    before = taken()
    at.client.free()
    (again,) = at.draw(prompt=GROUND, num_inference_steps=steps, seed=3)
    same = bool(np.array_equal(first, again))
    kit.note("the same picture after the memory was freed", same, predicted="True", holds=same)
    if kit.device.type == "cuda":
        more = taken() - before
        kit.note("memory more after another picture", round(more), "MB", predicted="below 50 MB",
                 holds=more < 50)  # fmt: skip
