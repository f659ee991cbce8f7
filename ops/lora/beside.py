"""LoRAs beside a weight, instead of inside it.

Added into a quantised weight, a LoRA drowns in the rounding: a typical change is smaller than a
step. Kept apart, its two factors run behind the layer, the weight stays as it is bit for bit, and
another strength is another factor. LoHa and LoKr of LyCORIS need not be written out for that: a
Hadamard product of two pairs of factors is one pair, of a Kronecker product each side runs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

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


@dataclass(frozen=True)
class Kron:
    """LoKr's change of one weight: the Kronecker product of two matrices.

    Attributes:
        left: [a,b], strength included.
        right: [c,d] of the same dtype.
        start: the first of the a * c rows of the weight that it changes.
    """

    left: Tensor
    right: Tensor
    start: int = 0

    def to(self, device: torch.device, dtype: torch.dtype) -> Kron:
        """Return these on a device, in the dtype that it computes in."""
        return Kron(self.left.to(device, dtype), self.right.to(device, dtype), self.start)

    def through(self, tokens: Tensor) -> Tensor:
        """Return what it makes of tokens [M,b*d]: [M,a*c], without writing the product out."""
        left, right = self.left.to(tokens), self.right.to(tokens)
        grid = tokens.reshape(len(tokens), left.shape[1], right.shape[1])
        within = torch.nn.functional.linear(grid, right)
        return torch.matmul(left, within).flatten(start_dim=1)


MOST_RANKS: Final = 256
"""Of a Hadamard product; above, its factors cost more than the weight that they change."""


def hadamard(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Factors | None:
    """Return (A1 B1) * (A2 B2), number by number, as one pair; None if its rank is too large.

    Row n of the new A holds all products of a number in row n of A1 with one of A2, and so on for
    the columns of B: the rank is the product of the two.

    Args:
        first: A1 [N,r], B1 [r,K].
        second: A2 [N,s], B2 [s,K].
    """
    (a1, b1), (a2, b2) = first, second
    if len(b1) * len(b2) > MOST_RANKS:
        return None
    up = (a1[:, :, None] * a2[:, None, :]).flatten(start_dim=1)
    return Factors(up, (b1[:, None, :] * b2[None, :, :]).flatten(end_dim=1))


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


def add_kron(made: Tensor, tokens: Tensor, kron: Kron) -> Tensor:
    """Return what a layer makes with a LoKr beside it.

    Args:
        made: [...,N], what the layer made; it is left as it is.
        tokens: [...,K], what it was given, of the same dtype.
        kron: of some of the N rows, on the same device.
    """
    change = kron.through(tokens.reshape(-1, tokens.shape[-1]))
    after = made.shape[-1] - kron.start - change.shape[-1]
    wide = torch.nn.functional.pad(change, (kron.start, after))
    return made + wide.reshape(made.shape)
