"""From noise to an 8 bit picture, in bf16 all along."""

from __future__ import annotations

import torch
from torch import Tensor


def euler(latent: Tensor, prediction: Tensor, sigma: float, following: float) -> Tensor:
    """Return the latent one step on.

    Args:
        latent: bf16 of any shape, at noise level sigma.
        prediction: bf16 of the same shape.
        sigma: the noise level, a float32 number.
        following: the next one.

    Returns:
        bf16 of the same shape; the move is rounded, and so is the sum.
    """
    move = ((following - sigma) * prediction.to(torch.float32)).to(torch.bfloat16)
    return (latent.to(torch.float32) + move.to(torch.float32)).to(torch.bfloat16)


def to_eight_bit(decoded: Tensor) -> Tensor:
    """Return a decoded picture in 8 bits.

    bf16 has eight bits of mantissa itself, so that truncating here is neither what truncating nor
    what rounding a float32 picture gives: most values that differ do so by 1.

    Args:
        decoded: -1..1 of any shape; bf16, or rounded to it.

    Returns:
        uint8 of the same shape.
    """
    shifted = (decoded.to(torch.bfloat16).to(torch.float32).clamp(-1, 1) + 1).to(torch.bfloat16)
    stretched = (shifted.to(torch.float32) * 127.5).to(torch.bfloat16)
    return stretched.to(torch.float32).clamp(0, 255).to(torch.uint8)


def in_eight_bit_steps(images: Tensor) -> Tensor:
    """Return pictures at the 256 levels that the hosted engine's conversion gives.

    Args:
        images: 0..1 of any shape, as ComfyUI decodes them; NaN stays NaN.

    Returns:
        float32 of the same shape; rounded to 8 bits it is what `to_eight_bit` gives.
    """
    wide = images.to(torch.float32)
    levels = to_eight_bit(torch.nan_to_num(wide * 2 - 1)).to(torch.float32) / 255
    return torch.where(wide.isnan(), wide, levels)
