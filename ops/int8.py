"""FLUX in int8: weights that are turned, then rounded row by row; ComfyUI's `int8_tensorwise`.

A few loud channels are most of a token in FLUX, and rounding by the largest would lose the others.
So each group of neighbouring channels is turned by a Hadamard matrix, which spreads what is loud
over all of them (QuaRot, arXiv 2404.00456). Weight and activations are turned alike, and the
product stays what it is. The matrix is the regular one that comfy-kitchen uses as `convrot`, so
that ComfyUI opens what is written here.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

LARGEST_GROUP: Final = 256
"""Channels that are turned together at most; the only group that comfy-kitchen fuses on CUDA."""

INT8_MAX: Final = 127
_SMALLEST: Final = 1e-30
"""A row of zeros gets this scale, as comfy-kitchen's."""


def group_of(width: int) -> int:
    """Return how many channels are turned together: the largest power of 4 that divides width.

    Returns:
        At most 256; 1 where 4 divides it not, and nothing is turned.
    """
    group = LARGEST_GROUP
    while width % group:
        group //= 4
    return group


_matrices: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}
"""Kept, since every layer wants one. A plain dict, which torch.compile can look into."""


def hadamard(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the regular Hadamard matrix [size,size] of length 1; symmetric, its own inverse.

    Args:
        size: a power of 4.
        dtype: of the result; its values are powers of two, exact in all of them.
        device: of the result.
    """
    key = (size, dtype, device)
    if key not in _matrices:
        core = torch.ones(4, 4) - 2 * torch.eye(4).flip(1)
        made = torch.ones(1, 1)
        while len(made) < size:
            made = torch.kron(made, core)
        _matrices[key] = (made / size**0.5).to(device, dtype)
    return _matrices[key]


def rotate(values: Tensor, group: int) -> Tensor:
    """Return values [...,K] with each group of channels turned, in their dtype."""
    if group == 1:
        return values
    turn = hadamard(group, values.dtype, values.device)
    return (values.unflatten(-1, (-1, group)) @ turn).flatten(-2)


def quantise(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Turn a weight and round it to the nearest of 255 steps a row.

    Args:
        weight: [N,K] float32, not modified.
        group: see `group_of`.

    Returns:
        [N,K] int8 and its scales [N,1] float32. A row with NaN or infinity has such a scale.
    """
    turned = rotate(weight, group)
    largest = torch.linalg.vector_norm(turned, float("inf"), dim=-1, keepdim=True)
    scale = (largest / INT8_MAX).clamp_min(_SMALLEST)
    return (turned / scale).round_().clamp_(-INT8_MAX, INT8_MAX).to(torch.int8), scale


def quantise_evenly(weight: Tensor, scale: Tensor, group: int, seed: int) -> Tensor:
    """Turn a weight and round it up or down by chance, so that the mean is right.

    A small change of weights that lie on the grid already would be rounded away by the nearest
    step; here the right share of it arrives.

    Args:
        weight: [N,K] float32, not modified.
        scale: [N,1] float32, which stay; what is beyond them is cut.
        group: see `group_of`.
        seed: decides the chances; the same seed rounds alike.

    Returns:
        [N,K] int8.
    """
    steps = rotate(weight, group) / scale
    generator = torch.Generator(device=weight.device).manual_seed(seed)
    chance = torch.rand(steps.shape, generator=generator, device=weight.device)
    below = steps.floor()
    # Compared, not added: a sum of both would be rounded, and move what lies on the grid.
    rounded = below + (chance < steps - below)
    return rounded.clamp_(-INT8_MAX, INT8_MAX).to(torch.int8)


def dequantise(values: Tensor, scale: Tensor, group: int) -> Tensor:
    """Return the weight [N,K] float32 that int8 values and their scales [N,1] stand for."""
    return rotate(values.to(torch.float32) * scale, group)


def multiply_stored(
    tokens: Tensor, values: Tensor, scale: Tensor, bias: Tensor | None, group: int
) -> Tensor:
    """Multiply by a weight that is only stored in int8: its steps are exact in every float dtype.

    In fp16 the sums of steps would be infinite, so that the weight gets its scales first.

    Args:
        tokens: [M,K] bf16, fp16 or float32.
        values: [N,K] int8.
        scale: [N,1] float32.
        bias: [N] of the tokens' dtype.
        group: see `group_of`.

    Returns:
        [M,N] of the tokens' dtype.
    """
    turned, weight = rotate(tokens, group), values.to(tokens.dtype)
    if tokens.dtype == torch.float16:
        weight.mul_(scale)  # reckoned in float32 and rounded once: fp16 has no such small scales
        return torch.nn.functional.linear(turned, weight, bias)
    made = torch.nn.functional.linear(turned, weight)
    made = made * scale.reshape(-1).to(tokens.dtype)
    return made if bias is None else made + bias
