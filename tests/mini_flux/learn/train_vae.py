"""Train the decoder of the small VAE."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from . import loop, vae
from .vae import Encoder

STEPS = 1000
SIDE = 4  # pieces of 64 x 64 pixels
BATCH = 12
BLUR = 0.05
"""Noise on the latents, of the size of what sampling leaves."""


def train(folder: Path) -> None:
    """Train the decoder; leaves `vae.safetensors` in `folder`."""
    encoder = load_encoder(folder)
    torch.manual_seed(0)
    decoder = vae.decoder().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-3, weight_decay=0.0)

    def step(index: int) -> dict[str, float]:
        for group in optimizer.param_groups:
            group["lr"] = 1.5e-3 * loop.pace(index, STEPS, fall=0.6)
        dice = loop.dice(1, index)
        cells = vae.blocks_of_cells(dice, BATCH, SIDE)
        latents = vae.unpack(vae.encode(cells, encoder).flatten(1, 2), SIDE, SIDE)
        generator = torch.Generator().manual_seed(index)
        latents = latents + BLUR * torch.randn(latents.shape, generator=generator)
        made = decoder(latents.to(memory_format=torch.channels_last))
        wanted = vae.as_picture(cells)
        error = functional.mse_loss(made, wanted)
        (error + 0.1 * functional.l1_loss(made, wanted)).backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return {"error": error.item(), "dB": float(-10 * error.detach().log10())}

    parts = {"decoder": decoder, "optimizer": optimizer}
    loop.run(loop.Stage("vae", STEPS, parts, step), folder)
    save_file(
        {
            name: value.contiguous()
            for name, value in vae.as_file(encoder, decoder.state_dict()).items()
        },
        folder / "vae.safetensors",
    )


def load_encoder(folder: Path) -> Encoder:
    """The encoder, fitted the first time and kept in `folder`."""
    path = folder / "encoder.safetensors"
    if not path.is_file():
        samples = vae.patches(vae.blocks_of_cells(random.Random(0), 1000, SIDE)).reshape(-1, 192)
        weight, bias = vae.fit_encoder(samples)
        save_file({"weight": weight, "bias": bias}, path)
    state = load_file(path)
    return state["weight"], state["bias"]
