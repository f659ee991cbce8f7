"""DoRA: a weight's directions and lengths changed apart (Liu et al., arXiv 2402.09353, eq. 5).

    W' = m (W + D) / |W + D|

The norm runs over what W and the change D make together, per output row or per input column. The
core takes the norm of W alone where it runs over rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shares(
    weight: Tensor, delta: Tensor, magnitude: Tensor, axis: int, strength: float, *, inside: bool
) -> tuple[Tensor, Tensor]:
    """Return how much of W and how much of D is added to W at a strength; nothing at 0.

    Args:
        weight: [N,K] float32.
        delta: [N,K] float32, what the factors make, alpha included.
        magnitude: N or K numbers.
        axis: 0 for one a row, 1 for one a column.
        strength: what the LoRA is multiplied by.
        inside: whether the strength multiplies the factors, as in PEFT and diffusers, and leaves
            the magnitudes; else it multiplies W' - W, as in ComfyUI.

    Returns:
        Two of [N,1] or [1,K].
    """
    moved = weight + (strength * delta if inside else delta)
    norm = moved.norm(dim=1 - axis, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    ratio = magnitude.to(moved).reshape(norm.shape) / norm
    if strength == 0:
        return torch.zeros_like(ratio), torch.zeros_like(ratio)
    return (ratio - 1, strength * ratio) if inside else (strength * (ratio - 1), strength * ratio)
