"""fp8 with one scale for a whole tensor: weights in e4m3, inputs in e5m2.

A scale multiplies before the cast, its reciprocal undoes it. The product is rounded to bf16 first
and to fp8 then, so that a number is rounded twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ...errors import CheckpointError

E4M3: Final = torch.float8_e4m3fn
E5M2: Final = torch.float8_e5m2
E4M3_MAX: Final = 448.0
E5M2_MAX: Final = 57344.0

CALIBRATION_CALLS: Final = 12
"""After so many calls the scale of a layer's inputs is settled."""

_SMALLEST: Final = 1e-12


@dataclass(frozen=True)
class Quantised:
    """A weight in e4m3.

    Attributes:
        data: [N,K] e4m3.
        scale: what the weight was multiplied by; float32 without dimensions.
        reciprocal: 1 / scale.
    """

    data: Tensor
    scale: Tensor
    reciprocal: Tensor

    def dequantised(self) -> Tensor:
        """Return [N,K] float32."""
        return widen(self.data) * self.reciprocal


def widen(data: Tensor) -> Tensor:
    """Return e4m3 numbers as float32.

    On a CPU this is several times as fast as a cast: float16 has one bit more of exponent, so that
    moving the bits gives the number at a 256th of its size.
    """
    if data.device.type != "cpu":
        return data.to(torch.float32)
    bits = data.view(torch.int8).to(torch.int16).bitwise_left_shift_(7).bitwise_and_(~0x4000)
    return bits.view(torch.float16).to(torch.float32).mul_(256.0)


def has_fp8(device: torch.device) -> bool:
    """Whether a device holds numbers in fp8, which those of Apple do not."""
    try:
        for dtype in (E4M3, E5M2):
            torch.ones(1, device=device).to(dtype).to(torch.float32)
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    return True


def scale_for(largest: Tensor, top: float) -> Tensor:
    """Return what brings numbers into the range of fp8.

    Args:
        largest: the largest magnitude, without dimensions.
        top: the largest number of the format.

    Returns:
        float32 without dimensions, at most top: numbers below 1 are not stretched further.
    """
    return (top / largest.to(torch.float32).clamp_min(_SMALLEST)).clamp_max(top)


def quantise(values: Tensor, scale: Tensor, top: float, dtype: torch.dtype) -> Tensor:
    """Round values to fp8; what lies beyond its range becomes its largest number."""
    product = (values.to(torch.float32) * scale).to(torch.bfloat16)
    return product.clamp(-top, top).to(dtype)


def quantise_weight(weight: Tensor) -> Quantised:
    """Round a weight to e4m3.

    Args:
        weight: [N,K] bf16, not modified.

    Raises:
        CheckpointError: it holds NaN or infinity.
    """
    largest = weight.abs().amax()
    if not torch.isfinite(largest):
        raise CheckpointError(
            "A weight holds NaN or infinity and cannot be rounded to fp8. The file is damaged or "
            "was saved in a dtype too small for it: fetch it again, or use another one."
        )
    scale = scale_for(largest, E4M3_MAX)
    return Quantised(quantise(weight, scale, E4M3_MAX, E4M3), scale, scale.reciprocal())


def quantise_input(inputs: Tensor, scale: Tensor) -> Tensor:
    """Round inputs to e5m2 with the scale of their layer, whatever their own largest number.

    Args:
        inputs: bf16 of any shape, not modified.
        scale: float32 without dimensions.

    Returns:
        e5m2 of the same shape.
    """
    return quantise(inputs, scale, E5M2_MAX, E5M2)


class Calibration:
    """Finds the scale of a layer's inputs from its first calls."""

    def __init__(self) -> None:
        self._calls = 0
        self._largest = torch.zeros(())

    @property
    def settled(self) -> bool:
        """Whether further calls change nothing."""
        return self._calls >= CALIBRATION_CALLS

    @property
    def scale(self) -> Tensor:
        """The scale by the calls so far; float32 without dimensions."""
        return scale_for(self._largest, E5M2_MAX)

    def observe(self, inputs: Tensor) -> Tensor:
        """Take the inputs of one call into account; the scale that this call uses."""
        if not self.settled:
            largest = inputs.abs().amax().to(torch.float32)
            self._largest = torch.maximum(self._largest.to(largest.device), largest)
            self._calls += 1
        return self.scale
