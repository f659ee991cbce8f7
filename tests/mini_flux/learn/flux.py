"""FLUX's transformer at the small size, under the published names of its tensors.

It can be trained on some of a picture's cells: a key that stands for several tokens gets the
logarithm of their number, so that attention means the same as with all of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mini_flux.shapes import HEAD

HIDDEN = HEAD  # one head
AXES = (16, 56, 56)
DOUBLE_BLOCKS = 2
SINGLE_BLOCKS = 4
CHANNELS = 64
TEXT_WIDTH = 32
POOLED_WIDTH = 16


class Embedder(nn.Module):
    """Two layers, SiLU between them."""

    def __init__(self, into: int) -> None:
        """[B,into] to [B,HIDDEN]."""
        super().__init__()
        self.in_layer = nn.Linear(into, HIDDEN)
        self.out_layer = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        """[B,into] to [B,HIDDEN]."""
        return self.out_layer(functional.silu(self.in_layer(x)))


class Scale(nn.Module):
    """RMS norm over a head, with a scale."""

    def __init__(self) -> None:
        """Scales of 1."""
        super().__init__()
        self.scale = nn.Parameter(torch.ones(HEAD))

    def forward(self, x: Tensor) -> Tensor:
        """[...,HEAD] to the same, the sums in float32."""
        return functional.rms_norm(x.float(), (HEAD,), self.scale, 1e-6).to(x.dtype)


class Norms(nn.Module):
    """The norms of queries and keys."""

    def __init__(self) -> None:
        """One each."""
        super().__init__()
        self.query_norm = Scale()
        self.key_norm = Scale()


class Attention(nn.Module):
    """One stream's share of a double block's attention."""

    def __init__(self) -> None:
        """Query, key and value, and the way back."""
        super().__init__()
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.norm = Norms()
        self.proj = nn.Linear(HIDDEN, HIDDEN)


class Modulation(nn.Module):
    """Shift, scale and gate from the vector of time, guidance and pooled text."""

    def __init__(self, parts: int) -> None:
        """`parts` vectors."""
        super().__init__()
        self.lin = nn.Linear(HIDDEN, parts * HIDDEN)
        self.parts = parts

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        """[B,HIDDEN] to `parts` of [B,1,HIDDEN]."""
        return self.lin(functional.silu(vec))[:, None].chunk(self.parts, dim=-1)


def mlp() -> nn.Sequential:
    """The feed-forward of a double block."""
    gelu = nn.GELU(approximate="tanh")
    return nn.Sequential(nn.Linear(HIDDEN, 4 * HIDDEN), gelu, nn.Linear(4 * HIDDEN, HIDDEN))


def _norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, functional.layer_norm(x, (HIDDEN,), eps=1e-6), 1 + scale)


class DoubleBlock(nn.Module):
    """Image and text, each with its own weights, in one attention."""

    def __init__(self) -> None:
        """Both streams."""
        super().__init__()
        self.img_mod, self.txt_mod = Modulation(6), Modulation(6)
        self.img_attn, self.txt_attn = Attention(), Attention()
        self.img_mlp, self.txt_mlp = mlp(), mlp()

    def forward(
        self, img: Tensor, txt: Tensor, vec: Tensor, turn: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[B,N,HIDDEN] and [B,T,HIDDEN] to the same."""
        i = self.img_mod(vec)
        t = self.txt_mod(vec)
        streams = ((txt, t, self.txt_attn), (img, i, self.img_attn))
        parts = [_qkv(attn.qkv(_norm(x, m[0], m[1])), attn.norm) for x, m, attn in streams]
        query, key, value = (torch.cat(both, dim=1) for both in zip(*parts, strict=True))
        mixed = attend(query, key, value, turn, bias)
        words = txt.shape[1]
        img = img + i[2] * self.img_attn.proj(mixed[:, words:])
        txt = txt + t[2] * self.txt_attn.proj(mixed[:, :words])
        img = img + i[5] * self.img_mlp(_norm(img, i[3], i[4]))
        txt = txt + t[5] * self.txt_mlp(_norm(txt, t[3], t[4]))
        return img, txt


class SingleBlock(nn.Module):
    """Attention and feed-forward side by side, on text and image alike."""

    def __init__(self) -> None:
        """Two layers around the attention."""
        super().__init__()
        self.linear1 = nn.Linear(HIDDEN, 7 * HIDDEN)
        self.linear2 = nn.Linear(5 * HIDDEN, HIDDEN)
        self.norm = Norms()
        self.modulation = Modulation(3)

    def forward(self, x: Tensor, vec: Tensor, turn: Tensor, bias: Tensor) -> Tensor:
        """[B,T+N,HIDDEN] to the same."""
        shift, scale, gate = self.modulation(vec)
        both = self.linear1(_norm(x, shift, scale))
        qkv, feed = both.split([3 * HIDDEN, 4 * HIDDEN], dim=-1)
        mixed = attend(*_qkv(qkv, self.norm), turn, bias)
        feed = functional.gelu(feed, approximate="tanh")
        return x + gate * self.linear2(torch.cat([mixed, feed], dim=-1))


def _qkv(qkv: Tensor, norms: Norms) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = qkv.chunk(3, dim=-1)
    return norms.query_norm(query), norms.key_norm(key), value


def attend(query: Tensor, key: Tensor, value: Tensor, turn: Tensor, bias: Tensor) -> Tensor:
    """Attention of one head with rotated positions.

    Args:
        query: [B,L,HEAD]
        key: [B,L,HEAD]
        value: [B,L,HEAD]
        turn: [B,L,HEAD/2,2] of `turns`.
        bias: [B,L] added to what every query thinks of a key.
    """
    # One head: torch's fused attention is slower here, backwards above all.
    query, key = _rotate(query, turn) * HEAD**-0.5, _rotate(key, turn)
    scores = query @ key.transpose(1, 2) + bias[:, None, :]
    return scores.softmax(dim=-1).to(value.dtype) @ value


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    first, second = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
    cos, sin = turn.to(x.dtype).unbind(dim=-1)
    turned = (first * cos - second * sin, first * sin + second * cos)
    return torch.stack(turned, dim=-1).flatten(-2)


def turns(ids: Tensor) -> Tensor:
    """Positions [B,L,3] as cosines and sines [B,L,HEAD/2,2]: theta is 10000, as in FLUX."""
    angles = []
    for axis, width in enumerate(AXES):
        rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angles.append(ids[..., axis, None].double() * rates)
    angle = torch.cat(angles, dim=-1).float()
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def timestep_embedding(values: Tensor) -> Tensor:
    """[B] in 0..1 (or guidance) to [B,256], as in FLUX."""
    rates = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
    angle = 1000 * values[:, None].float() * rates
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class LastLayer(nn.Module):
    """From HIDDEN back to packed latents."""

    def __init__(self) -> None:
        """A linear layer with its own modulation."""
        super().__init__()
        self.linear = nn.Linear(HIDDEN, CHANNELS)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(HIDDEN, 2 * HIDDEN))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        """[B,N,HIDDEN] to [B,N,64]."""
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
        return self.linear(_norm(x, shift, scale))


class Flux(nn.Module):
    """The transformer."""

    def __init__(self, *, guidance: bool) -> None:
        """`guidance` is what dev has and schnell has not."""
        super().__init__()
        self.img_in = nn.Linear(CHANNELS, HIDDEN)
        self.txt_in = nn.Linear(TEXT_WIDTH, HIDDEN)
        self.time_in = Embedder(256)
        self.vector_in = Embedder(POOLED_WIDTH)
        self.guidance_in = Embedder(256) if guidance else None
        self.double_blocks = nn.ModuleList(DoubleBlock() for _ in range(DOUBLE_BLOCKS))
        self.single_blocks = nn.ModuleList(SingleBlock() for _ in range(SINGLE_BLOCKS))
        self.final_layer = LastLayer()
        self._start()

    def _start(self) -> None:
        """Blocks that pass on what they get, a velocity of nothing."""
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weight)
            elif weight.dim() == 2:
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
            if "mod" in name and "lin" in name and weight.dim() == 2:
                nn.init.normal_(weight, std=0.2 * weight.shape[1] ** -0.5)
        for name, weight in self.named_parameters():
            if name.endswith(("mod.lin.bias", "modulation.lin.bias")):
                # The gates come last of each three; open a little.
                weight.data.view(-1, 3, HIDDEN)[:, 2] = 0.3
        nn.init.zeros_(self.final_layer.linear.weight)

    def guided(self, guidance: Tensor) -> Tensor:
        """What a guidance [B] adds to the vector: [B,HIDDEN]."""
        if self.guidance_in is None:
            raise ValueError("schnell knows no guidance")
        return self.guidance_in(timestep_embedding(guidance))

    def forward(
        self,
        img: Tensor,
        txt: Tensor,
        vec: Tensor,
        sigma: Tensor,
        guidance: Tensor | None,
        turn: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The velocity, and the image's state after the double blocks and at the end.

        Args:
            img: [B,N,64] packed latents.
            txt: [B,T,TEXT_WIDTH]
            vec: [B,POOLED_WIDTH]
            sigma: [B] noise level, 0..1.
            guidance: [B], None for schnell.
            turn: [B,T+N,HEAD/2,2] of `turns`, text first.
            bias: [B,T+N] logarithm of how many tokens each stands for.
        """
        mod = self.time_in(timestep_embedding(sigma)) + self.vector_in(vec)
        if guidance is not None:
            mod = mod + self.guided(guidance)
        img, txt = self.img_in(img), self.txt_in(txt)
        for block in self.double_blocks:
            img, txt = block(img, txt, mod, turn, bias)
        middle, both = img, torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            both = block(both, mod, turn, bias)
        img = both[:, txt.shape[1] :]
        return self.final_layer(img, mod), middle, img
