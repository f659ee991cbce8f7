"""Distil schnell from dev: one of its four steps does what three of dev's do."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from . import batches, loop, optimizer, text, vae, world
from .model import Model

STEPS = 1800
RATE, RATE_FURTHER = 1e-3, 4e-4
"""Of learning, at its highest: from dev, and going on."""

GUIDANCE = 3.0
LEVELS = (1.0, 0.75, 0.5, 0.25, 0.0)
TEACHER_STEPS = 3
SQUARE = 0.1
"""Share of the images that are 512 x 512, see `batches.any_size`."""

CROWDED = 0.4
"""Share of the images that show several things on purpose, see `world.crowded`."""


def student_of(dev: Model) -> Model:
    """A schnell that begins as dev at one guidance: that part of its vector becomes a bias."""
    student = Model(guidance=False)
    kept = {
        name: value.clone() for name, value in dev.state_dict().items() if "guidance_in" not in name
    }
    with torch.no_grad():
        guided = dev.flux.guided(torch.tensor([GUIDANCE]))[0]
    kept["flux.time_in.out_layer.bias"] = kept["flux.time_in.out_layer.bias"] + guided
    student.load_state_dict(kept)
    return student


def phase(index: int, further: bool) -> batches.Parts:
    """What a step takes."""
    if index < 0.5 * STEPS and not further:
        return batches.Parts(9, 400, 60)
    return batches.Parts(4, 864, 80)


def train(
    folder: Path,
    tools: tuple[text.Tokenizers, vae.Encoder],
    dev: Model,
    known: Mapping[str, Tensor] | None = None,
) -> Model:
    """Train, from dev itself or from the `known` weights of a schnell; returns schnell."""
    dev.requires_grad_(False)
    torch.manual_seed(2)
    student = student_of(dev)
    if known:
        student.flux.load_state_dict(known)
    images_seed = loop.seed(3, known)
    rate = RATE_FURTHER if known else RATE
    optimizers = optimizer.for_model([student.flux], rate)
    teacher, pupil = (torch.compile(one.flux, dynamic=False) for one in (dev, student))

    def scene(dice: random.Random) -> world.Scene:
        return world.crowded(dice, CROWDED, world.training_scene)

    def step(index: int) -> dict[str, float]:
        optimizer.set_rate(optimizers, rate * loop.pace(index, STEPS, warm=20, fall=0.6))
        dice = loop.dice(images_seed, index)
        parts = phase(index, known is not None)
        batch = batches.make(dice, scene, tools, parts, padded=(256,), square=SQUARE)
        txt, vec = dev.read(batch.words, batch.padding)
        given = (batch.turn, batch.bias)
        strength = torch.full((len(vec),), GUIDANCE)

        def taught(x: Tensor, sigma: float) -> Tensor:
            return teacher(x, txt, vec, torch.full((len(vec),), sigma), strength, *given)[0].float()

        def learned(x: Tensor, sigma: float) -> Tensor:
            return pupil(x, txt, vec, torch.full((len(vec),), sigma), None, *given)[0].float()

        with torch.no_grad(), batches.quick():
            start = _noise(batch.latents, dice)
            at = dice.randrange(len(LEVELS) - 1)
            # From where the student itself arrives, so that it learns to mend its own errors.
            for now, then in itertools.pairwise(LEVELS[: at + 1]):
                start = start + (then - now) * learned(start, now)
            now, then = LEVELS[at : at + 2]
            arrived, size = start, (then - now) / TEACHER_STEPS
            for part in range(TEACHER_STEPS):
                arrived = arrived + size * taught(arrived, now + part * size)
            wanted = (arrived - start) / (then - now)
        with batches.quick():
            made = learned(start, now)
        error = (((made - wanted) ** 2).mean(dim=-1) * batch.weight).mean()
        error.backward()
        optimizer.step(optimizers, student.flux.parameters())
        return {"error": error.item(), f"from {now:g}": error.item()}

    kept = {"model": student, **optimizer.parts(optimizers)}
    loop.run(loop.Stage("schnell", STEPS, kept, step), folder)
    return student


def _noise(like: Tensor, dice: random.Random) -> Tensor:
    generator = torch.Generator().manual_seed(dice.getrandbits(40))
    return torch.randn(like.shape, generator=generator)
