"""What the model is told of time and place: sines of noise level and guidance, and RoPE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from .step import as_told

FLUX_AXES: Final = (16, 56, 56)
"""Of a head's 128 channels, how many turn with the text's, the row's and the column's index."""

_WAVES: Final = 128
_PERIOD: Final = 10000.0


def embedding(value: Tensor) -> Tensor:
    """Return [B,256] bf16, cosines first, of noise levels or guidances [B]."""
    waves = torch.arange(_WAVES, dtype=torch.float32, device=value.device)
    angles = as_told(value).to(torch.float32)[:, None] * torch.exp(
        -math.log(_PERIOD) * waves / _WAVES
    )
    return torch.cat((torch.cos(angles), torch.sin(angles)), dim=-1).to(torch.bfloat16)


def places(text_tokens: int, rows: int, columns: int) -> Tensor:
    """Return where each token lies: [text_tokens + rows * columns, 3] float32, text at 0, 0, 0."""
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    image = torch.nn.functional.pad(grid, (1, 0))
    return torch.cat((torch.zeros(text_tokens, 3), image.to(torch.float32)))


def rope(places: Tensor, axes: Sequence[int] = FLUX_AXES) -> Tensor:
    """Return the turns of a head's pairs of channels.

    Args:
        places: [L,3] float32.
        axes: channels of each axis.

    Returns:
        [L,sum(axes)/2,2,2] bf16: for each token and pair a matrix of cosines and sines.
    """
    turns: list[Tensor] = []
    for place, channels in zip(places.unbind(-1), axes, strict=True):
        powers = torch.arange(0, channels, 2, dtype=torch.float32, device=places.device) / channels
        angles = place[:, None] * (1.0 / _PERIOD**powers)
        cos, sin = torch.cos(angles), torch.sin(angles)
        turns.append(torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2)))
    return torch.cat(turns, dim=1).to(torch.bfloat16)
