"""FLUX.1 files in the format of the hosted fast engine, written by rules of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from hosted_vectors import DATA, WHOLE, model
from safetensors.torch import save_file
from torch import Tensor

FILE: Final = "hosted-dev.safetensors"

PICTURE: Final = DATA / "hosted_sticker.png"
"""What the hosted model's code drew of REQUEST, on a CPU, with `hosted_vectors.MODEL`."""
REQUEST: Final[Mapping[str, Any]] = {
    "prompt": "STKR, a large yellow star on a dotted blue ground",
    "lora": "sticker.safetensors",
    "lora_scale": 0.75,
    "num_inference_steps": 14,
    "guidance_scale": 3.0,
    "go_fast": True,
    "seed": 7,
}


def put_hosted(models: Path) -> None:
    """Put that dev in the hosted format, with the hosted code's scales, among models."""
    scales = WHOLE["models"]["dev"]["input_scales"]
    write_hosted(model("dev"), scales, models / "diffusion_models" / FILE)


def hosted_state(
    state: Mapping[str, Tensor], input_scales: Mapping[str, float]
) -> dict[str, Tensor]:
    """The tensors of such a file.

    Args:
        state: an ordinary FLUX.1 model.
        input_scales: of every linear layer in a block, which tells these from the others.
    """
    made = {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}
    for layer, loudness in input_scales.items():
        weight = made[f"{layer}.weight"]
        scale = (448 / weight.abs().amax().float()).clamp_max(448)
        scaled = (weight.float() * scale).to(torch.bfloat16).clamp(-448, 448)
        given = torch.tensor(loudness)
        made |= {
            f"{layer}.weight": torch.zeros(1, dtype=torch.bfloat16),
            f"{layer}.float8_data": scaled.to(torch.float8_e4m3fn),
            f"{layer}.scale": scale,
            f"{layer}.scale_reciprocal": 1 / scale,
            f"{layer}.input_scale": given,
            f"{layer}.input_scale_reciprocal": 1 / given,
        }
    return made


def write_hosted(
    state: Mapping[str, Tensor], input_scales: Mapping[str, float], path: Path
) -> None:
    """Write such a file."""
    save_file(hosted_state(state, input_scales), path)
