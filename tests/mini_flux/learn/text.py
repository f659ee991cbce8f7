"""Small T5 and CLIP encoders under the published names, and how prompts are padded for them.

T5 pads to 512 tokens (schnell to 256). What the padding becomes changes slowly along it, so that a
few tokens of it, each with the logarithm of how many it stands for, do for all in training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel

from mini_flux.load_diffusers import clip_config
from mini_flux.shapes import T5_LAYERS, T5_VOCABULARY

T5_WIDTH = 32
T5_HEADS = 4
T5_KV = 16
T5_FF = 96
T5_ALIVE = 2
"""Layers that do something; the others pass on what they get."""

CLIP_WIDTH = 16
CLIP_FF = 64
CLIP_LAYERS = 2
CLIP_END = 49407
T5_END = 1

WORDS = 30
"""Tokens that are there one by one: the prompt, its end, the first of the padding."""

_REST = ((36, 30, 44), (60, 44, 80), (112, 80, 160), (208, 160, 256), (384, 256, 512))
"""Where a token of the padding stands, and from where to where it stands for the others."""

POSITIONS = torch.tensor([*range(WORDS), *(place for place, _, _ in _REST)])


def weights(total: int) -> Tensor:
    """The logarithm of how many tokens each one stands for, of `total`: [len(POSITIONS)]."""
    counts = [1] * WORDS + [max(min(end, total) - begin, 0) for _, begin, end in _REST]
    return torch.tensor([math.log(count) if count else -1e4 for count in counts])


@dataclass(frozen=True)
class Words:
    """Tokenised prompts.

    Attributes:
        t5: [B,len(POSITIONS)]
        clip: [B,L], padded with the end token; nothing looks behind the first of them.
    """

    t5: Tensor
    clip: Tensor


class Tokenizers:
    """Both tokenizers, with a memory."""

    def __init__(self, clip: Any, t5: Any) -> None:
        """The tokenizers of transformers, read from the files that a ComfyUI carries."""
        self._clip, self._t5 = clip, t5
        self._known: dict[str, tuple[list[int], list[int]]] = {}

    def one(self, prompt: str) -> tuple[list[int], list[int]]:
        """CLIP's and T5's tokens of a prompt, without padding."""
        if prompt not in self._known:
            t5 = self._t5(prompt).input_ids
            if len(t5) > WORDS:
                raise ValueError(f"{prompt!r} has {len(t5)} tokens; training has room for {WORDS}")
            self._known[prompt] = (self._clip(prompt).input_ids, t5)
        return self._known[prompt]

    def __call__(self, prompts: Sequence[str]) -> Words:
        """The tokens of a batch."""
        both = [self.one(prompt) for prompt in prompts]
        longest = max(len(clip) for clip, _ in both)
        return Words(
            t5=torch.tensor([_padded(t5, len(POSITIONS), 0) for _, t5 in both]),
            clip=torch.tensor([_padded(clip, longest, CLIP_END) for clip, _ in both]),
        )


def _padded(tokens: list[int], length: int, pad: int) -> list[int]:
    return tokens + [pad] * (length - len(tokens))


class T5(nn.Module):
    """The first layers of the small T5 encoder."""

    def __init__(self) -> None:
        """Embeddings of deviation 1, layers that begin small."""
        super().__init__()
        inner = T5_HEADS * T5_KV
        self.shared = nn.Embedding(T5_VOCABULARY, T5_WIDTH)
        self.distance = nn.Embedding(32, T5_HEADS)
        nn.init.normal_(self.distance.weight, std=0.5)
        self.norms = nn.Parameter(torch.ones(T5_ALIVE, 2, T5_WIDTH))
        self.final = nn.Parameter(torch.ones(T5_WIDTH))
        shapes = {"q": (inner, T5_WIDTH), "k": (inner, T5_WIDTH), "v": (inner, T5_WIDTH)}
        shapes |= {"o": (T5_WIDTH, inner), "wi_0": (T5_FF, T5_WIDTH), "wi_1": (T5_FF, T5_WIDTH)}
        shapes |= {"wo": (T5_WIDTH, T5_FF)}
        self.layers = nn.ModuleList(
            nn.ParameterDict({name: _random(shape) for name, shape in shapes.items()})
            for _ in range(T5_ALIVE)
        )

    def forward(self, tokens: Tensor, log_counts: Tensor) -> Tensor:
        """[B,T] tokens at `POSITIONS` to [B,T,T5_WIDTH]; `log_counts` [B,T] of `weights`."""
        x = self.shared(tokens)
        steps = POSITIONS[None, :] - POSITIONS[:, None]
        bias = self.distance(buckets(steps)).permute(2, 0, 1)[None] + log_counts[:, None, None]
        for index, layer in enumerate(self.layers):
            p = dict(layer.items())  # type: ignore[operator]
            y = functional.rms_norm(x, (T5_WIDTH,), self.norms[index, 0], 1e-6)
            q, k, v = (
                (y @ p[name].T).unflatten(-1, (T5_HEADS, T5_KV)).transpose(1, 2) for name in "qkv"
            )
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
            x = x + mixed.transpose(1, 2).flatten(2) @ p["o"].T
            y = functional.rms_norm(x, (T5_WIDTH,), self.norms[index, 1], 1e-6)
            feed = functional.gelu(y @ p["wi_0"].T, approximate="tanh") * (y @ p["wi_1"].T)
            x = x + feed @ p["wo"].T
        return functional.rms_norm(x, (T5_WIDTH,), self.final, 1e-6)

    def as_file(self) -> dict[str, Tensor]:
        """The tensors by their published names, layers that do nothing included."""
        made = {"shared.weight": self.shared.weight, "encoder.final_layer_norm.weight": self.final}
        for index in range(T5_LAYERS):
            alive = index < T5_ALIVE
            layer = dict(self.layers[min(index, T5_ALIVE - 1)].items())  # type: ignore[operator]
            block = f"encoder.block.{index}.layer"
            ones = torch.ones(T5_WIDTH)
            for part, name in enumerate(("q k v o", "wi_0 wi_1 wo")):
                inside = "DenseReluDense" if part else "SelfAttention"
                made[f"{block}.{part}.layer_norm.weight"] = (
                    self.norms[index, part] if alive else ones
                )
                for letter in name.split():
                    weight = layer[letter]
                    key = f"{block}.{part}.{inside}.{letter}.weight"
                    made[key] = weight if alive else torch.zeros_like(weight)
        first = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        made[first] = self.distance.weight
        return {name: value.detach().clone() for name, value in made.items()}

    def from_file(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a file that `as_file` made."""
        self.shared.weight.data = state["shared.weight"]
        self.final.data = state["encoder.final_layer_norm.weight"]
        block = "encoder.block.{}.layer.{}"
        first = block.format(0, 0)
        self.distance.weight.data = state[f"{first}.SelfAttention.relative_attention_bias.weight"]
        for index, layer in enumerate(self.layers):
            for name, weight in dict(layer.items()).items():  # type: ignore[operator]
                part, inside = (0, "SelfAttention") if name in "qkvo" else (1, "DenseReluDense")
                weight.data = state[f"{block.format(index, part)}.{inside}.{name}.weight"]
            for part in (0, 1):
                norm = state[f"{block.format(index, part)}.layer_norm.weight"]
                self.norms.data[index, part] = norm


def _random(shape: tuple[int, int]) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * 0.7 * shape[1] ** -0.5)


def buckets(steps: Tensor) -> Tensor:
    """T5's buckets of distances: 8 exact ones each way, then logarithmic ones up to 128."""
    size = steps.abs()
    far = 8 + (size.clamp(min=1).float() / 8).log() / math.log(16) * 8
    bucket = torch.where(size < 8, size, far.long().clamp(max=15))
    return bucket + 16 * (steps > 0)


def clip() -> CLIPTextModel:
    """The small CLIP text encoder; its pooled output is what FLUX uses."""
    model = CLIPTextModel(clip_config(CLIP_WIDTH, CLIP_FF, CLIP_LAYERS))
    generator = torch.Generator().manual_seed(7)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            wide = 1.0 if "embedding" in name else 1.2 * weight.shape[1] ** -0.5
            weight.data = torch.randn(weight.shape, generator=generator) * wide
    return model
