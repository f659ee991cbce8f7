"""The linear layers of a model in int8, for a ComfyUI that does not run that format fast itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import comfy.ops
import torch
from torch import Tensor

from ..ops.int8 import dequantise, group_of, multiply_stored, quantise_evenly
from .stored_linear import StoredLinear, moved

FEWEST_TOKENS: Final = 16
"""Below this many the int8 matmul gains nothing; modulation layers have one token an image."""


Matmul = Callable[[Tensor, Tensor, Tensor, "Tensor | None", int], Tensor]
"""(tokens [M,K], weight [N,K] int8, scale [N,1], bias [N], group) to [M,N] of the tokens' dtype."""


def int8_operations(matmul: Matmul | None) -> type:
    """Return the operations of a model in int8.

    Args:
        matmul: multiplies in int8; None keeps int8 for storage and multiplies in the model's dtype.
    """

    class Operations(comfy.ops.manual_cast):
        class Linear(Int8Linear):
            multiplies = staticmethod(matmul) if matmul is not None else None

    return Operations


class Int8Linear(StoredLinear):
    """A linear layer whose weight is int8 with scales, or of the model's dtype.

    Attributes:
        weight_scale: [N,1] float32, of a weight as loaded; None if it is not quantised.
    """

    STORED = torch.int8
    SCALES = ("weight_scale",)
    multiplies: Matmul | None = None
    weight_scale: torch.nn.Parameter | None

    @property
    def group(self) -> int:
        """How many channels are turned together."""
        return group_of(self.in_features)

    def _scale_on(self, device: torch.device) -> Tensor:
        """Return the scales [N,1] of a weight that is int8."""
        return moved(cast("Tensor", self.weight_scale), device)

    def real(self, weight: Tensor) -> Tensor:
        """See `StoredLinear.real`."""
        return dequantise(weight, self._scale_on(weight.device), self.group)

    def multiply(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `StoredLinear.multiply`."""
        tokens = inputs.reshape(-1, self.in_features)
        return self._multiply(tokens, weight, bias).reshape(*inputs.shape[:-1], self.out_features)

    def _multiply(self, tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if weight.dtype != torch.int8:
            return torch.nn.functional.linear(tokens, weight.to(tokens.dtype), bias)
        scale = self._scale_on(tokens.device)
        if self.multiplies is None or len(tokens) < FEWEST_TOKENS:
            return multiply_stored(tokens, weight, scale, bias, self.group)
        return self.multiplies(tokens, weight, scale, bias, self.group)

    def stored_again(self, weight: Tensor, *, inplace: bool, seed: int) -> Tensor:
        """Return it whole, in the model's dtype.

        Where ComfyUI will later copy the old weight into the place of this one (hook LoRAs), it
        is int8 again, rounded by chance: the nearest step would lose small changes.
        """
        if not inplace or self.weight.dtype != torch.int8:
            return weight.to(self.model_dtype)
        scale = self._scale_on(weight.device)
        steps = quantise_evenly(weight.to(torch.float32), scale, self.group, seed)
        return steps.to(self.weight.device)
