"""The linear layers of a model on the hosted fast engine's arithmetic, inside ComfyUI."""

from __future__ import annotations

from typing import cast

import comfy.ops
import torch
from torch import Tensor

from ..ops.hosted.linear import find_product, linear
from ..ops.hosted.primitives import Primitives
from ..ops.hosted.quantise import (
    E4M3,
    E4M3_MAX,
    E5M2_MAX,
    Calibration,
    Quantised,
    quantise,
    scale_for,
)
from .stored_linear import StoredLinear, moved


def hosted_operations(how: Primitives | None) -> type:
    """Return the operations of a model on this engine.

    Args:
        how: its sums; None for the device's own.
    """

    class Operations(comfy.ops.manual_cast):
        class Linear(HostedLinear):
            sums = how

    return Operations


class HostedLinear(StoredLinear):
    """A linear layer whose weight is e4m3 with one scale, or bf16 outside the blocks.

    Attributes:
        scale: what the weight was multiplied by, float32 without dimensions; None for bf16.
        scale_reciprocal: 1 / scale.
        input_scale: what inputs are multiplied by; None where each call measures its own.
        calibration: watches the inputs while the scale is being found.
    """

    STORED = E4M3
    SCALES = ("scale", "scale_reciprocal", "input_scale")
    sums: Primitives | None = None
    calibration: Calibration | None = None
    scale: torch.nn.Parameter | None
    scale_reciprocal: torch.nn.Parameter | None
    input_scale: torch.nn.Parameter | None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return [...,N] bf16 for input [...,K] bf16."""
        if self.sums is not None and self.scale is None:
            return self.sums.linear(input, self.weight, self.bias)
        return super().forward(input)

    def held(self, weight: Tensor) -> Quantised:
        """Return a weight [N,K] e4m3 with the layer's scale, which stays where it is.

        Only its reciprocal is computed with.
        """
        reciprocal = moved(cast("Tensor", self.scale_reciprocal), weight.device)
        return Quantised(weight, cast("Tensor", self.scale), reciprocal)

    def real(self, weight: Tensor) -> Tensor:
        """See `StoredLinear.real`."""
        return self.held(weight.to(E4M3)).dequantised()

    def multiply(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `StoredLinear.multiply`."""
        product = find_product(inputs.device) if self.sums is None else self.sums.product
        held = self.held(weight if weight.dtype == E4M3 else self._rounded(weight))
        return linear(product, inputs, held, bias, self._scale_of(inputs))

    def _scale_of(self, inputs: Tensor) -> Tensor:
        if self.input_scale is not None:
            return moved(self.input_scale, inputs.device)
        if self.calibration is not None:
            return self.calibration.observe(inputs)
        return scale_for(inputs.abs().amax(), E5M2_MAX)

    def _rounded(self, weight: Tensor) -> Tensor:
        scale = moved(cast("Tensor", self.scale), weight.device)
        return quantise(weight.to(torch.bfloat16), scale, E4M3_MAX, E4M3)

    def stored_again(self, weight: Tensor, *, inplace: bool, seed: int) -> Tensor:  # noqa: ARG002
        """Return it in e4m3 by the layer's own scale, which ComfyUI does not put back.

        This is for patches of other nodes: our LoRAs are merged with a scale of their own.
        """
        return self._rounded(weight) if self.scale is not None else weight.to(self.model_dtype)
