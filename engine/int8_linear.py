"""The linear layers of a model in int8, for a ComfyUI that does not run that format fast itself.

What ComfyUI does with a weight keeps working: it is moved and offloaded, patched by any node
through `convert_weight` and `set_weight`, backed up and restored bit for bit. Nothing is written
into a weight in place, which may be a part of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import comfy.ops
import torch
from torch import Tensor

from ..ops.int8 import dequantise, group_of, multiply_stored, quantise_evenly

FEWEST_TOKENS: Final = 16
"""Below this many the int8 matmul gains nothing; modulation layers have one token an image."""

_REAL: Final = "flux_hotswap_real"
"""Marks a weight that has its scales applied already."""


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


class Plain:
    """A layer as ComfyUI is to move it: without the functions of its weight.

    Those want the scales applied first, and ComfyUI would apply the functions while it moves.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, bias_function: list[Any]) -> None:
        self.weight = weight
        self.bias = bias
        self.weight_function: list[Any] = []
        self.bias_function = bias_function


class Int8Linear(comfy.ops.manual_cast.Linear):
    """A linear layer whose weight is int8 with scales, or of the model's dtype.

    Attributes:
        weight: [N,K] int8, or of the model's dtype where the file has it so or a patch changed it.
        weight_scale: [N,1] float32, of a weight as loaded; None if it is not quantised.
    """

    multiplies: Matmul | None = None
    weight_scale: torch.nn.Parameter | None

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
        self.group = group_of(in_features)
        self.model_dtype = dtype or torch.bfloat16
        for name in ("weight", "bias", "weight_scale"):
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
        scale = state_dict.get(f"{prefix}weight_scale")
        if weight is None:
            missing_keys.append(f"{prefix}weight")
            return
        if weight.shape != (self.out_features, self.in_features):
            have, want = tuple(weight.shape), (self.out_features, self.in_features)
            error_msgs.append(f"{prefix}weight is {have}, expected {want}")
            return
        self._set("weight", weight if scale is not None else weight.to(self.model_dtype))
        self._set("weight_scale", scale)
        if bias is not None:
            self._set("bias", bias.to(self.model_dtype))
        elif self.has_bias:
            missing_keys.append(f"{prefix}bias")

    def _set(self, name: str, value: Tensor | None) -> None:
        made = None if value is None else torch.nn.Parameter(value, requires_grad=False)
        setattr(self, name, made)

    def _scale_on(self, device: torch.device) -> Tensor:
        """Return the scales [N,1] of a weight that is int8."""
        return cast("Tensor", self.weight_scale).to(device)

    # --- running ---

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return [..., N] for input [..., K], both of the model's compute dtype."""
        if self.weight.dtype != torch.int8:
            return super().forward(input)
        comfy.ops.run_every_op()
        tokens = input.reshape(-1, self.in_features)
        weight, bias, stream = self._on_device(tokens)
        made = self._multiply(tokens, weight, bias)
        if stream is not None:
            comfy.ops.uncast_bias_weight(self, weight, bias, stream)
        return made.reshape(*input.shape[:-1], self.out_features)

    def _multiply(self, tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        scale = self._scale_on(tokens.device)
        if self.weight_function:
            real = self._through_functions(dequantise(weight, scale, self.group))
            return torch.nn.functional.linear(tokens, real.to(tokens.dtype), bias)
        if self.multiplies is None or len(tokens) < FEWEST_TOKENS:
            return multiply_stored(tokens, weight, scale, bias, self.group)
        return self.multiplies(tokens, weight, scale, bias, self.group)

    def _through_functions(self, weight: Tensor) -> Tensor:
        """Apply the patches that ComfyUI leaves to each run when memory is low."""
        for function in self.weight_function:
            setattr(weight, _REAL, True)
            weight = function(weight)
        return weight

    def _on_device(self, tokens: Tensor) -> tuple[Tensor, Tensor | None, Any]:
        """Return weight and bias where the tokens are, and ComfyUI's stream if it moved them."""
        weight, bias = self.weight, self.bias
        ready = bias is None or (bias.device == tokens.device and bias.dtype == tokens.dtype)
        if weight.device == tokens.device and ready and not self.bias_function:
            return weight, bias, None
        plain: Any = Plain(weight, bias, self.bias_function)
        moved: Any = comfy.ops.cast_bias_weight(
            plain, tokens, dtype=weight.dtype, bias_dtype=tokens.dtype, offloadable=True
        )
        return moved

    # --- patches of any kind: ComfyUI asks for the weight, changes it and gives it back ---

    def convert_weight(self, weight: Tensor, **_: Any) -> Tensor:
        """Return a weight with its scales applied, [N,K] float32.

        Args:
            weight: the steps of ours in some dtype, or a weight that is real already.
        """
        if self.weight.dtype != torch.int8 or getattr(weight, _REAL, False):
            return weight
        return dequantise(weight, self._scale_on(weight.device), self.group)

    def set_weight(
        self,
        weight: Tensor,
        inplace_update: bool = False,
        seed: int | None = None,
        return_weight: bool = False,
        **_: Any,
    ) -> Tensor | None:
        """Take a changed weight [N,K]: whole, in the model's dtype.

        Where ComfyUI will later copy the old weight into the place of this one (hook LoRAs), it
        is int8 again, rounded by chance: the nearest step would lose small changes.
        """
        if return_weight:
            return weight
        if inplace_update and self.weight.dtype == torch.int8:
            scale = self._scale_on(weight.device)
            steps = quantise_evenly(weight.to(torch.float32), scale, self.group, seed or 0)
            self._set("weight", steps.to(self.weight.device))
        else:
            self._set("weight", weight.to(self.model_dtype))
        return None
