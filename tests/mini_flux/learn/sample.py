"""Draw without ComfyUI, to see in training how it goes."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flux_hotswap.prediction.schedule import full_schedule

from . import batches, flux, judge, paint, text, vae, world
from .model import Model

log = logging.getLogger(__name__)


@torch.no_grad()
def draw(
    model: Model,
    words: text.Words,
    size: tuple[int, int],
    steps: int,
    *,
    guidance: float | None = 3.0,
    seed: int = 0,
) -> Tensor:
    """Sample packed latents [B,N,64], with all cells of the picture."""
    cells = paint.all_cells(*size)
    count = len(words.t5)
    padding = text.weights(512 if guidance is not None else 256).expand(count, -1)
    turn = batches.turns(cells.expand(count, -1, -1))
    bias = torch.cat([padding, torch.zeros(count, len(cells))], dim=1)
    x = torch.randn(count, len(cells), flux.CHANNELS, generator=torch.Generator().manual_seed(seed))
    txt, vec = model.read(words, padding)
    strength = None if guidance is None else torch.full((count,), guidance)
    name = "schnell" if guidance is None else "dev"
    sigmas = full_schedule(name, steps, len(cells))
    for now, then in itertools.pairwise(sigmas):
        made, *_ = model.flux(x, txt, vec, torch.full((count,), now), strength, turn, bias)
        x = x + (then - now) * made
    return x


def roughly(latents: Tensor, size: tuple[int, int], encoder: vae.Encoder) -> Tensor:
    """Pictures [B,H,W,3] by the encoder's pseudo-inverse, so that no decoder is needed."""
    weight, bias = encoder
    width, height = size
    grid = latents.view(-1, height // 16, width // 16, vae.CHANNELS, 2, 2)
    pixels = (grid.permute(0, 1, 4, 2, 5, 3) - bias) @ torch.linalg.pinv(weight).T
    pixels = pixels.view(-1, height // 8, width // 8, 8, 8, 3).permute(0, 1, 3, 2, 4, 5)
    return pixels.reshape(-1, height, width, 3).clamp(0, 1)


def sheet(
    model: Model,
    tokenizers: text.Tokenizers,
    encoder: vae.Encoder,
    path: Path,
    *,
    steps: int = 14,
    guidance: float | None = 3.0,
) -> float:
    """Draw 24 held-out prompts, write a sheet, return how many of them agree."""
    scenes = world.held_out_scenes(24, seed=99)
    size = (512, 512)
    right, shown = 0, []
    for begin in range(0, len(scenes), 6):
        part = scenes[begin : begin + 6]
        words = tokenizers([scene.prompt for scene in part])
        made = draw(model, words, size, steps, guidance=guidance, seed=begin)
        for scene, picture in zip(part, roughly(made, size, encoder).numpy(), strict=True):
            agrees = judge.judge(picture, scene).agrees
            right += agrees
            small = picture[::2, ::2].copy()
            small[:6] = (0, 1, 0) if agrees else (1, 0, 0)
            shown.append(small)
    grid = np.stack(shown).reshape(4, 6, 256, 256, 3).transpose(0, 2, 1, 3, 4)
    image = Image.fromarray((grid.reshape(1024, 1536, 3) * 255).round().astype(np.uint8))
    image.save(path)
    log.info("%s: %d of %d agree", path.name, right, len(scenes))
    return right / len(scenes)
