"""Train dev on where it arrives itself, so that it mends what it got wrong a step before."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import batches, loop, optimizer, sample, text, vae, walk, world
from .model import Model

RATE = 6e-4


@dataclass(frozen=True)
class Course:
    """A stretch of the training, with optimizers of its own.

    Attributes:
        name: of its files.
        steps: how many.
        seed: of what is random.
        square: share of the images that are 512 x 512, see `batches.any_size`.
        crowded: share of the images that show several things, beside those that do so anyway.
    """

    name: str
    steps: int
    seed: int
    square: float
    crowded: float = 0.0

    def scene(self, dice: random.Random) -> world.Scene:
        """What an image shows."""
        return world.crowded(dice, self.crowded, world.dev_scene)


COURSES = (
    Course("mend", 1500, 6, 0.5),
    Course("sizes", 2000, 7, 0.1),
    Course("more", 4000, 8, 0.05),
    Course("close", 3000, 9, 0.05, crowded=0.5),
)


def phase(course: Course, index: int) -> batches.Parts:
    """What a step takes."""
    if index < 0.5 * course.steps:
        return batches.Parts(9, 400, 60)
    return batches.Parts(4, 864, 80)


def train(folder: Path, tools: tuple[text.Tokenizers, vae.Encoder], dev: Model) -> None:
    """Train dev on."""
    torch.manual_seed(5)
    fast = torch.compile(dev.flux, dynamic=False)
    for course in COURSES:
        _train(course, folder, tools, dev, fast)


def _train(
    course: Course,
    folder: Path,
    tools: tuple[text.Tokenizers, vae.Encoder],
    dev: Model,
    fast: Callable[..., Any],
) -> None:
    optimizers = optimizer.for_model([dev], RATE)

    def step(index: int) -> dict[str, float]:
        pace = loop.pace(index, course.steps, warm=20, fall=0.9)
        optimizer.set_rate(optimizers, RATE * pace)
        dice = loop.dice(course.seed, index)
        parts = phase(course, index)
        batch = batches.make(dice, course.scene, tools, parts, square=course.square)
        txt, vec = dev.read(batch.words, batch.padding)
        given = (batch.guidance, batch.turn, batch.bias)

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            return fast(x, txt, vec, sigma, *given)[0].float()

        error = walk.error(velocity, batch, dice, index)
        error.backward()
        optimizer.step(optimizers, dev.parameters())
        return {"error": error.item()}

    def sketch(index: int) -> None:
        sample.sheet(dev, *tools, folder / f"{course.name}-{index}.webp")

    kept = {"model": dev, **optimizer.parts(optimizers)}
    loop.run(loop.Stage(course.name, course.steps, kept, step, sketch, 500), folder)
