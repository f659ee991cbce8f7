"""FLUX.1 files in the format of the hosted fast engine, written by rules of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


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


def sha(tensor: Tensor) -> str:
    """The hash of a tensor's bytes."""
    return hashlib.sha256(tensor.cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()
