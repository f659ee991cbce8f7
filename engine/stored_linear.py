"""A linear layer whose weight is stored in few bits, inside ComfyUI's model management.

What ComfyUI does with a weight keeps working: it is moved and offloaded, patched by any node
through `convert_weight` and `set_weight`, backed up and restored bit for bit. Nothing is written
into a weight in place, which may be a part of a file.
"""

from __future__ import annotations

from typing import Any, Final

import comfy.model_management
import comfy.ops
import torch
from torch import Tensor

_REAL: Final = "flux_hotswap_real"
"""Marks a weight that has its scales applied already."""


class Plain:
    """A layer as ComfyUI is to move it: without the functions of its weight.

    Those want the scales applied first, and ComfyUI would apply the functions while it moves.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, bias_function: list[Any]) -> None:
        self.weight = weight
        self.bias = bias
        self.weight_function: list[Any] = []
        self.bias_function = bias_function


class StoredLinear(comfy.ops.manual_cast.Linear):
    """A linear layer whose weight is of the dtype `STORED` with scales, or of the model's dtype.

    Attributes:
        STORED: the dtype.
        SCALES: parameters beside the weight, by their names in a file.
        weight: [N,K] of either dtype.
    """

    STORED: torch.dtype
    SCALES: tuple[str, ...]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,  # noqa: ARG002 - the weights come from the file, none are allocated
        dtype: torch.dtype | None = None,
    ) -> None:
        torch.nn.Module.__init__(self)
        self.in_features = in_features
        self.out_features = out_features
        self.has_bias = bias
        self.model_dtype = dtype or torch.bfloat16
        for name in ("weight", "bias", *self.SCALES):
            self.register_parameter(name, None)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: Any,  # noqa: ARG002 - torch's signature
        strict: bool,  # noqa: ARG002
        missing_keys: list[str],
        unexpected_keys: list[str],  # noqa: ARG002
        error_msgs: list[str],
    ) -> None:
        weight = state_dict.get(f"{prefix}weight")
        bias = state_dict.get(f"{prefix}bias")
        if weight is None:
            missing_keys.append(f"{prefix}weight")
            return
        if weight.shape != (self.out_features, self.in_features):
            have, want = tuple(weight.shape), (self.out_features, self.in_features)
            error_msgs.append(f"{prefix}weight is {have}, expected {want}")
            return
        self.take("weight", weight if weight.dtype == self.STORED else weight.to(self.model_dtype))
        for name in self.SCALES:
            self.take(name, state_dict.get(f"{prefix}{name}"))
        if bias is not None:
            # Its own memory: ComfyUI changes a bias in place for a hook LoRA, and this one may be
            # a part of a file.
            self.take("bias", bias.to(self.model_dtype, copy=True))
        elif self.has_bias:
            missing_keys.append(f"{prefix}bias")

    def take(self, name: str, value: Tensor | None) -> None:
        """Set a parameter."""
        setattr(self, name, None if value is None else parameter(value))

    # --- what an arithmetic says ---

    def real(self, weight: Tensor) -> Tensor:
        """Return a stored weight with its scales applied, [N,K] float32 on the same device."""
        raise NotImplementedError

    def multiply(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return [...,N] for inputs [...,K] and a weight that is stored, or real after patches."""
        raise NotImplementedError

    # --- running ---

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return [...,N] for input [...,K], both of the model's compute dtype."""
        if self.weight.dtype != self.STORED:
            return super().forward(input)
        comfy.ops.run_every_op()
        weight, bias, stream = self._on_device(input)
        patched = self._through_functions(self.real(weight)) if self.weight_function else weight
        made = self.multiply(input, patched, bias)
        if stream is not None:
            comfy.ops.uncast_bias_weight(self, weight, bias, stream)
        return made

    def _through_functions(self, weight: Tensor) -> Tensor:
        """Apply the patches that ComfyUI leaves to each run when memory is low."""
        for function in self.weight_function:
            setattr(weight, _REAL, True)
            weight = function(weight)
        return weight

    def _on_device(self, inputs: Tensor) -> tuple[Tensor, Tensor | None, Any]:
        """Return weight and bias where the inputs are, and ComfyUI's stream if it moved them."""
        weight, bias = self.weight, self.bias
        ready = bias is None or (bias.device == inputs.device and bias.dtype == inputs.dtype)
        if weight.device == inputs.device and ready and not self.bias_function:
            return weight, bias, None
        plain: Any = Plain(weight, bias, self.bias_function)
        moved: Any = comfy.ops.cast_bias_weight(
            plain, inputs, dtype=weight.dtype, bias_dtype=inputs.dtype, offloadable=True
        )
        return moved

    # --- patches of any kind: ComfyUI asks for the weight, changes it and gives it back ---

    def convert_weight(self, weight: Tensor, **_: Any) -> Tensor:
        """Return a weight with its scales applied, [N,K] float32.

        Args:
            weight: the stored numbers in some dtype, or a weight that is real already.
        """
        if self.weight.dtype != self.STORED or getattr(weight, _REAL, False):
            return weight
        return self.real(weight)

    def set_weight(
        self,
        weight: Tensor,
        inplace_update: bool = False,
        seed: int | None = None,
        return_weight: bool = False,
        **_: Any,
    ) -> Tensor | None:
        """Take a changed weight [N,K]."""
        if return_weight:
            return weight
        # ComfyUI unpins what the layer holds later. That is another tensor by then, and the memory
        # of this one would be given to others while the card's driver has hold of it.
        if self.weight.is_pinned():
            comfy.model_management.unpin_memory(self.weight)
        self.take("weight", self.stored_again(weight, inplace=inplace_update, seed=seed or 0))
        return None

    def stored_again(self, weight: Tensor, *, inplace: bool, seed: int) -> Tensor:
        """Return what is kept of a changed weight [N,K] while its patches last.

        Args:
            weight: with its scales applied.
            inplace: whether ComfyUI will later copy the old numbers into the place of these, so
                that they must be of the same dtype.
            seed: for what is rounded by chance.
        """
        raise NotImplementedError


def moved(value: Tensor, device: torch.device) -> Tensor:
    """Return a scale on a device, as ComfyUI moves a weight: the card is not waited for.

    Main memory is: what is not there yet could be read.
    """
    waits = device.type == "cpu" or not comfy.model_management.device_supports_non_blocking(device)
    return value.to(device, non_blocking=not waits)


def parameter(value: Tensor) -> torch.nn.Parameter:
    """Return a tensor as a parameter that is not trained."""
    return torch.nn.Parameter(value, requires_grad=False)
