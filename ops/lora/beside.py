"""LoRAs beside a weight, instead of inside it.

Added into a quantised weight, a LoRA drowns in the rounding: a typical change is smaller than a
step. Kept apart, its two factors run behind the layer, the weight stays as it is bit for bit, and
another strength is another factor. LoHa and LoKr of LyCORIS need not be written out for that: a
Hadamard product of two pairs of factors is one pair, of a Kronecker product each side runs alone.
DoRA makes rows longer, of what the layer makes too. What is left is written out and runs apart.

All add to what the layer made where it lies: a layer's output is most of what a step moves, and a
sum of its own would be written apart from it (torch copies it before it multiplies).
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

    def add_to(self, made: Tensor, tokens: Tensor) -> None:
        """Add what it makes of tokens [M,K] to what the layer made [M,N], in one pass over that."""
        within = torch.nn.functional.linear(tokens, self.down.to(tokens))
        rows_of(made, self.start, len(self.up)).addmm_(within, self.up.to(tokens).t())


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

    def add_to(self, made: Tensor, tokens: Tensor) -> None:
        """Add what it makes of tokens [M,b*d] to what the layer made [M,N]."""
        change = self.through(tokens)
        rows_of(made, self.start, change.shape[1]).add_(change)


@dataclass(frozen=True)
class Dense:
    """A change of one weight that is written out.

    Attributes:
        values: [rows,K], strength included.
        start: the first of the weight's rows that it changes.
    """

    values: Tensor
    start: int = 0

    def to(self, device: torch.device, dtype: torch.dtype) -> Dense:
        """Return it on a device, in the dtype that it computes in."""
        return Dense(self.values.to(device, dtype), self.start)

    def add_to(self, made: Tensor, tokens: Tensor) -> None:
        """Add what it makes of tokens [M,K] to what the layer made [M,N], in one pass over that."""
        rows_of(made, self.start, len(self.values)).addmm_(tokens, self.values.to(tokens).t())


@dataclass(frozen=True)
class Lengths:
    """What of a weight's own rows is added to them once more, as DoRA does.

    Attributes:
        more: [rows], by what each row becomes longer, of its length; strength included.
        start: the first of the weight's rows that it changes.
    """

    more: Tensor
    start: int = 0

    def to(self, device: torch.device, dtype: torch.dtype) -> Lengths:
        """Return these on a device, in the dtype that they compute in."""
        return Lengths(self.more.to(device, dtype), self.start)

    def of(self, own: Tensor) -> Tensor:
        """Return what is added to what the weight alone makes [M,N], without bias: [M,rows]."""
        return rows_of(own, self.start, len(self.more)) * self.more.to(own)


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


def bytes_of(part: Factors | Kron | Dense | Lengths) -> int:
    """Return how many bytes a part takes."""
    return sum(value.nbytes for value in vars(part).values() if isinstance(value, Tensor))


def stack(parts: Sequence[Factors]) -> Factors:
    """Return several LoRAs of one weight as one, of the rows from their first to their last.

    Args:
        parts: at least one.
    """
    first = min(part.start for part in parts)
    last = max(part.start + len(part.up) for part in parts)
    ups = []
    for part in parts:
        above, below = part.start - first, last - part.start - len(part.up)
        ups.append(torch.nn.functional.pad(part.up, (0, 0, above, below)))
    return Factors(torch.cat(ups, dim=1), torch.cat([part.down for part in parts]), first)


def rows_of(made: Tensor, start: int, count: int) -> Tensor:
    """Return what some rows of a weight made, a part of what the layer made [M,N]."""
    return made[:, start : start + count]
