"""Numbers in e4m3, one scale for each row.

The scales of weights are powers of two. Multiplying by one is exact in every float format, so a
weight is rounded once, to three bits of mantissa, and nothing is lost when its scale is applied in
bf16. Activations are scaled so that a token's largest value becomes 448, e4m3's largest: just below
a power of two its steps are the smallest for their size, and in FLUX a few loud channels are nearly
all of a token.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

FP8: Final = torch.float8_e4m3fn
FP8_MAX: Final = 448.0
"""Largest value of e4m3."""

_SMALLEST: Final = 2.0**-100
"""Stands for the largest value of a row of zeros, whose scale does not matter."""

_MANTISSA: Final = 3
_LOWEST_EXPONENT: Final = -6
"""Of the smallest number of e4m3 with its full mantissa; below it steps stay equal."""


def row_scales(largest: Tensor) -> Tensor:
    """Return the smallest powers of two that bring rows into the range of e4m3.

    Args:
        largest: [N,1], the largest magnitude of each row.

    Returns:
        [N,1] float32; a row divided by its scale is within -448..448, or rounds to these.
    """
    ratio = largest.to(torch.float32).clamp_min(_SMALLEST) / FP8_MAX
    return torch.exp2(torch.ceil(torch.log2(ratio)))


def largest_of_rows(values: Tensor) -> Tensor:
    """Return the largest magnitude of each row of values [N,K], as [N,1] of the same dtype."""
    return torch.linalg.vector_norm(values, float("inf"), dim=-1, keepdim=True)


def quantise_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Round to the nearest number of e4m3.

    Args:
        values: [N,K] bf16 or float32, not modified.

    Returns:
        [N,K] e4m3 and its scales [N,1] float32; their product is about values.
    """
    scale = row_scales(largest_of_rows(values))
    return (values * scale.reciprocal().to(values.dtype)).to(FP8), scale


def quantise_rows_evenly(values: Tensor, scale: Tensor, seed: int) -> Tensor:
    """Round up or down by chance, so that the mean is right.

    A small change of weights that lie on e4m3's grid already would be rounded away by the nearest
    number; here the right share of it arrives.

    Args:
        values: [N,K] float32, not modified.
        scale: [N,1] float32.
        seed: decides the chances; the same seed rounds alike.

    Returns:
        [N,K] e4m3.
    """
    scaled = values / scale
    exponent = torch.frexp(scaled)[1] - 1
    step = torch.ldexp(torch.ones_like(scaled), exponent.clamp_min(_LOWEST_EXPONENT) - _MANTISSA)
    generator = torch.Generator(device=values.device).manual_seed(seed)
    chance = torch.rand(values.shape, generator=generator, device=values.device)
    steps = scaled / step
    below = torch.floor(steps)
    # Compared, not added: a sum of both would be rounded, and move what lies on the grid.
    rounded = (below + (chance < steps - below)) * step
    return rounded.clamp(-FP8_MAX, FP8_MAX).to(FP8)


def dequantise_rows(quantised: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return [N,K] of dtype; exact in bf16 and float32."""
    return quantised.to(dtype).mul_(scale.to(dtype))


def quantise_tokens(tokens: Tensor, beside: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Round activations, each token with a scale of its own.

    Args:
        tokens: [M,K] bf16 or float32, not modified.
        beside: [M,R] of the same dtype, columns that share the tokens' scales.

    Returns:
        [M,K+R] e4m3 and its scales [M,1] float32.
    """
    largest = largest_of_rows(tokens).to(torch.float32).clamp_min(_SMALLEST)
    # Rounded to the tokens' dtype first: the scale is the inverse of what they are multiplied by.
    inverse = (FP8_MAX / largest).to(tokens.dtype)
    if beside is not None:
        # Larger columns get room by a power of two, so that the tokens round as they do alone.
        ratio = largest_of_rows(beside).to(torch.float32) / largest
        inverse = inverse / row_scales(ratio * FP8_MAX).clamp_min(1.0).to(tokens.dtype)
    scale = inverse.to(torch.float32).reciprocal()
    if beside is None:
        return (tokens * inverse).to(FP8), scale
    width = tokens.shape[1]
    both = torch.empty((len(tokens), width + beside.shape[1]), dtype=FP8, device=tokens.device)
    both[:, :width] = (tokens * inverse).to(FP8)
    both[:, width:] = (beside * inverse).to(FP8)
    return both, scale
