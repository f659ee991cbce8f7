"""The linear layers of a model whose weights are e4m3, as operations that ComfyUI builds it with.

What ComfyUI does with a weight keeps working: it is moved and offloaded, patched by any node
through `convert_weight` and `set_weight`, backed up and restored bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import comfy.ops
import torch
from torch import Tensor

from ..ops.fp8.matmul import Matmul, multiply
from ..ops.fp8.packed import Rows, pack, unpack
from ..ops.fp8.rows import dequantise_rows, largest_of_rows, quantise_rows_evenly, row_scales
from ..ops.fp8.side import Factors, columns, stack

FEWEST_TOKENS: Final = 16
"""Below this many the fp8 matmul gains nothing; modulation layers have one token a picture."""

_REAL: Final = "flux_hotswap_real"
"""Marks a weight that has its scales applied already."""


def fp8_operations(matmul: Matmul | None) -> type:
    """Return the operations of a model in fp8.

    Args:
        matmul: multiplies in fp8; None keeps fp8 for storage and multiplies in the model's dtype.
    """

    class Operations(comfy.ops.manual_cast):
        class Linear(Fp8Linear):
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


class Fp8Linear(comfy.ops.manual_cast.Linear):
    """A linear layer whose weight is e4m3 with scales, or of the model's dtype as in the file.

    Attributes:
        weight: [N,K] e4m3, or packed (see `ops.fp8.packed`), or [N,K] of the model's dtype.
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
        self.model_dtype = dtype or torch.bfloat16
        for name in ("weight", "bias", "weight_scale"):
            self.register_parameter(name, None)
        self._down: Tensor | None = None
        self._beside: Tensor | None = None
        self._holder: int | None = None
        self._has_own_scale = False

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
        if scale is None:
            weight = weight.to(self.model_dtype)
        self._set("weight", weight)
        self._set("weight_scale", scale)
        if bias is not None:
            self._set("bias", bias.to(self.model_dtype))
        elif self.has_bias:
            missing_keys.append(f"{prefix}bias")

    def _set(self, name: str, value: Tensor | None) -> None:
        made = None if value is None else torch.nn.Parameter(value, requires_grad=False)
        setattr(self, name, made)

    @property
    def _loaded_scale(self) -> Tensor:
        if self.weight_scale is None:
            raise RuntimeError("a layer that is not quantised has no scales")
        return self.weight_scale

    # --- running ---

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return [..., N] for input [..., K], both of the model's compute dtype."""
        if self.weight_scale is None:
            return super().forward(input)
        comfy.ops.run_every_op()
        tokens = input.reshape(-1, self.in_features)
        weight, bias, stream = self._on_device(tokens)
        made = self._multiply(tokens, self._rows(weight), bias)
        if stream is not None:
            comfy.ops.uncast_bias_weight(self, weight, bias, stream)
        return made.reshape(*input.shape[:-1], self.out_features)

    def _multiply(self, tokens: Tensor, rows: Rows, bias: Tensor | None) -> Tensor:
        down = None if self._down is None else self._down.to(tokens)
        matmul = self._matmul_for(tokens)
        if matmul is not None:
            return multiply(matmul, tokens, rows, bias, down)
        weight = dequantise_rows(rows.values, rows.scale, self._dtype_for(tokens))
        if self.weight_function:
            weight = self._through_functions(weight)
        weight = weight.to(tokens.dtype)
        if down is None:
            return torch.nn.functional.linear(tokens, weight[:, : self.in_features], bias)
        beside = torch.nn.functional.linear(tokens, down)
        return torch.nn.functional.linear(torch.cat([tokens, beside], dim=1), weight, bias)

    def _matmul_for(self, tokens: Tensor) -> Matmul | None:
        """Return how these tokens are multiplied in fp8; None if they are not."""
        if len(tokens) < FEWEST_TOKENS or self.weight_function:
            return None
        return self.multiplies if tokens.dtype in (torch.bfloat16, torch.float32) else None

    def _dtype_for(self, tokens: Tensor) -> torch.dtype:
        # Patches are added in float32, and fp16 has no room for the scales.
        if self.weight_function or tokens.dtype == torch.float16:
            return torch.float32
        return tokens.dtype

    def _through_functions(self, weight: Tensor) -> Tensor:
        """Apply the patches that ComfyUI leaves to each run when memory is low."""
        width = self.in_features
        changed = weight[:, :width].contiguous()
        for function in self.weight_function:
            setattr(changed, _REAL, True)
            changed = function(changed)
        return torch.cat([changed, weight[:, width:]], dim=1)

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

    def _rows(self, weight: Tensor) -> Rows:
        rows = unpack(weight, self.in_features, self._loaded_scale)
        if self._beside is None:
            return rows
        packed = pack(rows.base, rows.scale, self._beside.to(weight.device))
        return unpack(packed, self.in_features, rows.scale)

    # --- patches of any kind: ComfyUI asks for the weight, changes it and gives it back ---

    def convert_weight(self, weight: Tensor, **_: Any) -> Tensor:
        """Return a weight with its scales applied, [N,K] float32.

        Args:
            weight: the values of ours in some float dtype, or a weight that is real already.
        """
        if self.weight_scale is None or getattr(weight, _REAL, False):
            return weight
        scale = self.weight_scale.to(weight.device)
        return weight[:, : self.in_features].to(torch.float32) * scale

    def set_weight(
        self,
        weight: Tensor,
        inplace_update: bool = False,
        seed: int | None = None,
        return_weight: bool = False,
        **_: Any,
    ) -> Tensor | None:
        """Take a changed weight [N,K].

        It is rounded by chance: the base lies on e4m3's grid, and the nearest number would lose
        small changes.
        """
        if return_weight:
            return weight
        real = weight.to(torch.float32)
        if self.weight_scale is None:
            self._take(weight.to(self.weight.dtype), inplace_update)
        elif inplace_update:
            rows = unpack(self.weight.data, self.in_features, self.weight_scale)
            rows.base.copy_(quantise_rows_evenly(real, rows.scale.to(real.device), seed or 0))
        else:
            scale = row_scales(largest_of_rows(real))
            self._set("weight", pack(quantise_rows_evenly(real, scale, seed or 0), scale))
        return None

    def _take(self, weight: Tensor, inplace: bool) -> None:
        if inplace:
            self.weight.data.copy_(weight)
        else:
            self._set("weight", weight)

    # --- LoRAs beside the weight ---

    def attach(self, parts: Sequence[Factors], device: torch.device, holder: int) -> None:
        """Put LoRAs beside the weight, in place of those that are there.

        Args:
            parts: the LoRAs, strengths included.
            device: where the layer computes. A weight that is there takes the LoRAs' columns into
                its rows; one that is offloaded gets them whenever it is brought there.
            holder: who attaches them.
        """
        self._drop()
        rows = unpack(self.weight, self.in_features, self._loaded_scale)
        factors = stack(parts, self.out_features).to(self.weight.device)
        beside, down = columns(factors, rows.scale)
        self._holder = holder
        self._down = down.to(device, self._factor_dtype(device))
        if self.weight.device == device:
            self._has_own_scale = self.weight.shape[1] != self.in_features
            self._set("weight", pack(rows.base, rows.scale, beside))
        else:
            self._beside = beside

    def detach(self, holder: int) -> None:
        """Remove the LoRAs that `holder` attached; the weight is what it was, bit for bit."""
        if self._holder == holder:
            self._drop()

    def _drop(self) -> None:
        if self._down is not None and self._beside is None:
            rows = unpack(self.weight, self.in_features, self._loaded_scale)
            base = rows.base.contiguous()
            self._set("weight", pack(base, rows.scale) if self._has_own_scale else base)
        self._down = self._beside = self._holder = None

    def _factor_dtype(self, device: torch.device) -> torch.dtype:
        return torch.float32 if device.type == "cpu" else self.model_dtype
