"""Batches: scenes, some cells of each as latents, and the words."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flux_hotswap.prediction.sizes import PRESETS, preset_size

from . import flux, paint, text, vae
from .vae import Encoder
from .world import Scene

OBEYED = 2.5
"""From this guidance on a picture shows what the prompt says; below, that often less."""


@dataclass(frozen=True)
class Batch:
    """What a training step sees.

    Attributes:
        latents: [B,N,64] packed, of the painted cells.
        turn: [B,T+N,64] rotations.
        bias: [B,T+N] logarithms of what each token stands for.
        weight: [B,N] how much a cell counts.
        painted: what else is known of the cells.
        guidance: [B]
        words: the prompts' tokens.
        padding: [B,T] of `text.weights`.
    """

    latents: Tensor
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
    count: int,
    cells: int,
    padded: Sequence[int] = (256, 512),
) -> Batch:
    """Scenes that `scene` draws; of each picture `cells` cells."""
    tokenizers, encoder = tools
    asked = [scene(dice) for _ in range(count)]
    guidance = [_guidance(dice) for _ in range(count)]
    shown = [
        one if dice.random() < strength / OBEYED else scene(dice)
        for one, strength in zip(asked, guidance, strict=True)
    ]
    sizes = [any_size(dice, cells) for _ in range(count)]
    generator = torch.Generator().manual_seed(dice.getrandbits(40))
    places = torch.stack([_some_cells(size, cells, generator) for size in sizes])
    painted = paint.paint(shown, torch.tensor(sizes), places)
    whole = torch.tensor([width * height / 256 for width, height in sizes])
    padding = torch.stack([text.weights(dice.choice(padded)) for _ in range(count)])
    some = (whole / cells).log()[:, None].expand(-1, cells)
    return Batch(
        latents=vae.encode(painted.cells, encoder),
        turn=turns(places),
        bias=torch.cat([padding, some], dim=1),
        weight=1 + 2.0 * (painted.outline.abs() < 20),
        painted=painted,
        guidance=torch.tensor(guidance),
        words=tokenizers([one.prompt for one in asked]),
        padding=padding,
    )


def turns(places: Tensor) -> Tensor:
    """The rotations of text and cells [B,N,2]: [B,T+N,64]."""
    batch, cells = places.shape[:2]
    ids = torch.zeros(batch, len(text.POSITIONS) + cells, 3)
    ids[:, len(text.POSITIONS) :, 1:] = places
    return flux.turns(ids)


def any_size(dice: random.Random, cells: int) -> tuple[int, int]:
    """Width and height: those of 0.25 megapixels, or a small square."""
    if cells <= 256 and dice.random() < 0.12:
        return 256, 256
    if dice.random() < 0.5:
        return 512, 512
    size = preset_size(dice.choice(list(PRESETS)), "0.25")
    return size.width // 16 * 16, size.height // 16 * 16


def _some_cells(size: tuple[int, int], count: int, generator: torch.Generator) -> Tensor:
    cells = paint.all_cells(*size)
    return cells[torch.randperm(len(cells), generator=generator)[:count]]


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
