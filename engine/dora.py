"""DoRA as a patch of the core's, which takes the norm of the wrong weight itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.weight_adapter.base import WeightAdapterBase
from torch import Tensor

from ..ops.lora.dora import decomposed
from ..ops.lora.sizes import magnitude_axis
from .sides import DORA


class Decomposed(WeightAdapterBase):
    """An adapter's change with magnitudes.

    Args:
        inner: the adapter without them.
        magnitude: one for each row or column of what the adapter changes.
        inside: see `ops.lora.dora`.
    """

    name = DORA

    def __init__(self, inner: Any, magnitude: Tensor, *, inside: bool) -> None:
        self.loaded_keys: set[str] = set()
        self.weights: list[Any] = [inner, magnitude]
        self.inside = inside

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,  # noqa: ARG002 - the core has multiplied the weight by it
        offset: Any,  # noqa: ARG002 - weight is those rows alone
        function: Callable[[Tensor], Tensor],
        intermediate_dtype: torch.dtype = torch.float32,  # noqa: ARG002 - norms want the most
        original_weight: Any = None,
    ) -> Tensor:
        """Change a weight in place and return it, as the core's adapters do.

        Args:
            weight: [N,K], or those of its rows that are meant.
            key: the weight's name.
            strength: what the LoRA is multiplied by.
            strength_model: 1.
            offset: which rows.
            function: brings rows into the model's order.
            intermediate_dtype: what the core would compute in.
            original_weight: of all weights, by their names.
        """
        inner, magnitude = self.weights
        before = weight.to(torch.float32)
        whole: Any = (key, 1.0, 1.0, None, function, torch.float32, original_weight)
        delta = inner.calculate_weight(before.clone(), *whole) - before
        axis = magnitude_axis(magnitude, tuple(weight.shape)) or 0
        lengths = magnitude.to(before).flatten()
        if axis == 0:
            lengths = function(lengths)
        made = decomposed(before, delta, lengths, axis, strength, inside=self.inside)
        return weight.copy_(made)
