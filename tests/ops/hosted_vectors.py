"""Numbers that the hosted model's code computed, to be met bit for bit.

`tests/data/hosted_fp8.safetensors.xz` holds what went in: weights, inputs, factors of LoRAs.
`tests/data/hosted_fp8.json` holds what came out: numbers, and of tensors the sha256 of their bytes,
little-endian and contiguous. The code ran on a CPU. Where it says `portable`, its sums were
replaced by exact ones, which are the same on every machine.
"""

from __future__ import annotations

import functools
import hashlib
import json
import lzma
from pathlib import Path
from typing import Any

import torch
from mini_flux import loras, trained
from safetensors.torch import load
from torch import Tensor

from flux_hotswap.ops.hosted.merge import Part

DATA = Path(__file__).resolve().parents[1] / "data"
SAID: dict[str, Any] = json.loads((DATA / "hosted_fp8.json").read_text(encoding="utf-8"))

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@functools.cache
def tensors() -> dict[str, Tensor]:
    """What went in."""
    return load(lzma.decompress((DATA / "hosted_fp8.safetensors.xz").read_bytes()))


@functools.cache
def model(name: str) -> dict[str, Tensor]:
    """The tensors of a trained checkpoint, by their published names."""
    return load(trained.read(f"flux1-{name}"))


def sha(tensor: Tensor) -> str:
    """The hash of a tensor's bytes."""
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def parts(state: dict[str, Tensor], layer: str) -> list[Part]:
    """What a LoRA file in diffusers' spelling has for a layer."""
    found: list[Part] = []
    start = 0
    names = loras.diffusers_names(layer)
    for name in names:
        module = f"transformer.{name}"
        up = state[f"{module}.lora_B.weight"]
        alpha = state.get(f"{module}.alpha")
        found.append(
            Part(
                up,
                state[f"{module}.lora_A.weight"],
                start,
                None if alpha is None else float(alpha),
                fused=len(names) > 1,
            )
        )
        start += len(up)
    return found
