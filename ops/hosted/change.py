"""What is added to a weight, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import torch
from torch import Tensor

from .merge import Part

ALL: Final = slice(None)
"""All columns."""


class Change(Protocol):
    """A change of a weight [N,K]."""

    share: Tensor
    """[N] float32, about how much of the change lies in each row; in any unit."""
    largest: Tensor
    """[N] float32, for each row at least its largest magnitude as the hosted engine adds it."""

    def read(
        self, index: Tensor, coefficient: float, columns: slice = ALL
    ) -> tuple[Tensor, Tensor]:
        """Return the change of rows, and what the hosted engine adds for it.

        Args:
            index: [n], ascending.
            coefficient: that the change is added with.
            columns: which of the K columns.

        Returns:
            Both [n,columns] float32; the first without the coefficient.
        """
        ...


class LoraChange:
    """The change of a LoRA's factors.

    Args:
        parts: each on rows of its own.
        rows: N of the weight.
        columns: K of the weight.

    Raises:
        LoraError: a part is made for another size.
    """

    def __init__(self, parts: Sequence[Part], rows: int, columns: int) -> None:
        self._parts = tuple(parts)
        self._downs = [part.down.to(torch.float32) * part.hosted_ratio for part in parts]
        self._columns = columns
        self._unsaid = torch.ones(rows, 1)
        self.share, self.largest = torch.zeros(rows), torch.zeros(rows)
        for part, down in zip(self._parts, self._downs, strict=True):
            part.fit(rows, columns)
            own = slice(part.start, part.stop)
            unsaid = part.ratio if part.fused else 1.0  # what the hosted engine leaves out
            self._unsaid[own] = unsaid
            up = part.up.to(torch.float32).square().sum(dim=1)
            column = down.square().sum(dim=0)
            self.share[own] = up * column.sum() * unsaid**2
            self.largest[own] = (up * column.amax()).sqrt()  # by Cauchy and Schwarz

    def read(
        self, index: Tensor, coefficient: float, columns: slice = ALL
    ) -> tuple[Tensor, Tensor]:
        """See `Change.read`."""
        width = len(range(self._columns)[columns])
        product, added = torch.zeros(len(index), width), torch.zeros(len(index), width)
        for part, down in zip(self._parts, self._downs, strict=True):
            first, last = torch.searchsorted(index, torch.tensor((part.start, part.stop))).tolist()
            up = part.up[index[first:last] - part.start].to(torch.float32)
            # Summed in float32 and rounded once, as a product of the factors' dtype is.
            torch.mm(up, down[:, columns], out=product[first:last])
            added[first:last] = product[first:last].to(part.up.dtype) * coefficient
        return product.mul_(self._unsaid[index]), added


class DenseChange:
    """A change that is no product of two factors.

    Args:
        change: [N,K] of any dtype.
    """

    def __init__(self, change: Tensor) -> None:
        self._change = change
        self.share = change.to(torch.float32).square().sum(dim=1)
        self.largest = change.abs().amax(dim=1).to(torch.float32)

    def read(
        self, index: Tensor, coefficient: float, columns: slice = ALL
    ) -> tuple[Tensor, Tensor]:
        """See `Change.read`."""
        change = self._change[index, columns].to(torch.float32)
        return change, change * coefficient
