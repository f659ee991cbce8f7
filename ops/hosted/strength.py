"""How much of a LoRA is left in the hosted engine's weights.

There a LoRA is merged into a weight that lies on e4m3's grid, and the sum is rounded to the grid
again: small changes fall back, larger ones become whole steps. With W the weight on its grid, D the
change, c the coefficient and Q the rounding,

    S = <Q(W + c D) - W, D> / <D, D>

is what arrives of D; the rest of the difference is noise. Rows are drawn for it, more of those with
more of the change, until the estimate is as good as asked for. The scale of Q needs the largest
number of the whole sum, which bounds on the rows find without looking at most of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from .merge import Part
from .quantise import E4M3, E4M3_MAX, Quantised, quantise, scale_for, widen

ACCURACY: Final = 0.004
"""Standard error that a sample is enlarged for, in units of S."""

_SMALL: Final = 2**18
"""Weights of so many elements are computed whole."""
_FIRST: Final = 2**17
"""Elements of the first sample, by which the next is measured out."""
_FEWEST: Final = 32
"""Rows of the first sample, at least."""
_BLOCK: Final = 2**17
"""Elements computed at once, few enough for a core's cache."""
_MOST: Final = 2**22
"""Elements of the largest sample."""
_TINY: Final = 2.0**-60
_SLACK: Final = 1 + 2**-6
"""Makes up for the roundings that bounds leave out."""


@dataclass(frozen=True)
class Base:
    """A weight on the hosted engine's grid.

    Attributes:
        read: gives the rows of an index [n] as [n,K] float32.
        largest: [N] float32, for each row at least its largest magnitude.
        columns: K.
    """

    read: Callable[[Tensor], Tensor]
    largest: Tensor
    columns: int

    @staticmethod
    def of(weight: Quantised) -> Base:
        """Return the base that a quantised weight is."""

        def read(index: Tensor) -> Tensor:
            return widen(weight.data[index]) * weight.reciprocal

        return Base(read, largest_of_rows(weight), weight.data.shape[1])


def largest_of_rows(weight: Quantised) -> Tensor:
    """Return the largest magnitude of each row, [N] float32."""
    blocks = weight.data.view(torch.uint8).split(max(_BLOCK // weight.data.shape[1], 1))
    # Without the sign, codes are in the order of their values.
    codes = torch.cat([block.bitwise_and(0x7F).amax(dim=1) for block in blocks])
    return codes.view(E4M3).to(torch.float32) * weight.reciprocal


class Change(Protocol):
    """What is added to a weight, row by row."""

    share: Tensor
    """[N] float32, about how much of the change lies in each row; in any unit."""
    largest: Tensor
    """[N] float32, for each row at least its largest magnitude as the hosted engine adds it."""

    def read(self, index: Tensor, coefficient: float) -> tuple[Tensor, Tensor]:
        """Return the change of rows, and what the hosted engine adds for it.

        Args:
            index: [n], ascending.
            coefficient: that the change is added with.

        Returns:
            Both [n,K] float32; the first without the coefficient.
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
        self._lost: Tensor | None = None
        self.share, self.largest = torch.zeros(rows), torch.zeros(rows)
        for part, down in zip(self._parts, self._downs, strict=True):
            part.fit(rows, columns)
            own = slice(part.start, part.stop)
            if part.ratio != part.hosted_ratio:
                self._lost = torch.ones(rows, 1) if self._lost is None else self._lost
                self._lost[own] = part.ratio / part.hosted_ratio
            up = part.up.to(torch.float32).square().sum(dim=1)
            column = down.square().sum(dim=0)
            self.share[own] = up * column.sum()
            self.largest[own] = (up * column.amax()).sqrt()  # by Cauchy and Schwarz

    def read(self, index: Tensor, coefficient: float) -> tuple[Tensor, Tensor]:
        """See `Change.read`."""
        product = torch.zeros(len(index), self._columns)
        added = torch.zeros(len(index), self._columns)
        for part, down in zip(self._parts, self._downs, strict=True):
            first, last = torch.searchsorted(index, torch.tensor((part.start, part.stop))).tolist()
            up = part.up[index[first:last] - part.start].to(torch.float32)
            # Summed in float32 and rounded once, as a product of the factors' dtype is.
            torch.mm(up, down, out=product[first:last])
            added[first:last] = product[first:last].to(part.up.dtype) * coefficient
        return product if self._lost is None else product * self._lost[index], added


class DenseChange:
    """A change that is no product of two factors.

    Args:
        change: [N,K] of any dtype.
    """

    def __init__(self, change: Tensor) -> None:
        self._change = change
        self.share = torch.linalg.vector_norm(change.to(torch.float32), dim=1).square()
        self.largest = change.abs().amax(dim=1).to(torch.float32)

    def read(self, index: Tensor, coefficient: float) -> tuple[Tensor, Tensor]:
        """See `Change.read`."""
        change = self._change[index].to(torch.float32)
        return change, change * coefficient


@dataclass(frozen=True)
class Arrival:
    """What is left of a change in the hosted engine's weight.

    Attributes:
        strength: S; the change times S arrives.
        error: the standard error of S, 0 where all rows were computed.
        scale: of the merged weight.
        elements: how many were computed for S.
    """

    strength: float
    error: float
    scale: float
    elements: int


def arriving(
    base: Base, change: Change, coefficient: float, *, accuracy: float = ACCURACY
) -> Arrival:
    """Return what is left of a change.

    Args:
        base: the weight.
        change: to the weight.
        coefficient: that the hosted engine adds the change with: 1.5 times the LoRA's scale.
        accuracy: the largest standard error of S; 0 computes all rows.
    """
    scale = scale_for(merged_largest(base, change, coefficient), E4M3_MAX)
    if not change.share.any():  # nothing is added, at whatever strength
        return Arrival(coefficient, 0.0, float(scale), 0)
    rows = len(base.largest)
    if rows * base.columns <= _SMALL or accuracy <= 0:
        effect, whole = _measure(base, change, coefficient, scale, torch.arange(rows)).sum(dim=1)
        return Arrival(float(effect / whole), 0.0, float(scale), rows * base.columns)
    return _sampled(base, change, coefficient, scale, accuracy)


def merged_largest(base: Base, change: Change, coefficient: float) -> Tensor:
    """Return the largest magnitude of the whole sum, or a number up to 1 if it is below 1.

    Scales do not tell numbers below 1 apart, so that the rows are only looked at whose bound is
    above 1, and above the largest number found so far.
    """
    bounds = base.largest + change.largest * abs(coefficient) * _SLACK
    rows = (bounds > 1).nonzero().flatten()
    rows = rows[bounds[rows].argsort(descending=True)]
    found = torch.ones(())
    for index in rows.split(max(_BLOCK // base.columns, 1)):
        if (bounds[index] <= found).all():
            break
        index = index.sort().values
        added = change.read(index, coefficient)[1]
        found = torch.maximum(found, _sum(base.read(index), added).abs().amax())
    return found


def _sum(weight: Tensor, added: Tensor) -> Tensor:
    """The merged rows before they are rounded to e4m3; float32 holding bf16."""
    return (weight.to(torch.bfloat16).to(torch.float32) + added).to(torch.bfloat16)


def _measure(
    base: Base, change: Change, coefficient: float, scale: Tensor, index: Tensor
) -> Tensor:
    """<effect, D> and <D, D> of each row of an ascending index, [2,n] float64."""
    reciprocal = scale.reciprocal()
    found: list[Tensor] = []
    for rows in index.split(max(_BLOCK // base.columns, 1)):
        weight = base.read(rows)
        delta, added = change.read(rows, coefficient)
        merged = quantise(_sum(weight, added), scale, E4M3_MAX, E4M3)
        effect = widen(merged).mul_(reciprocal).sub_(weight)
        found.append(torch.stack([_dots(effect, delta), _dots(delta, delta)]))
    return torch.cat(found, dim=1)


def _dots(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1, dtype=torch.float64)


def _sampled(
    base: Base, change: Change, coefficient: float, scale: Tensor, accuracy: float
) -> Arrival:
    """Draw rows by their share of the change, evenly along the order of change to weight.

    Neighbours in that order are alike, and rows at even distances take in what changes along it:
    what is left to chance is how neighbours differ.
    """
    order = _order(change.share / base.largest.clamp_min(_TINY).square())
    ends = change.share[order].double().cumsum(0)
    sums, variance = torch.zeros(2, dtype=torch.float64), 0.0
    taken, wanted, most = 0, max(_FIRST // base.columns, _FEWEST), _MOST // base.columns
    while True:
        points = torch.arange(wanted, dtype=torch.float64).add(0.5).div(wanted)
        places = torch.searchsorted(ends, points * ends[-1]).clamp_max(len(order) - 1)
        index, back = order[places].sort()
        found = _measure(base, change, coefficient, scale, index) / change.share[index]
        found = found[:, torch.argsort(back)]
        sums, taken = sums + found.sum(dim=1), taken + wanted
        strength = sums[0] / sums[1]
        variance += float((found[0] - strength * found[1]).diff().square().sum() / 2)
        error = math.sqrt(variance) / float(sums[1])
        wanted = min(math.ceil(taken * ((error / accuracy) ** 2 - 1)), most - taken)
        if wanted <= 0:
            return Arrival(float(strength), error, float(scale), taken * base.columns)
        wanted = max(wanted, _FEWEST)


def _order(values: Tensor) -> Tensor:
    """Return the ascending order of values >= 0, as exact as bf16, in which sorting is quick."""
    keys = values.to(torch.bfloat16).view(torch.int16).numpy()
    return torch.from_numpy(keys.argsort(kind="stable"))
