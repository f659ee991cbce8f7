"""Batches: scenes, some cells of each as latents, and the words.

Cells are drawn by lot, so that where they lie says nothing of the picture. Few lie at edges, which
are hardest to draw: some more are asked there. Those look at the others and at the words, but none
looks at them: it would see from them where the edges are.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flux_hotswap.prediction.sizes import PRESETS, preset_size

from . import flux, paint, text, vae
from .vae import Encoder
from .world import Scene

OBEYED = 2.5
"""From this guidance on a picture shows what the prompt says; below, that often less."""


EDGE_REACH = 16.0
"""How near an edge the middle of a cell lies that is asked, in pixels."""

EDGE_WEIGHT = 0.5
"""What the cells asked at edges count, beside all that are seen."""

UNSEEN = -1e4
"""Added to what every query thinks of a key that it is not to see."""


@dataclass(frozen=True)
class Parts:
    """What a training step takes.

    Attributes:
        pictures: how many.
        seen: cells of each, anywhere.
        asked: more cells of each, at edges, which no other cell sees.
    """

    pictures: int
    seen: int
    asked: int


@dataclass(frozen=True)
class Batch:
    """What a training step sees; N cells, the seen ones first.

    Attributes:
        latents: [B,N,64] packed, of the painted cells.
        before: [B,N,64] where the model's own way to them begins, with noise, see `walk`.
        turn: [B,T+N,64,2] rotations.
        bias: [B,T+N] logarithms of what each token stands for.
        weight: [B,N] how much a cell counts, 1 + EDGE_WEIGHT in the mean.
        painted: what else is known of the cells.
        guidance: [B]
        words: the prompts' tokens.
        padding: [B,T] of `text.weights`.
    """

    latents: Tensor
    before: Tensor
    turn: Tensor
    bias: Tensor
    weight: Tensor
    painted: paint.Painted
    guidance: Tensor
    words: text.Words
    padding: Tensor


def make(
    dice: random.Random,
    scene: Callable[[random.Random], Scene],
    tools: tuple[text.Tokenizers, Encoder],
    parts: Parts,
    padded: Sequence[int] = (256, 512),
    square: float = 0.5,
    unstyled: float = 0.0,
) -> Batch:
    """Scenes that `scene` draws; `square` is that of `any_size`.

    The way to a share of `unstyled` begins at the scene without its style.
    """
    tokenizers, encoder = tools
    count = parts.pictures
    described = [scene(dice) for _ in range(count)]
    guidance = [_guidance(dice) for _ in range(count)]
    shown = [
        one if dice.random() < strength / OBEYED else scene(dice)
        for one, strength in zip(described, guidance, strict=True)
    ]
    sizes = [any_size(dice, parts.seen, square) for _ in range(count)]
    generator = torch.Generator().manual_seed(dice.getrandbits(40))
    places = torch.stack(
        [_some_cells(*one, parts, generator) for one in zip(shown, sizes, strict=True)]
    )
    painted = paint.paint(shown, torch.tensor(sizes), places)
    latents = before = vae.encode(painted.cells, encoder)
    if unstyled:
        bare = [replace(one, style="") if dice.random() < unstyled else one for one in shown]
        cells = paint.paint(bare, torch.tensor(sizes), places).cells
        before = vae.encode(cells, encoder)
    whole = torch.tensor([width * height / 256 for width, height in sizes])
    padding = torch.stack([text.weights(dice.choice(padded)) for _ in range(count)])
    some = (whole / parts.seen).log()[:, None].expand(-1, parts.seen)
    unseen = torch.full((count, parts.asked), UNSEEN)
    return Batch(
        latents=latents,
        before=before,
        turn=turns(places),
        bias=torch.cat([padding, some, unseen], dim=1),
        weight=_weights(parts).expand(count, -1),
        painted=painted,
        guidance=torch.tensor(guidance),
        words=tokenizers([one.prompt for one in described]),
        padding=padding,
    )


def turns(places: Tensor) -> Tensor:
    """The rotations of text and cells [B,N,2]: [B,T+N,64]."""
    batch, cells = places.shape[:2]
    ids = torch.zeros(batch, len(text.POSITIONS) + cells, 3)
    ids[:, len(text.POSITIONS) :, 1:] = places
    return flux.turns(ids)


def _weights(parts: Parts) -> Tensor:
    cells = parts.seen + parts.asked
    shares = ((parts.seen, 1.0), (parts.asked, EDGE_WEIGHT))
    return torch.cat([torch.full((n,), share * cells / max(n, 1)) for n, share in shares])


def quick() -> torch.autocast:
    """Inside, the products of matrices are of bf16 where the processor knows it.

    Elsewhere that takes 15 times as long as float32, which remains.
    """
    knows = torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast("cpu", torch.bfloat16, enabled=knows)


def any_size(dice: random.Random, cells: int, square: float) -> tuple[int, int]:
    """Width and height: those of 0.25 megapixels, or a small square where few cells are seen.

    A share of `square` is 512 x 512; the rest have any aspect ratio, the longer the more often.
    """
    if cells <= 160 and dice.random() < 0.12:
        return 256, 256
    if dice.random() < square:
        return 512, 512
    sizes = [preset_size(preset, "0.25") for preset in PRESETS]
    ratios = [max(size.width, size.height) / min(size.width, size.height) for size in sizes]
    [size] = dice.choices(sizes, weights=ratios)
    return size.width // 16 * 16, size.height // 16 * 16


def _some_cells(
    scene: Scene, size: tuple[int, int], parts: Parts, generator: torch.Generator
) -> Tensor:
    """Cells [N,2]: first those that are seen, then those that are asked."""
    cells = paint.all_cells(*size)
    cells = cells[torch.randperm(len(cells), generator=generator)]
    seen, rest = cells[: parts.seen], cells[parts.seen :]
    away = paint.edges([scene], torch.tensor([size]), rest[None])[0]
    near = (away > EDGE_REACH).byte().argsort(stable=True)
    return torch.cat([seen, rest[near[: parts.asked]]])


def _guidance(dice: random.Random) -> float:
    roll = dice.random()
    if roll < 0.1:
        return dice.uniform(0, OBEYED)
    return dice.uniform(6, 10) if roll < 0.18 else dice.uniform(OBEYED, 6)


def sigmas(dice: random.Random, count: int) -> Tensor:
    """Noise levels: [B]; what a picture shows is decided above 0.75."""
    return torch.tensor([_sigma(dice) for _ in range(count)])


def _sigma(dice: random.Random) -> float:
    roll = dice.random()
    if roll < 0.12:
        return 1.0
    if roll < 0.6:
        return dice.uniform(0.75, 1)
    return 1 / (1 + math.exp(-dice.gauss(0, 1.2)))
