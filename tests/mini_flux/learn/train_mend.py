"""Train dev on where it arrives itself, so that it mends what it got wrong a step before."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor

from . import batches, loop, optimizer, sample, text, vae, walk, world
from .model import Model

STEPS = 10000
RATE = 6e-4
SQUARE = 0.1
"""Share of the images that are 512 x 512, see `batches.any_size`."""

CROWDED = 0.4
"""Share of the images that show several things on purpose, see `world.crowded`."""


def phase(index: int) -> batches.Parts:
    """What a step takes."""
    return batches.Parts(9, 400, 60) if index < 0.5 * STEPS else batches.Parts(4, 864, 80)


def train(folder: Path, tools: tuple[text.Tokenizers, vae.Encoder], dev: Model) -> None:
    """Train dev on."""
    torch.manual_seed(5)
    optimizers = optimizer.for_model([dev], RATE)
    fast = torch.compile(dev.flux, dynamic=False)

    def scene(dice: random.Random) -> world.Scene:
        return world.crowded(dice, CROWDED, world.dev_scene)

    def step(index: int) -> dict[str, float]:
        optimizer.set_rate(optimizers, RATE * loop.pace(index, STEPS, warm=20, fall=0.9))
        dice = loop.dice(6, index)
        batch = batches.make(dice, scene, tools, phase(index), square=SQUARE)
        txt, vec = dev.read(batch.words, batch.padding)
        given = (batch.guidance, batch.turn, batch.bias)

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            return fast(x, txt, vec, sigma, *given)[0].float()

        error = walk.error(velocity, batch, dice, index)
        error.backward()
        optimizer.step(optimizers, dev.parameters())
        return {"error": error.item()}

    def sketch(index: int) -> None:
        sample.sheet(dev, *tools, folder / f"mend-{index}.webp")

    kept = {"model": dev, **optimizer.parts(optimizers)}
    loop.run(loop.Stage("mend", STEPS, kept, step, sketch), folder)
