"""A weight that brings its scale along, in the last bytes of each row.

ComfyUI moves, backs up and restores a weight as one tensor. A second tensor with the scales would
be left behind when it does, so a weight that was changed after loading carries its scales itself:

    [N,K]        as loaded; the scales are the module's `weight_scale`
    [N,K+R+16]   K columns, R columns of LoRAs (see `side`), 16 bytes that begin with the scale

A row stays a multiple of 16 bytes long, which the fp8 matmul asks for.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from .rows import FP8

TAIL: Final = 16
_SCALE_BYTES: Final = 4


class Rows(NamedTuple):
    """A weight taken apart.

    Attributes:
        values: [N,K+R] e4m3, a view.
        scale: [N,1] float32.
        width: K, the number of columns that are the weight itself.
    """

    values: Tensor
    scale: Tensor
    width: int

    @property
    def base(self) -> Tensor:
        """The weight itself, without the columns of LoRAs; [N,K] e4m3, a view."""
        return self.values[:, : self.width]


def pack(values: Tensor, scale: Tensor, beside: Tensor | None = None) -> Tensor:
    """Return a weight with its scales, and with the columns of LoRAs if there are any.

    Args:
        values: [N,K] e4m3.
        scale: [N,1] float32.
        beside: [N,R] e4m3, R a multiple of 16.

    Returns:
        [N,K+R+16] e4m3, a copy.
    """
    height, width = values.shape
    extra = 0 if beside is None else beside.shape[1]
    packed = torch.zeros((height, width + extra + TAIL), dtype=FP8, device=values.device)
    packed[:, :width] = values
    if beside is not None:
        packed[:, width : width + extra] = beside
    packed[:, -TAIL : -TAIL + _SCALE_BYTES] = scale.contiguous().view(FP8)
    return packed


def unpack(weight: Tensor, width: int, scale: Tensor) -> Rows:
    """Take a weight apart.

    Args:
        weight: [N,K] or [N,K+R+16] e4m3.
        width: K.
        scale: [N,1] float32, of a weight as loaded; moved to the weight's device.
    """
    if weight.shape[1] == width:
        return Rows(weight, scale.to(weight.device), width)
    tail = weight[:, -TAIL : -TAIL + _SCALE_BYTES].contiguous()
    return Rows(weight[:, :-TAIL], tail.view(torch.float32), width)
