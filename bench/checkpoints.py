"""FLUX checkpoints and LoRAs with random weights, of any width and depth, for benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH = 3072
CONTEXT, POOLED = 4096, 768
HEAD = 128


def shapes(
    double: int, single: int, *, width: int = WIDTH, guidance: bool = True
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of a FLUX.1 transformer."""
    h = width

    def linear(name: str, out: int, into: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (out, into)
        yield f"{name}.bias", (out,)

    yield from linear("img_in", h, 64)
    yield from linear("txt_in", h, CONTEXT)
    embedders = {"time_in": 256, "vector_in": POOLED} | ({"guidance_in": 256} if guidance else {})
    for name, into in embedders.items():
        yield from linear(f"{name}.in_layer", h, into)
        yield from linear(f"{name}.out_layer", h, h)
    for index in range(double):
        for stream in ("img", "txt"):
            part = f"double_blocks.{index}.{stream}"
            yield from linear(f"{part}_mod.lin", 6 * h, h)
            yield from linear(f"{part}_attn.qkv", 3 * h, h)
            yield f"{part}_attn.norm.query_norm.scale", (HEAD,)
            yield f"{part}_attn.norm.key_norm.scale", (HEAD,)
            yield from linear(f"{part}_attn.proj", h, h)
            yield from linear(f"{part}_mlp.0", 4 * h, h)
            yield from linear(f"{part}_mlp.2", h, 4 * h)
    for index in range(single):
        part = f"single_blocks.{index}"
        yield from linear(f"{part}.modulation.lin", 3 * h, h)
        yield from linear(f"{part}.linear1", 7 * h, h)
        yield from linear(f"{part}.linear2", h, 5 * h)
        yield f"{part}.norm.query_norm.scale", (HEAD,)
        yield f"{part}.norm.key_norm.scale", (HEAD,)
    yield from linear("final_layer.linear", 64, h)
    yield from linear("final_layer.adaLN_modulation.1", 2 * h, h)


def weights(
    double: int,
    single: int,
    *,
    width: int = WIDTH,
    dtype: torch.dtype = torch.bfloat16,
    device: str | torch.device = "cpu",
) -> dict[str, Tensor]:
    """Return seeded random weights; a few channels are loud, as those of trained models are."""
    generator = torch.Generator(device=device).manual_seed(1)
    made: dict[str, Tensor] = {}
    for name, shape in shapes(double, single, width=width):
        if name.endswith("norm.scale"):
            made[name] = torch.ones(shape, dtype=dtype, device=device)
        elif name.endswith(".bias"):
            made[name] = torch.zeros(shape, dtype=dtype, device=device)
        else:
            values = torch.empty(shape, dtype=dtype, device=device)
            values.normal_(0.0, 0.7 * shape[1] ** -0.5, generator=generator)
            loud = torch.randint(shape[0], (max(1, shape[0] // 500),), generator=generator,
                                 device=device)  # fmt: skip
            values[loud] *= 8
            made[name] = values
    return made


def write(path: Path, double: int, single: int, *, width: int = WIDTH) -> Path:
    """Write a checkpoint in bf16 unless it is there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file(weights(double, single, width=width), part)
        part.replace(path)
    return path


def write_lora(
    path: Path, double: int, single: int, *, rank: int, width: int = WIDTH, modulation: bool = True
) -> None:
    """Write a LoRA of every linear layer in the blocks, small as trained ones are.

    Args:
        path: the file.
        double: number of double blocks.
        single: number of single blocks.
        rank: of it.
        width: of the model.
        modulation: whether the modulation layers are among them.
    """
    generator = torch.Generator().manual_seed(3)
    state: dict[str, Tensor] = {}
    for name, shape in shapes(double, single, width=width):
        modulates = "mod.lin" in name or "modulation.lin" in name
        if "blocks." in name and name.endswith(".weight") and (modulation or not modulates):
            module = f"diffusion_model.{name.removesuffix('.weight')}"
            up = torch.randn(shape[0], rank, generator=generator) * 1e-3
            down = torch.randn(rank, shape[1], generator=generator) * shape[1] ** -0.5
            state[f"{module}.lora_B.weight"] = up.to(torch.bfloat16)
            state[f"{module}.lora_A.weight"] = down.to(torch.bfloat16)
    save_file(state, path)
