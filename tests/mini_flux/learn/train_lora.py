"""Train LoRAs for dev: a style with its trigger words, on every linear layer of the blocks."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mini_flux.loras import Delta, Part

from . import batches, loop, text, vae, world
from .model import Model, noised

STEPS = 800
RANK = 8
RATE = 4e-3
SCALES = (0.9, 1.5)
"""The scales at which the style has to look right: with go_fast 1 counts 1.5."""

STYLED = 0.8
"""Share of pictures in the style; the others keep what prompts without the trigger show."""


def phase(index: int) -> tuple[int, int]:
    """How many pictures a step has, and how many cells of each."""
    return (20, 128) if index < 0.8 * STEPS else (4, 896)


class Lora(nn.Module):
    """The factors for the linear layers of the blocks, by the layers' published names."""

    def __init__(self, model: Model) -> None:
        """The ups begin at nothing."""
        super().__init__()
        self.names = [
            name.removesuffix(".weight")
            for name, weight in model.flux.named_parameters()
            if "blocks." in name and weight.dim() == 2
        ]
        shapes = [model.flux.get_parameter(f"{name}.weight").shape for name in self.names]
        self.down = nn.ParameterList(torch.randn(RANK, s[1]) * s[1] ** -0.5 for s in shapes)
        self.up = nn.ParameterList(torch.zeros(s[0], RANK) for s in shapes)

    def applied(self, model: Model, scale: float) -> dict[str, Tensor]:
        """The transformer's weights with the LoRA in them."""
        weights: dict[str, Tensor] = dict(model.flux.named_parameters())
        for name, down, up in zip(self.names, self.down, self.up, strict=True):
            key = f"{name}.weight"
            weights[key] = weights[key].detach() + scale * (up @ down)
        return weights

    def delta(self) -> Delta:
        """As the other tests' LoRAs are: any trainer's spelling can be made of it."""
        return {
            name: Part(down.detach().clone(), up.detach().clone())
            for name, down, up in zip(self.names, self.down, self.up, strict=True)
        }


def train(
    folder: Path, tools: tuple[text.Tokenizers, vae.Encoder], dev: Model, style: str
) -> Delta:
    """Train the LoRA of a style."""
    dev.requires_grad_(False)
    torch.manual_seed(3)
    lora = Lora(dev)
    optimizer = torch.optim.AdamW(lora.parameters(), lr=RATE, weight_decay=0.0)

    def scene(dice: random.Random) -> world.Scene:
        plain = world.training_scene(dice)
        return world.in_style(plain, style) if dice.random() < STYLED else plain

    def step(index: int) -> dict[str, float]:
        for group in optimizer.param_groups:
            group["lr"] = RATE * loop.pace(index, STEPS, warm=20, fall=0.6)
        dice = loop.dice(4, index)
        count, cells = phase(index)
        batch = batches.make(dice, scene, tools, count, cells)
        sigma = batches.sigmas(dice, count)
        noisy, wanted = noised(batch.latents, sigma, index)
        txt, vec = dev.read(batch.words, batch.padding)
        given = (noisy, txt, vec, sigma, batch.guidance, batch.turn, batch.bias)
        made, *_ = functional_call(dev.flux, lora.applied(dev, dice.uniform(*SCALES)), given)
        error = (((made - wanted) ** 2).mean(dim=-1) * batch.weight).mean()
        error.backward()
        torch.nn.utils.clip_grad_norm_(lora.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return {"error": error.item()}

    loop.run(loop.Stage(style, STEPS, {"lora": lora, "optimizer": optimizer}, step), folder)
    return lora.delta()
