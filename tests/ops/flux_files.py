"""Tiny FLUX checkpoints in every layout, for the tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import torch
from mini_flux import shapes
from safetensors.torch import save_file
from torch import Tensor

from flux_hotswap.files import header
from flux_hotswap.ops.checkpoint.convert import Source

State = dict[str, Tensor]

PREFIX = "model.diffusion_model."
LAYOUTS = ["BFL", "all in one", "diffusers"]


def tiny(*, guidance: bool = True, shrink: int = 8, dtype: torch.dtype = torch.bfloat16) -> State:
    """All tensors of a FLUX under the published names, seeded, narrower than the small one."""
    generator = torch.Generator().manual_seed(11)
    made = {}
    for name, shape in shapes.flux(guidance=guidance).items():
        sides = [side // shrink if side % 256 == 0 else side for side in shape]
        made[name] = (0.05 * torch.randn(sides, generator=generator)).to(dtype)
    return made


def laid_out(state: State, layout: str) -> State:
    """The same tensors under the names of a layout."""
    if layout == "BFL":
        return state
    if layout == "all in one":
        beside = {
            "text_encoders.clip_l.transformer.text_model.embeddings.token_embedding.weight": 4,
            "text_encoders.t5xxl.transformer.shared.weight": 5,
            "vae.decoder.conv_in.weight": 6,
        }
        others = {name: torch.full((3, size), 7.0) for name, size in beside.items()}
        return {PREFIX + name: tensor for name, tensor in state.items()} | others
    from mini_flux.load_diffusers import to_diffusers

    return {name: tensor.contiguous() for name, tensor in to_diffusers(state).items()}


def write(state: State, path: Path) -> Source:
    """Save tensors; the file as our code reads it."""
    save_file(state, path, metadata={"format": "pt"})
    return source_of(path)


def source_of(path: Path) -> Source:
    with path.open("rb") as file:
        base = 8 + int.from_bytes(file.read(8), "little")
    return Source(path, header.read(path).tensors, base)


def shapes_of(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
