"""The packed LoRAs draw their style whole, whatever the state that they begin from suggests."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mini_flux import loras, trained
from mini_flux.learn import __main__ as command
from mini_flux.learn import (
    batches,
    looks,
    paint,
    sample,
    text,
    train_lora,
    train_vae,
    vae,
    walk,
    world,
)
from mini_flux.learn.model import Model, noised

SIZE = (512, 512)
PROMPTS = 8

BEGUN, STEPS = 0.95, 6
"""The noise level of the state where the way begins, and the steps from there."""


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, vae.Encoder]:
    """The packed dev and its VAE's encoder."""
    work = tmp_path_factory.mktemp("work")
    return command.known_model(trained.PACKED, work), train_vae.load_encoder(work)


@pytest.mark.parametrize(("at", "most"), [(0.5, 0.15), (1.5, 0.05), (2.25, 0.05)])
@pytest.mark.parametrize("style", list(world.STYLES))
@torch.no_grad()
def test_a_style_is_whole_though_the_state_shows_nothing_of_it(
    known: tuple[Model, vae.Encoder],
    tokenizers: text.Tokenizers,
    style: str,
    at: float,
    most: float,
) -> None:
    dev, encoder = known
    lora = train_lora.Lora(dev)
    lora.take(loras.joined(command.unpacked(trained.PACKED, style), lora.beside))
    lora.scale.fill_(at)
    scenes = [world.in_style(one, style) for one in world.held_out_scenes(PROMPTS, seed=41)]
    scenes = [scene for scene in scenes if looks.has_edges(scene)]
    sizes = torch.tensor([SIZE] * len(scenes))
    cells = paint.all_cells(*SIZE).expand(len(scenes), -1, -1)
    plain = paint.paint([replace(scene, style="") for scene in scenes], sizes, cells).cells
    levels = torch.linspace(BEGUN, 0, STEPS + 1)[:, None].expand(-1, len(scenes))
    begun, _ = noised(vae.encode(plain, encoder), levels[0], seed=1)
    padding = text.weights(512).expand(len(scenes), -1)
    txt, vec = dev.read(tokenizers([scene.prompt for scene in scenes]), padding)
    turn, bias = batches.turns(cells), torch.cat([padding, torch.zeros(cells.shape[:2])], dim=1)
    guidance = torch.full((len(scenes),), 3.0)

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return lora.flux(x, txt, vec, sigma, guidance, turn, bias)[0].float()

    with batches.quick():
        made = walk.arrive(velocity, begun, levels)
    pictures = sample.roughly(made, SIZE, encoder).numpy()
    opened = [looks.measure(*one).open for one in zip(pictures, scenes, strict=True)]
    assert max(opened) < most, opened
