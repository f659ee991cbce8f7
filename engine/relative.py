"""DoRA, GLoRA, OFT and BOFT as patches of the core's: their change is made of the weight itself.

The core hands over weights with rows in the model's order, and brings into that order only what it
adds to them. What is made of a weight has to be made of its rows in the file's. Where memory is
low a current core makes an adapter anew with what it has moved: its class is called with
`loaded_keys` and `weights`, so that these hold all that an adapter is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.weight_adapter.base import WeightAdapterBase
from torch import Tensor

from ..ops.lora.dora import shares
from ..ops.lora.sizes import magnitude_axis
from ..ops.lora.turn import turned
from .sides import DORA


class Relative(WeightAdapterBase):
    """A change that is made of the weight.

    Args:
        loaded_keys: of the core's.
        weights: what it is made with.
    """

    def __init__(self, loaded_keys: set[str], weights: list[Any]) -> None:
        self.loaded_keys = loaded_keys
        self.weights: list[Any] = weights

    def change(self, weight: Tensor, key: str, strength: float) -> Tensor:
        """Return what is added to a weight at a strength.

        Args:
            weight: [N,K] float32, rows in the file's order; it is left as it is.
            key: its name.
            strength: what the LoRA is multiplied by.
        """
        raise NotImplementedError

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,  # noqa: ARG002 - the core has multiplied the weight by it
        offset: Any,  # noqa: ARG002 - weight is those rows alone
        function: Callable[[Tensor], Tensor],
        intermediate_dtype: torch.dtype = torch.float32,  # noqa: ARG002 - norms and turns want most
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
        change = self.change(function(weight.to(torch.float32)), key, strength)
        return weight.add_(function(change).to(weight.dtype))


class Dora(Relative):
    """DoRA, of whose norms the core takes some of the wrong weight.

    Its weights: the adapter without magnitudes; one magnitude for each row or column of what that
    changes; whether the strength is inside, see `ops.lora.dora`.
    """

    name = DORA

    def change(self, weight: Tensor, key: str, strength: float) -> Tensor:
        """See `Relative`."""
        inner, magnitude, inside = self.weights
        delta = changed(inner, weight, key) - weight
        axis = magnitude_axis(magnitude, tuple(weight.shape)) or 0
        lengths = magnitude.to(weight).flatten()
        more, times = shares(weight, delta, lengths, axis, strength, inside=inside)
        return more * weight + times * delta


class Glora(Relative):
    """GLoRA as the core computes it, but of rows in the file's order; its weights: the core's."""

    name = "glora"

    def change(self, weight: Tensor, key: str, strength: float) -> Tensor:
        """See `Relative`."""
        return strength * (changed(self.weights[0], weight, key) - weight)


class Turned(Relative):
    """OFT or BOFT; its weights: the arguments of `ops.lora.turn.turned`."""

    name = "oft"

    def change(self, weight: Tensor, key: str, strength: float) -> Tensor:  # noqa: ARG002
        """See `Relative`."""
        blocks, rescale, constraint = self.weights
        scale = None if rescale is None else rescale.to(weight)
        return strength * (turned(weight, blocks.to(weight), scale, constraint) - weight)


def changed(adapter: Any, weight: Tensor, key: str) -> Tensor:
    """Return what one of the core's adapters makes of a weight, which is left as it is."""
    done = adapter.calculate_weight(weight.clone(), key, 1.0, 1.0, None, _same, torch.float32)
    return torch.as_tensor(done)


def _same(rows: Tensor) -> Tensor:
    return rows
