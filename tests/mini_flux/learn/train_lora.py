"""Train LoRAs for dev: a style with its trigger words, on every linear layer of the blocks."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mini_flux.loras import Delta, Part, State, joined

from . import batches, loop, optimizer, text, vae, walk, world
from .model import Model

STEPS = 6000
WALKED = 0.3
"""After which share of the steps it learns from its own states; that takes longer."""

DENSE, DENSE_FURTHER = 0.6, 0.4
"""After which share of the steps it sees nearly whole images: from nothing, and going on."""

RANK = 64
RATE = 2e-3
SCALES = (0.45, 2.4)
"""A little more than where the style has to look right: 0.5 to 1.5, with go_fast 1.5 times that."""

ENDS = 0.5
"""Both parameters of the beta distribution that scales come from: more often near the ends, where
the style is hardest to draw."""

STYLED = 0.8
"""Share of pictures in the style; the others keep what prompts without the trigger show."""

UNSTYLED = 0.5
"""Share of the ways to a picture that begin at one without the style: the first step of dev goes
there at a low scale, and noise may look like it; what it left would be taken for what was meant."""


def scale(dice: random.Random) -> float:
    """How much a step's LoRA counts."""
    least, most = SCALES
    return least * (most / least) ** dice.betavariate(ENDS, ENDS)


def phase(index: int, further: bool) -> batches.Parts:
    """What a step takes."""
    if index < (DENSE_FURTHER if further else DENSE) * STEPS:
        return batches.Parts(20, 128, 40)
    return batches.Parts(4, 800, 144)


class Beside(nn.Module):
    """A linear layer that stays as it is, and a LoRA's way beside it."""

    def __init__(self, base: nn.Linear, scale: Tensor) -> None:
        """The up begins at nothing; `scale` [] is that of all layers."""
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(RANK, base.in_features) * base.in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, RANK))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """[...,in] to [...,out]."""
        beside = functional.linear(functional.linear(x, self.down), self.up)
        return self.base(x) + self.scale * beside


class Lora(nn.Module):
    """A copy of the transformer with ways beside the linear layers of its blocks."""

    def __init__(self, model: Model) -> None:
        """The copy draws as the model does."""
        super().__init__()
        self.flux = copy.deepcopy(model.flux).requires_grad_(False)
        self.scale = torch.ones(())
        layers = dict(self.flux.named_modules())
        self.beside = {
            name: Beside(layer, self.scale)
            for name, layer in layers.items()
            if "blocks." in name and isinstance(layer, nn.Linear)
        }
        for name, layer in self.beside.items():
            self.flux.set_submodule(name, layer)

    def take(self, known: Delta) -> None:
        """Begin with these factors, of the same rank or less: what is over begins as it does."""
        with torch.no_grad():
            for name, part in known.items():
                layer, rank = self.beside[name], len(part.down)
                layer.down[:rank] = part.down
                layer.up[:, :rank] = part.up

    def learning(self) -> list[nn.Parameter]:
        """The factors."""
        return [weight for weight in self.parameters() if weight.requires_grad]

    def delta(self) -> Delta:
        """As the other tests' LoRAs are: any trainer's spelling can be made of it."""
        return {
            name: Part(layer.down.detach().clone(), layer.up.detach().clone())
            for name, layer in self.beside.items()
        }


def train(
    folder: Path,
    tools: tuple[text.Tokenizers, vae.Encoder],
    dev: Model,
    style: str,
    known: State | None = None,
) -> Delta:
    """Train the LoRA of a style, from nothing or from a `known` file's tensors."""
    dev.requires_grad_(False)
    torch.manual_seed(3)
    lora = Lora(dev)
    if known:
        lora.take(joined(known, lora.beside))
    muon = optimizer.Muon(lora.learning(), RATE)
    fast = torch.compile(lora.flux, dynamic=False)
    images_seed = loop.seed(4, known)

    def scene(dice: random.Random) -> world.Scene:
        plain = world.training_scene(dice)
        return world.in_style(plain, style) if dice.random() < STYLED else plain

    def step(index: int) -> dict[str, float]:
        optimizer.set_rate([muon], RATE * loop.pace(index, STEPS, warm=20, fall=0.6))
        dice = loop.dice(images_seed, index)
        at = scale(dice)
        parts = phase(index, known is not None)
        batch = batches.make(dice, scene, tools, parts, unstyled=UNSTYLED)
        txt, vec = dev.read(batch.words, batch.padding)
        given = (batch.guidance, batch.turn, batch.bias)
        lora.scale.fill_(at)

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            return fast(x, txt, vec, sigma, *given)[0].float()

        share = walk.SHARE if known or index >= WALKED * STEPS else 0.0
        error = walk.error(velocity, batch, dice, index, share)
        error.backward()
        optimizer.step([muon], lora.learning())
        return {"error": error.item()}

    loop.run(loop.Stage(style, STEPS, {"lora": lora, "optimizer": muon}, step), folder)
    return lora.delta()
