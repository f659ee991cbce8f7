"""The vision transformer that both networks are: patches, blocks, one summary vector.

CLIP's tower and ViT differ in five small things, which `Form` names. Sizes come from the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import SafetyError

HEAD_WIDTH = 64
"""Both published networks split their width into heads of 64."""


@dataclass(frozen=True)
class Form:
    """What tells the two kinds of tower apart."""

    norm_eps: float
    activation: Literal["gelu", "quick_gelu"]
    first_norm: bool
    patch_bias: bool


CLIP = Form(norm_eps=1e-5, activation="quick_gelu", first_norm=True, patch_bias=False)
VIT = Form(norm_eps=1e-12, activation="gelu", first_norm=False, patch_bias=True)


@dataclass(frozen=True)
class Sizes:
    """A tower's sizes, as its weights show them."""

    width: int
    inner: int
    layers: int
    patch: int
    tokens: int

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Sizes:
        """Read the sizes from weights named as in `Tower`.

        Raises:
            KeyError: a weight that shows a size is missing.
            SafetyError: the width cannot be split into heads.
        """
        width, _, patch, _ = weights["patch.weight"].shape
        if width % HEAD_WIDTH:
            raise SafetyError(f"its width {width} is not a multiple of {HEAD_WIDTH}")
        layers = {int(name.split(".")[1]) for name in weights if name.startswith("blocks.")}
        inner = weights["blocks.0.fc1.weight"].shape[0]
        return cls(width, inner, len(layers), patch, weights["position"].shape[0])


class Block(nn.Module):
    """One layer: attention, then two linear layers, each on a normalised copy."""

    def __init__(self, sizes: Sizes, form: Form) -> None:
        super().__init__()
        self.heads = sizes.width // HEAD_WIDTH
        self.quick = form.activation == "quick_gelu"
        self.norm1 = nn.LayerNorm(sizes.width, eps=form.norm_eps)
        self.norm2 = nn.LayerNorm(sizes.width, eps=form.norm_eps)
        self.q = nn.Linear(sizes.width, sizes.width)
        self.k = nn.Linear(sizes.width, sizes.width)
        self.v = nn.Linear(sizes.width, sizes.width)
        self.out = nn.Linear(sizes.width, sizes.width)
        self.fc1 = nn.Linear(sizes.width, sizes.inner)
        self.fc2 = nn.Linear(sizes.inner, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B,N,D] to [B,N,D]."""
        x = x + self._attend(self.norm1(x))
        hidden = self.fc1(self.norm2(x))
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick else functional.gelu(hidden)
        return x + self.fc2(hidden)

    def _attend(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        query, key, value = (
            layer(x).view(batch, tokens, self.heads, HEAD_WIDTH).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Tower(nn.Module):
    """Pictures to one vector each: the normalised class token after the last block."""

    def __init__(self, sizes: Sizes, form: Form) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.empty(sizes.width))
        self.position = nn.Parameter(torch.empty(sizes.tokens, sizes.width))
        self.patch = nn.Conv2d(3, sizes.width, sizes.patch, sizes.patch, bias=form.patch_bias)
        self.first_norm = (
            nn.LayerNorm(sizes.width, eps=form.norm_eps) if form.first_norm else nn.Identity()
        )
        self.blocks = nn.ModuleList(Block(sizes, form) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.width, eps=form.norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map [B,3,H,W] to [B,D]; H and W are those the position table was made for."""
        patches = self.patch(pixels).flatten(2).transpose(1, 2)
        first = self.cls.expand(len(patches), 1, -1)
        x = self.first_norm(torch.cat([first, patches], 1) + self.position)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])
