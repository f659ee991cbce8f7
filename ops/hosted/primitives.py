"""The three sums that a machine may order as it likes.

Exact ones give the same bits on every CPU; the hosted model's GPU has an order of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import Tensor
from torch.nn import functional

from .linear import Product, by_float32


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


PLAIN: Final = Primitives(by_float32, functional.linear, functional.scaled_dot_product_attention)
