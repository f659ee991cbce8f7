"""Multiplying in fp8, in whichever of two ways the device can."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from .packed import Rows, pack, unpack
from .rows import FP8, dequantise_rows, quantise_rows, quantise_tokens

Matmul = Callable[[Tensor, Tensor, Rows, "Tensor | None", torch.dtype], Tensor]
"""(tokens [M,K] e4m3, scales [M,1], weight, bias [N] or None, dtype) to [M,N] of dtype."""

_scaled_mm: Final = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage]
# The public torch.nn.functional.scaled_mm is there from torch 2.10 only.

log = logging.getLogger(__name__)


def by_rows(
    tokens: Tensor, scale: Tensor, weight: Rows, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Let the matmul apply the scales and the bias; bf16 only, on newer cards."""
    return _scaled_mm(
        tokens,
        weight.values.t(),
        scale_a=scale,
        scale_b=weight.scale.t(),
        bias=bias,
        out_dtype=dtype,
        use_fast_accum=True,
    )


def by_hand(
    tokens: Tensor, scale: Tensor, weight: Rows, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Apply the scales behind the matmul, which works on every card that multiplies in fp8."""
    one = torch.ones((), dtype=torch.float32, device=tokens.device)
    made = _scaled_mm(
        tokens, weight.values.t(), scale_a=one, scale_b=one, out_dtype=dtype, use_fast_accum=True
    )
    made = made * scale * weight.scale.t()  # in float32
    return (made if bias is None else made + bias).to(dtype)


def multiply(
    matmul: Matmul, tokens: Tensor, weight: Rows, bias: Tensor | None, down: Tensor | None
) -> Tensor:
    """Return tokens @ weight.T + bias, computed in fp8.

    Args:
        matmul: how.
        tokens: [M,K] bf16 or float32.
        weight: with R columns of LoRAs if down is given.
        bias: [N] of the dtype of tokens.
        down: [R,K] of the dtype of tokens, the half of the LoRAs that comes first.

    Returns:
        [M,N] of the dtype of tokens.
    """
    beside = None if down is None else torch.nn.functional.linear(tokens, down)
    quantised, scale = quantise_tokens(tokens, beside)
    if beside is None and weight.values.shape[1] != weight.width:
        weight = weight._replace(values=weight.base)
    way = matmul if tokens.dtype == torch.bfloat16 else by_hand
    return way(quantised, scale, weight, bias, tokens.dtype)


@functools.cache
def find_matmul(device: torch.device) -> Matmul | None:
    """Return the faster way that works on a device; None if neither does.

    Both are tried on a small product, so that an old driver or a card with half the support costs
    speed and never a picture.
    """
    return next((way for way in _WAYS if _works(way, device)), None)


_WAYS: Final[tuple[Matmul, ...]] = (by_rows, by_hand)
_LIMIT: Final = 0.05
"""Largest error that a trial may have, relative to the largest value; e4m3's is about 0.02."""


def _works(way: Matmul, device: torch.device) -> bool:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(48, 64, generator=generator).to(device, torch.bfloat16)
    matrix = torch.randn(32, 64, generator=generator).to(device, torch.bfloat16)
    values, scale = quantise_rows(matrix)
    beside = torch.zeros((32, 16), dtype=FP8, device=device)
    weight = unpack(pack(values, scale, beside), 64, scale)
    bias = torch.ones(32, dtype=torch.bfloat16, device=device)
    down = torch.zeros((16, 64), dtype=torch.bfloat16, device=device)
    try:
        made = multiply(way, tokens, weight, bias, down)
        torch.zeros(1, device=device).cpu()  # what failed on the device is raised here
    except (RuntimeError, ValueError, NotImplementedError, TypeError) as error:
        log.info("fp8 matmul %s does not work on %s: %s", way.__name__, device, error)
        return False
    wanted = tokens @ dequantise_rows(values, scale, torch.bfloat16).t() + bias
    return bool((made - wanted).abs().max() <= _LIMIT * wanted.abs().max())
