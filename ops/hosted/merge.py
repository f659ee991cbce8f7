"""LoRAs merged into a weight in fp8, and rounded again.

The weight leaves e4m3, takes the change and goes back with a scale of its own: a change smaller
than half a step of e4m3 is lost, a larger one becomes a whole step. Each LoRA is added to what the
one before has left. Nothing is subtracted to remove one: the weight from before is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import LoraError
from .quantise import Quantised, quantise_weight


@dataclass(frozen=True)
class Part:
    """What a LoRA adds to some rows of a weight.

    Attributes:
        up: [n,R] fp16, bf16 or float32, the factor B.
        down: [R,K] of the same dtype, the factor A.
        start: the first of the n rows.
        alpha: the change is multiplied by alpha / R; None for R.
        fused: whether the layer holds several modules in one weight (q, k, v, mlp). The hosted
            engine leaves the alpha of those out.
    """

    up: Tensor
    down: Tensor
    start: int = 0
    alpha: float | None = None
    fused: bool = False

    @property
    def ratio(self) -> float:
        """What the product of the factors is multiplied by, beside the strength."""
        return 1.0 if self.alpha is None else self.alpha / self.up.shape[1]

    @property
    def hosted_ratio(self) -> float:
        """The same on the hosted engine."""
        return 1.0 if self.fused else self.ratio

    @property
    def stop(self) -> int:
        """The row after the last."""
        return self.start + len(self.up)

    def hosted_down(self) -> Tensor:
        """Return A as the hosted engine multiplies it."""
        if self.alpha is None or self.hosted_ratio == 1.0:
            return self.down
        return self.down * self.alpha / self.up.shape[1]

    def fit(self, rows: int, columns: int) -> None:
        """Check the part against the size of a weight.

        Raises:
            LoraError: it is made for another size.
        """
        rank, width = self.down.shape
        if self.up.shape[1] != rank or width != columns or self.stop > rows:
            raise LoraError(
                f"A LoRA's factors {list(self.up.shape)} and {list(self.down.shape)} do not fit "
                f"the rows from {self.start} of a weight [{rows}, {columns}]. The file is damaged "
                "or made for another model: use one made for FLUX.1."
            )


def change(part: Part, coefficient: float) -> Tensor:
    """Return [n,K] of the factors' dtype: rounded as a product, and once more when multiplied."""
    return torch.mm(part.up, part.hosted_down()) * coefficient


def merge(weight: Quantised, parts: Sequence[Part], coefficient: float) -> Quantised:
    """Return the weight with one LoRA in it.

    Args:
        weight: not modified; putting it back removes the LoRA.
        parts: of the LoRA, each on rows of its own.
        coefficient: 1.5 times the scale for the main LoRA, the scale alone for the extra one.

    Raises:
        LoraError: a part is made for another size.
        CheckpointError: the sum holds NaN or infinity.
    """
    merged = weight.dequantised().to(torch.bfloat16)
    for part in parts:
        part.fit(*merged.shape)
        rows = merged[part.start : part.stop]
        rows.copy_(rows.to(torch.float32) + change(part, coefficient).to(torch.float32))
    return quantise_weight(merged)
