"""The three sums that a machine may order as it likes, plainly and in a portable form.

The portable form sums in float64 and rounds once, which gives the same bits on every CPU. The
hosted model runs neither: its GPU has an order of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from .linear import Product, by_float32, exactly


@dataclass(frozen=True)
class Primitives:
    """How sums are made.

    Attributes:
        product: of inputs and weights in fp8.
        linear: inputs [...,K], weight [N,K], bias [N] to [...,N], all bf16.
        attention: q, k, v [B,H,L,D] to the same shape, all bf16.
    """

    product: Product
    linear: Callable[[Tensor, Tensor, Tensor], Tensor]
    attention: Callable[[Tensor, Tensor, Tensor], Tensor]


def _rounded(sums: Tensor, dtype: torch.dtype) -> Tensor:
    return sums.to(torch.float32).to(dtype)


def portable_linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Sum in float64."""
    return _rounded(inputs.double() @ weight.double().t() + bias.double(), inputs.dtype)


def portable_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend in float64."""
    scores = (q.double() @ k.double().transpose(-1, -2)) * q.shape[-1] ** -0.5
    return _rounded(scores.softmax(dim=-1) @ v.double(), q.dtype)


PLAIN: Final = Primitives(by_float32, functional.linear, functional.scaled_dot_product_attention)
PORTABLE: Final = Primitives(exactly, portable_linear, portable_attention)
