"""GLoRA, OFT and BOFT as patches of the core's: what they change is made of the weight itself.

The core hands over weights with rows in the model's order, and brings into that order only what it
adds to them. What is made of a weight has to be made of its rows in the file's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.weight_adapter.base import WeightAdapterBase
from torch import Tensor

from ..ops.lora.turn import turned

Made = Callable[[Tensor, str], Tensor]
"""Returns what a weight becomes: of rows [N,K] in float32, in the file's order, and its name."""


class Relative(WeightAdapterBase):
    """A change that is made of the weight, and multiplied by the strength as a whole.

    Args:
        name: of its kind.
        weights: that it is made with.
        made: what a weight becomes; it may not change the one that it is given.
    """

    def __init__(self, name: str, weights: list[Any], made: Made) -> None:
        self.name = name
        self.loaded_keys: set[str] = set()
        self.weights = weights
        self._made = made

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,  # noqa: ARG002 - the core has multiplied the weight by it
        offset: Any,  # noqa: ARG002 - weight is those rows alone
        function: Callable[[Tensor], Tensor],
        intermediate_dtype: torch.dtype = torch.float32,  # noqa: ARG002 - small turns want the most
        original_weight: Any = None,  # noqa: ARG002
    ) -> Tensor:
        """Change a weight in place and return it, as the core's adapters do.

        Args:
            weight: [N,K], or those of its rows that are meant.
            key: the weight's name.
            strength: what the LoRA is multiplied by.
            strength_model: 1.
            offset: which rows.
            function: brings rows into the model's order, and from there back again.
            intermediate_dtype: what the core would compute in.
            original_weight: of all weights, by their names.
        """
        before = function(weight.to(torch.float32))
        change = self._made(before, key) - before
        return weight.add_((strength * function(change)).to(weight.dtype))


def relative_glora(inner: Any) -> Relative:
    """Return GLoRA, as the core computes it.

    Args:
        inner: the core's.
    """

    def made(weight: Tensor, key: str) -> Tensor:
        done = inner.calculate_weight(weight.clone(), key, 1.0, 1.0, None, _as_it_is, torch.float32)
        return torch.as_tensor(done)

    return Relative("glora", list(inner.weights), made)


def relative_oft(blocks: Tensor, rescale: Tensor | None, constraint: float) -> Relative:
    """Return OFT or BOFT; see `ops.lora.turn`."""

    def made(weight: Tensor, _key: str) -> Tensor:
        scale = None if rescale is None else rescale.to(weight)
        return turned(weight, blocks.to(weight), scale, constraint)

    return Relative("oft" if blocks.ndim == 3 else "boft", [blocks, rescale], made)


def _as_it_is(rows: Tensor) -> Tensor:
    return rows
