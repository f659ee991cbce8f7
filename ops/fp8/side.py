"""LoRAs beside a weight in fp8, instead of inside it.

Added into an e4m3 weight, a LoRA drowns in the rounding: a typical delta is smaller than a step.
Kept apart and added behind the matmul, it is rounded away again when the sum goes to bf16. So its
two factors become columns of the same matmul:

    y = [x | x A^T] [W | B]^T     accumulated in float32, rounded to bf16 once

A and B keep their own magnitudes apart from the weight's, the weight stays as it is bit for bit,
and another strength is another A. What e4m3 leaves of B is a second B with the same A: B's rounding
would be the same for every token, x A^T's is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from .rows import FP8

STEP: Final = 16
"""The fp8 matmul takes columns in multiples of this."""

_MOST: Final = 8
"""Most bits by which B may grow at A's cost. x A^T shares x's scale and has bits to spare."""

_BYTES: Final = torch.uint8
"""As which e4m3 is joined: torch cannot join it as numbers on every device."""

_ROOM: Final = 224.0
"""What the largest value of a column of B becomes at most, in steps of the weight's scale."""


@dataclass(frozen=True)
class Factors:
    """One LoRA's change of one weight: `up @ down`.

    Attributes:
        up: [rows,r] float32, strength included.
        down: [r,K] float32.
        start: the first of the weight's rows that it changes.
    """

    up: Tensor
    down: Tensor
    start: int = 0

    def to(self, device: torch.device) -> Factors:
        """Return these on a device."""
        return Factors(self.up.to(device), self.down.to(device), self.start)


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


def columns(factors: Factors, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factors as columns beside a weight, balanced so that both round well.

    Args:
        factors: of all rows of the weight.
        scale: [N,1] float32, the weight's scales; B is stored with them.

    Returns:
        B as [N,R] e4m3 and A as [R,K] float32, R a multiple of 16 and at least twice the rank.
    """
    # With rows of length 1, x A^T is about as large as x, whose scale it shares.
    length = torch.linalg.vector_norm(factors.down, dim=1).clamp_min(2.0**-100)
    up = factors.up * length / scale
    largest = up.abs().amax(dim=0).clamp_min(2.0**-100)
    grow = torch.exp2(torch.floor(torch.log2(_ROOM / largest)).clamp_max(_MOST))
    up = up * grow
    first = up.to(FP8)
    second = (up - first.to(torch.float32)).to(FP8)
    down = factors.down / (length * grow)[:, None]
    missing = -2 * up.shape[1] % STEP
    none = torch.zeros((len(up), missing), dtype=FP8, device=up.device)
    return (
        torch.cat([first.view(_BYTES), second.view(_BYTES), none.view(_BYTES)], dim=1).view(FP8),
        torch.nn.functional.pad(torch.cat([down, down]), (0, 0, 0, missing)),
    )
