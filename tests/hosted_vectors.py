"""Numbers that the hosted model's code computed, to be met bit for bit.

`tests/data/hosted_fp8.safetensors.xz` holds what went in: weights, inputs, factors of LoRAs.
`tests/data/hosted_fp8.json` holds what came out: numbers, and of tensors the sha256 of their bytes,
little-endian and contiguous. The code ran on a CPU. Where it says `portable`, its sums were
replaced by exact ones, which are the same on every machine.

The models that it ran with are in `tests/data/hosted_model`: the small FLUX that draws as it was
then. The one that draws today may change; these may not.
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

from flux_hotswap.ops.hosted.linear import summed
from flux_hotswap.ops.hosted.merge import Part
from flux_hotswap.ops.hosted.primitives import Primitives
from flux_hotswap.ops.hosted.quantise import Quantised

DATA = Path(__file__).resolve().parent / "data"
SAID: dict[str, Any] = json.loads((DATA / "hosted_fp8.json").read_text(encoding="utf-8"))
WHOLE: dict[str, Any] = json.loads((DATA / "hosted_flux.json").read_text(encoding="utf-8"))
"""What came out of whole models: predictions and runs; `hosted_flux.safetensors.xz` went in."""

_CPU = Path("/proc/cpuinfo")
SAME_SUMS = (
    torch.backends.cpu.get_cpu_capability() == "AVX512"
    and _CPU.is_file()
    and "AuthenticAMD" in _CPU.read_text(encoding="utf-8")
)
"""Whether this CPU makes its ordinary sums in the order of the one that the hosted code ran on."""
WAITS = "waits for a CPU of AMD's with AVX-512, as the hosted code ran on"

MODEL = DATA / "hosted_model"

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@functools.cache
def tensors() -> dict[str, Tensor]:
    """What went in."""
    return load(lzma.decompress((DATA / "hosted_fp8.safetensors.xz").read_bytes()))


@functools.cache
def model(name: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint that the hosted code ran with, by their published names."""
    return load(file_of(f"flux1-{name}"))


def file_of(name: str) -> bytes:
    """A file of the small FLUX that the hosted code ran with, by its name in `trained.FILES`."""
    return trained.read(name, MODEL)


def sha(tensor: Tensor) -> str:
    """The hash of a tensor's bytes."""
    return hashlib.sha256(tensor.cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()


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


# --- sums in float64, rounded once: the same on every machine ---


def exactly(inputs: Tensor, weight: Quantised, bias: Tensor | None, reciprocal: Tensor) -> Tensor:
    """The product in fp8, of which no order loses a bit."""
    return summed(inputs, weight, bias, reciprocal, torch.float64)


def _rounded(sums: Tensor, dtype: torch.dtype) -> Tensor:
    return sums.to(torch.float32).to(dtype)


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _rounded(inputs.double() @ weight.double().t() + bias.double(), inputs.dtype)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q.double() @ k.double().transpose(-1, -2)) * q.shape[-1] ** -0.5
    return _rounded(scores.softmax(dim=-1) @ v.double(), q.dtype)


PORTABLE = Primitives(exactly, _linear, _attention)


def turns(text_tokens: int, rows: int, columns: int, axes: list[int]) -> Tensor:
    """RoPE's matrices [L,sum(axes)/2,2,2] bf16 of text at 0, 0, 0 and a grid of an image."""
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    image = torch.nn.functional.pad(grid, (1, 0)).to(torch.float32)
    made: list[Tensor] = []
    for place, channels in zip(
        torch.cat((torch.zeros(text_tokens, 3), image)).unbind(-1), axes, strict=True
    ):
        powers = torch.arange(0, channels, 2, dtype=torch.float32) / channels
        angles = place[:, None] * (1.0 / 10000.0**powers)
        cos, sin = torch.cos(angles), torch.sin(angles)
        made.append(torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2)))
    return torch.cat(made, dim=1).to(torch.bfloat16)
