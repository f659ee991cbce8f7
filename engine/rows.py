"""The rows of a layer's weight, as numbers, whatever they are stored as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHUNK: Final = 2**24
"""Elements of a weight that are looked at at once."""


@dataclass(frozen=True)
class Rows:
    """The rows of a layer's weight, whatever it is stored as.

    Attributes:
        values: [N,K] as they are stored.
        scale: [N,1] or [1,1], what they are multiplied by; None for nothing.
        group: of the channels that are turned, see `ops.int8`.
    """

    values: Tensor
    scale: Tensor | None
    group: int

    @staticmethod
    def of(layer: Any, weight: Any) -> Rows:
        """Return those of a layer.

        Args:
            layer: the layer.
            weight: its weight as it was loaded, see `engine.unpatched`.
        """
        import torch

        inner = getattr(weight, "_qdata", None)
        if inner is not None and inner.dtype == torch.int8:
            told = weight._params
            group = told.convrot_groupsize if getattr(told, "convrot", False) else 1
            return Rows(inner, told.scale.reshape(-1, 1), group)
        if inner is not None:
            return Rows(weight.dequantize(), None, 1)
        scale = getattr(layer, "weight_scale", None)
        if weight.dtype == torch.int8 and scale is not None:
            return Rows(weight, scale, layer.group)
        scale = getattr(layer, "scale_weight", None)  # of older scaled files
        return Rows(weight, None if scale is None else scale.reshape(-1, 1), 1)

    def read(self, index: Tensor | slice, device: torch.device | None = None) -> Tensor:
        """Return rows as the hosted model has them, [n,K] of numbers in bf16."""
        import torch

        return self.exact(index, device).to(torch.bfloat16)

    def exact(self, index: Tensor | slice, device: torch.device | None = None) -> Tensor:
        """Return rows as the layer computes with them, [n,K] float32."""
        import torch

        from ..ops.int8 import rotate

        place = index if isinstance(index, slice) else index.to(self.values.device)
        made = self.values[place].to(device or self.values.device, torch.float32)
        if self.scale is not None:
            scale = self.scale if len(self.scale) == 1 else self.scale[place]
            made = made * scale.to(made)
        return rotate(made, self.group)

    def largest(self, device: torch.device) -> Tensor:
        """Return the largest magnitude of each row, [N] bf16 on the CPU."""
        import torch

        step = max(1, CHUNK // self.values.shape[1])
        starts = range(0, len(self.values), step)
        parts = [self.read(slice(at, at + step), device).abs().amax(dim=1) for at in starts]
        return torch.cat(parts).cpu()
