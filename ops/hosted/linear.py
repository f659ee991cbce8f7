"""The product of inputs in e5m2 and a weight in e4m3."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from ..full import is_full
from .quantise import Quantised, quantise_input, quantise_weight

Product = Callable[[Tensor, Quantised, "Tensor | None", Tensor], Tensor]
"""(inputs [M,K] e5m2, weight, bias [N] bf16 or None, reciprocal of the inputs' scale) to [M,N]
bf16."""

_scaled_mm: Final = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage]
# The public torch.nn.functional.scaled_mm is there from torch 2.10 only.

log = logging.getLogger(__name__)


def summed(
    inputs: Tensor, weight: Quantised, bias: Tensor | None, reciprocal: Tensor, dtype: torch.dtype
) -> Tensor:
    """Sum the products in a dtype, then scale, add the bias and round once."""
    made = (inputs.to(dtype) @ weight.data.to(dtype).t()).to(torch.float32)
    made = made * (reciprocal * weight.reciprocal)
    return (made if bias is None else made + bias.to(torch.float32)).to(torch.bfloat16)


def by_float32(
    inputs: Tensor, weight: Quantised, bias: Tensor | None, reciprocal: Tensor
) -> Tensor:
    """Sum in float32, on any device."""
    return summed(inputs, weight, bias, reciprocal, torch.float32)


def by_device(inputs: Tensor, weight: Quantised, bias: Tensor | None, reciprocal: Tensor) -> Tensor:
    """Let the device multiply in fp8, as the hosted model's does."""
    return _scaled_mm(
        inputs,
        weight.data.t(),
        scale_a=reciprocal,
        scale_b=weight.reciprocal,
        bias=bias,
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


def linear(
    product: Product, inputs: Tensor, weight: Quantised, bias: Tensor | None, scale: Tensor
) -> Tensor:
    """Return inputs @ weight.T + bias as the hosted engine computes it.

    Args:
        product: how: `by_float32`, or what `find_product` gives.
        inputs: [...,K] bf16.
        weight: [N,K].
        bias: [N] bf16.
        scale: of the inputs; float32 without dimensions.

    Returns:
        [...,N] bf16.
    """
    rows = quantise_input(inputs, scale).reshape(-1, inputs.shape[-1])
    made = product(rows, weight, bias, scale.reciprocal())
    return made.reshape(*inputs.shape[:-1], -1)


_products: dict[torch.device, Product] = {}
"""Found once. A plain dict, which torch.compile can look into: it would trace the trial else."""


def find_product(device: torch.device) -> Product:
    """Return the device's own product where a trial of it succeeds, else `by_float32`."""
    if device.type == "cpu":  # its fp8 is no faster
        return by_float32
    if device not in _products:
        _products[device] = by_device if _works(by_device, device) else by_float32
    return _products[device]


_LIMIT: Final = 0.004
"""Largest error of a trial's sums relative to all of them; wrong scales give 0.05 and more."""


def _works(product: Product, device: torch.device) -> bool:
    try:
        return _is_right(product, device)
    except (RuntimeError, ValueError, NotImplementedError, TypeError) as error:
        if is_full(error):  # it says nothing of the product, and what is found is kept
            raise
        log.info("fp8 matmul %s does not work on %s: %s", product.__name__, device, error)
        return False


def _is_right(product: Product, device: torch.device) -> bool:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(48, 512, generator=generator).to(device, torch.bfloat16)
    matrix = torch.randn(64, 512, generator=generator).to(device, torch.bfloat16)
    bias = torch.ones(64, dtype=torch.bfloat16, device=device)
    scale = torch.tensor(9000.0, device=device)
    weight = quantise_weight(matrix)
    made = linear(product, inputs, weight, bias, scale).cpu()  # a device's errors come late
    wanted = linear(by_float32, inputs, weight, bias, scale).cpu().to(torch.float32)
    return bool((made.to(torch.float32) - wanted).norm() <= _LIMIT * wanted.norm())
