"""How much of a LoRA arrives in one layer, in every way to put it there, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from runtime import inside
from torch import Tensor

SIZE = "rms of the weight's"
"""How large a LoRA's change is, as a share of the weight."""

_SPREAD = 0.02
"""Standard deviation of the weight."""


def factors(height: int, width: int, rank: int, rms: float) -> tuple[Tensor, Tensor]:
    """Return up and down whose product has `rms` of the weight's."""
    generator = torch.Generator().manual_seed(1000 + rank)
    up = torch.randn(height, rank, generator=generator)
    down = torch.randn(rank, width, generator=generator)
    return up * (rms * _SPREAD / (up @ down).std()), down


class Layer:
    """One layer; each way to put a LoRA on it gives its output [tokens,height] before and after.

    Args:
        height: of the weight.
        width: of the weight.
        tokens: that go through it.
        device: where it runs.
        matmul: of `engine.int8_linear`, multiplies in int8.
    """

    def __init__(
        self, height: int, width: int, tokens: int, device: torch.device, matmul: Any
    ) -> None:
        generator = torch.Generator().manual_seed(4)
        self.tokens = torch.randn(tokens, width, generator=generator).to(device)
        matrix = torch.randn(height, width, generator=generator) * _SPREAD
        self.matrix = matrix.bfloat16().float().to(device)
        self.int8 = inside.pack("ops.int8")
        self.group = self.int8.group_of(width)
        self.values, self.scale = self.int8.quantise(self.matrix, self.group)
        self.stored = self.int8.dequantise(self.values, self.scale, self.group)
        self.matmul = matmul
        self.before = {
            dtype: self.run(dtype, self.values, self.scale)
            for dtype in (torch.float32, torch.bfloat16)
        }

    def run(self, dtype: torch.dtype, values: Tensor, scale: Tensor) -> Tensor:
        """Multiply in int8."""
        return self.matmul(self.tokens.to(dtype), values, scale, None, self.group)

    def beside(self, dtype: torch.dtype, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        """Our way."""
        side = inside.pack("ops.lora.beside")
        pair = side.Factors(up.to(dtype), down.to(dtype))
        before = self.before[dtype]
        after = before.clone()
        pair.add_to(after, self.tokens.to(dtype))
        return before, after

    def in_bf16(self, change: Tensor) -> tuple[Tensor, Tensor]:
        """Merged into a weight in bf16, which multiplies in bf16."""
        tokens = self.tokens.bfloat16()
        return tokens @ self.matrix.bfloat16().T, tokens @ (self.matrix + change).bfloat16().T

    def to_nearest(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        """Merged, then quantised to the nearest step."""
        made = self.run(torch.float32, *self.int8.quantise(changed, self.group))
        return self.before[torch.float32], made

    def by_chance(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        """Merged into int8 and rounded by chance."""
        scale = self.int8.quantise(changed, self.group)[1]
        values = self.int8.quantise_evenly(changed, scale, self.group, 7)
        return self.before[torch.float32], self.run(torch.float32, values, scale)


def gains(layer: Layer, sizes: Sequence[float], ranks: Sequence[int]) -> list[dict[str, Any]]:
    """Return for LoRAs of several sizes how much of each arrives, and the noise it brings."""
    found = []
    for rms in sizes:
        for rank in ranks:
            height, width = layer.matrix.shape
            up, down = (t.to(layer.tokens) for t in factors(height, width, rank, rms))
            change = up @ down
            ways = {
                "ours: beside the weight, float32": layer.beside(torch.float32, up, down),
                "ours: beside the weight, bf16": layer.beside(torch.bfloat16, up, down),
                "a model in bf16: merged": layer.in_bf16(change),
                "merged before quantising": layer.to_nearest(layer.matrix + change),
                "merged into int8, by chance": layer.by_chance(layer.stored + change),
                "merged into int8, to the nearest": layer.to_nearest(layer.stored + change),
            }
            wanted = layer.tokens @ change.T
            row: dict[str, Any] = {SIZE: rms, "rank": rank}
            for name, (before, after) in ways.items():
                row[name] = arrived(after.float() - before.float(), wanted)
            found.append(row)
    return found


def arrived(moved: Tensor, wanted: Tensor) -> dict[str, float]:
    """Return the share of a change that arrived, and what else came, as a share of the change."""
    gain = float((moved * wanted).sum() / (wanted * wanted).sum())
    noise = float((moved - gain * wanted).norm() / wanted.norm())
    return {"gain": round(gain, 4), "noise": round(noise, 3)}
