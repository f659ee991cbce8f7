"""How much of a LoRA is left in the hosted engine's weights. All of it on the CPU.

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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ...errors import LoraError
from .change import ALL, Change
from .quantise import E4M3, E4M3_MAX, Quantised, quantise, scale_for, widen

ACCURACY: Final = 0.005
"""Standard error of S that a sample is enlarged for."""

_FEWEST: Final = 64
"""Rows of the first sample, by which the next is measured out."""
_WIDEST: Final = 3072
"""Columns of a row that are computed, at most."""
_SMALL: Final = 2**18
"""Weights of so many elements are computed whole."""
_MOST: Final = 2**20
"""Elements of all samples of one weight, which bounds the time."""
_BLOCK: Final = 2**17
"""Elements computed at once, few enough for a core's cache."""
_SLACK: Final = 1 + 2**-6
"""Makes up for the roundings that bounds leave out."""
_TINY: Final = 2.0**-60


@dataclass(frozen=True)
class Base:
    """A weight on the hosted engine's grid.

    Attributes:
        read: gives some columns of the rows of an ascending index [n], as [n,columns] float32.
        largest: [N] float32, for each row at least its largest magnitude.
        columns: K.
    """

    read: Callable[[Tensor, slice], Tensor]
    largest: Tensor
    columns: int

    @staticmethod
    def of(weight: Quantised, largest: Tensor | None = None) -> Base:
        """Return the base that a quantised weight is.

        Args:
            weight: [N,K].
            largest: what `largest_of_rows` gives for it, where that was kept.
        """

        def read(index: Tensor, columns: slice) -> Tensor:
            data = weight.data.view(torch.uint8)[index, columns].view(E4M3)
            return widen(data) * weight.reciprocal

        found = largest_of_rows(weight) if largest is None else largest
        return Base(read, found, weight.data.shape[1])


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


def largest_of_rows(weight: Quantised) -> Tensor:
    """Return the largest magnitude of each row, [N] float32."""
    blocks = weight.data.view(torch.uint8).split(max(_BLOCK // weight.data.shape[1], 1))
    # Without the sign, codes are in the order of their values.
    codes = torch.cat([block.bitwise_and(0x7F).amax(dim=1) for block in blocks])
    return codes.view(E4M3).to(torch.float32) * weight.reciprocal


def arriving(
    base: Base, change: Change, coefficient: float, *, accuracy: float = ACCURACY
) -> Arrival:
    """Return what is left of a change.

    Args:
        base: the weight, [N,K].
        change: to the weight.
        coefficient: that the hosted engine adds the change with: 1.5 times the LoRA's scale.
        accuracy: the standard error of S to aim at; 0 computes all rows.

    Raises:
        LoraError: the change holds NaN or infinity.
    """
    if not torch.isfinite(change.largest).all():
        raise LoraError(
            "A LoRA's factors hold NaN or infinity. The file is damaged, or its training went "
            "astray: fetch it again, or use another one."
        )
    scale = scale_for(merged_largest(base, change, coefficient), E4M3_MAX)
    if not change.share.any():  # nothing is added, at whatever strength
        return Arrival(coefficient, 0.0, float(scale), 0)
    rows = len(base.largest)
    if accuracy > 0 and rows * base.columns > _SMALL:
        return _sampled(base, change, coefficient, scale, accuracy)
    effect, whole = _measure(base, change, coefficient, scale, torch.arange(rows)).sum(dim=1)
    return Arrival(float(effect / whole), 0.0, float(scale), rows * base.columns)


def merged_largest(base: Base, change: Change, coefficient: float) -> Tensor:
    """Return the largest magnitude of the whole sum, or 1 if that is larger.

    Scales do not tell numbers up to 1 apart, so that the rows are only looked at whose bound is
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
        found = torch.maximum(found, _sum(base.read(index, ALL), added).abs().amax())
    return found


def _sum(weight: Tensor, added: Tensor) -> Tensor:
    """The merged rows in bf16, before they are rounded to e4m3."""
    return (weight.to(torch.bfloat16).to(torch.float32) + added).to(torch.bfloat16)


def _measure(
    base: Base,
    change: Change,
    coefficient: float,
    scale: Tensor,
    index: Tensor,
    columns: slice = ALL,
) -> Tensor:
    """<effect, D> and <D, D> of each row of an ascending index, [2,n] float64."""
    reciprocal = scale.reciprocal()
    found: list[Tensor] = []
    for rows in index.split(max(_BLOCK // base.columns, 1)):
        weight = base.read(rows, columns)
        delta, added = change.read(rows, coefficient, columns)
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
    what is left to chance is how neighbours differ. Of wide rows each gives some columns only, its
    neighbour the next ones: many rows say more than whole ones.
    """
    order = _order(change.share / base.largest.clamp_min(_TINY).square())
    ends = change.share[order].double().cumsum(0)
    sums, variance, taken = torch.zeros(2, dtype=torch.float64), 0.0, 0
    turns = math.ceil(base.columns / _WIDEST)
    width = base.columns // turns
    wanted, most = _FEWEST, _MOST // width
    while True:
        points = torch.arange(wanted, dtype=torch.float64).add(0.5).div(wanted)
        places = torch.searchsorted(ends, points * ends[-1]).clamp_max(len(order) - 1)
        found = torch.empty(2, wanted, dtype=torch.float64)
        for turn in range(min(turns, wanted)):
            index, back = order[places[turn::turns]].sort()
            columns = slice(turn, None, turns)
            measured = _measure(base, change, coefficient, scale, index, columns)
            found[:, turn::turns] = (measured / change.share[index])[:, back.argsort()]
        sums, taken = sums + found.sum(dim=1), taken + wanted
        strength = sums[0] / sums[1]
        variance += float((found[0] - strength * found[1]).diff().square().sum() / 2)
        error = math.sqrt(variance) / float(sums[1])
        wanted = min(math.ceil(taken * ((error / accuracy) ** 2 - 1)), most - taken)
        if wanted <= 0:
            return Arrival(float(strength), error, float(scale), taken * width)
        wanted = max(wanted, 2)  # one alone has no neighbour


def _order(values: Tensor) -> Tensor:
    """Return the ascending order of values >= 0, as exact as bf16, in which sorting is quick."""
    keys = values.to(torch.bfloat16).view(torch.int16).numpy()
    return torch.from_numpy(keys.argsort(kind="stable"))
