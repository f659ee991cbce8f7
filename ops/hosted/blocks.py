"""FLUX's blocks as the hosted engine computes them, over given weights.

Modulation is rounded to bf16 three times where ComfyUI rounds once, RoPE turns by a table in bf16,
and what the MLPs give is clamped. Every operation below stands for one rounding to bf16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

MLP_LIMIT: Final = 768.0
"""Of what an MLP of a double block gives."""
SINGLE_LIMIT: Final = 1536.0
"""Of what a single block gives."""
_EPSILON: Final = 1e-6
_STREAMS: Final = ("txt", "img")
"""In the order of the tokens."""


Layers = Callable[[str, Tensor], Tensor]
"""(name, inputs [...,K]) to what a layer makes of them, [...,N], both bf16."""
Norms = Callable[[str], Tensor]
"""The weight [D] bf16 of an RMS norm, by its name."""


@dataclass(frozen=True)
class Block:
    """A block's weights and how it attends.

    Attributes:
        linear: applies a layer by its published name inside the block (`img_attn.qkv`).
        norm: of its RMS norms, likewise (`img_attn.norm.query_norm`).
        heads: of its attention.
        attend: q, k, v [B,H,L,D] to the same shape, all bf16.
    """

    linear: Layers
    norm: Norms
    heads: int
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]

    def modulation(self, name: str, vec: Tensor, count: int) -> tuple[Tensor, ...]:
        """Return count vectors [B,1,C] by which tokens are shifted, scaled and gated."""
        return self.linear(name, functional.silu(vec))[:, None].chunk(count, dim=-1)

    def heads_of(self, qkv: Tensor, norm: str) -> tuple[Tensor, Tensor, Tensor]:
        """Split [B,L,3*H*D] into q, k and v [B,H,L,D], q and k normalised."""
        parts = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind()
        query, key = self.norm(f"{norm}.query_norm"), self.norm(f"{norm}.key_norm")
        return rms_norm(q, query), rms_norm(k, key), v

    def attention(self, q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
        """Attend over all tokens; [B,L,H*D]."""
        turned = (rotate(q, table).contiguous(), rotate(k, table).contiguous(), v.contiguous())
        return self.attend(*turned).transpose(1, 2).flatten(2)


def layer_norm(tokens: Tensor) -> Tensor:
    """Return tokens with mean 0 and variance 1."""
    return functional.layer_norm(tokens, tokens.shape[-1:], eps=_EPSILON)


def modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return normalised tokens, scaled and shifted: three roundings."""
    return (1 + scale) * layer_norm(tokens) + shift


def rms_norm(tokens: Tensor, weight: Tensor) -> Tensor:
    """Return tokens of RMS 1 over their last dimension times weight: rounded before and after."""
    wide = tokens.to(torch.float32)
    size = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + _EPSILON)
    return (wide * size).to(tokens.dtype) * weight.to(tokens)


def rotate(tokens: Tensor, table: Tensor) -> Tensor:
    """Turn neighbouring channels.

    Args:
        tokens: [B,H,L,D] bf16.
        table: [...,L,D/2,2,2] bf16, RoPE's matrices as ComfyUI makes them.
    """
    pairs = tokens.unflatten(-1, (-1, 1, 2))
    return (table[..., 0] * pairs[..., 0] + table[..., 1] * pairs[..., 1]).flatten(-2)


def double_block(
    block: Block, img: Tensor, txt: Tensor, vec: Tensor, table: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the image's and the text's tokens behind a double block.

    Args:
        block: its weights.
        img: [B,I,C] bf16.
        txt: [B,T,C] bf16.
        vec: [B,C] bf16.
        table: of T + I tokens, see `rotate`.
    """
    streams = dict(zip(_STREAMS, (txt, img), strict=True))
    changes = {name: block.modulation(f"{name}_mod.lin", vec, 6) for name in streams}
    heads = [
        block.heads_of(
            block.linear(f"{name}_attn.qkv", modulate(tokens, *changes[name][:2])),
            f"{name}_attn.norm",
        )
        for name, tokens in streams.items()
    ]
    q, k, v = (torch.cat(both, dim=2) for both in zip(*heads, strict=True))
    attended = block.attention(q, k, v, table).split((txt.shape[1], img.shape[1]), dim=1)
    for (name, tokens), seen in zip(streams.items(), attended, strict=True):
        _, _, gate, shift, scale, mlp_gate = changes[name]
        tokens = tokens + gate * block.linear(f"{name}_attn.proj", seen)
        inner = block.linear(f"{name}_mlp.0", modulate(tokens, shift, scale))
        made = block.linear(f"{name}_mlp.2", functional.gelu(inner, approximate="tanh"))
        streams[name] = tokens + mlp_gate * made.clamp(-MLP_LIMIT, MLP_LIMIT)
    return streams["img"], streams["txt"]


def single_block(block: Block, tokens: Tensor, vec: Tensor, table: Tensor) -> Tensor:
    """Return the tokens [B,T+I,C] behind a single block; arguments as of `double_block`."""
    shift, scale, gate = block.modulation("modulation.lin", vec, 3)
    width = 3 * tokens.shape[-1]
    qkv, inner = block.linear("linear1", modulate(tokens, shift, scale)).tensor_split([width], -1)
    seen = block.attention(*block.heads_of(qkv, "norm"), table)
    both = torch.cat((seen, functional.gelu(inner, approximate="tanh")), dim=-1)
    made = block.linear("linear2", both).clamp(-SINGLE_LIMIT, SINGLE_LIMIT)
    return tokens + gate * made


def final_layer(linear: Layers, img: Tensor, vec: Tensor) -> Tensor:
    """Return the prediction [B,I,P] of the last layer, which stays in bf16.

    Args:
        linear: applies a layer by its published name inside it.
        img: [B,I,C] bf16.
        vec: [B,C] bf16.
    """
    both = linear("adaLN_modulation.1", functional.silu(vec))
    shift, scale = both[:, None].chunk(2, dim=-1)
    return linear("linear", modulate(img, shift, scale))
