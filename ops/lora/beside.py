"""LoRAs beside a weight, instead of inside it.

Added into a quantised weight, a LoRA drowns in the rounding: a typical change is smaller than a
step. Kept apart, its two factors run behind the layer, the weight stays as it is bit for bit, and
another strength is another factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """One LoRA's change of one weight: `up @ down`.

    Attributes:
        up: [rows,r], strength included.
        down: [r,K] of the same dtype.
        start: the first of the weight's rows that it changes.
    """

    up: Tensor
    down: Tensor
    start: int = 0

    def to(self, device: torch.device, dtype: torch.dtype) -> Factors:
        """Return these on a device, in the dtype that it computes in."""
        return Factors(self.up.to(device, dtype), self.down.to(device, dtype), self.start)


def stack(parts: Sequence[Factors], height: int) -> Factors:
    """Return several LoRAs of one weight as one.

    Args:
        parts: at least one.
        height: number of rows of the weight.
    """
    ups = []
    for part in parts:
        below = height - part.start - len(part.up)
        ups.append(torch.nn.functional.pad(part.up, (0, 0, part.start, below)))
    return Factors(torch.cat(ups, dim=1), torch.cat([part.down for part in parts]))


def add_change(made: Tensor, tokens: Tensor, factors: Factors) -> Tensor:
    """Return what a layer makes with a LoRA beside it.

    Args:
        made: [...,N], what the layer made; it is left as it is.
        tokens: [...,K], what it was given, of the same dtype.
        factors: of all N rows, on the same device.
    """
    down, up = factors.down.to(tokens), factors.up.to(tokens)
    within = torch.nn.functional.linear(tokens, down)
    flat = made.reshape(-1, made.shape[-1])
    return torch.addmm(flat, within.reshape(-1, len(down)), up.t()).reshape(made.shape)
