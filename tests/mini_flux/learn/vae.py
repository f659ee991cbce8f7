"""The small VAE in TAESD's layout: a linear encoder, a trained decoder.

The encoder projects each patch of 8 x 8 pixels on 16 directions, found by principal components. It
is linear, so that training can encode millions of patches; TAESD's network can say it exactly. The
decoder is TAESD's own, trained to undo it.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from . import paint, world

PATCH = 8
CHANNELS = 16
WIDTH = 64
SCALE, SHIFT = 0.3611, 0.1159
"""What FLUX's latents are scaled and shifted by; undone by the file's `vae_scale`, `vae_shift`."""

_FLAT = 0.7
"""1 keeps the variances of the components as they are, 0 makes them all one."""

_SPREAD = 0.75
"""Root mean square of the latents. Edges reach ten times as far; the decoder clamps softly at 3."""

State = dict[str, Tensor]
Encoder = tuple[Tensor, Tensor]
"""Its weight [16,192] and bias [16]."""


class Block(nn.Module):
    """TAESD's residual block."""

    def __init__(self) -> None:
        """Three convolutions."""
        super().__init__()
        convs = [nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])

    def forward(self, x: Tensor) -> Tensor:
        """[B,64,H,W] to the same."""
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    """TAESD's soft limit at 3."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return torch.tanh(x / 3) * 3


def decoder() -> nn.Sequential:
    """TAESD's decoder, every part at its published index: [B,16,h,w] to [B,3,8h,8w]."""
    parts: list[nn.Module] = [Clamp(), nn.Conv2d(CHANNELS, WIDTH, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        parts += [Block(), Block(), Block(), nn.Upsample(scale_factor=2)]
        parts.append(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False))
    return nn.Sequential(*parts, Block(), nn.Conv2d(WIDTH, 3, 3, padding=1))


def patches(cells: Tensor) -> Tensor:
    """Cells [...,16,16,3] as patches [...,2,2,192], each in the order row, column, colour."""
    lead = cells.shape[:-3]
    split = cells.reshape(*lead, 2, PATCH, 2, PATCH, 3)
    return split.transpose(-4, -3).reshape(*lead, 2, 2, PATCH * PATCH * 3)


def fit_encoder(samples: Tensor) -> Encoder:
    """The directions of the encoder.

    Args:
        samples: [N,192] patches.

    Returns:
        [16,192] and [16]: latent = weight @ patch + bias, of mean square `_SPREAD` squared.
    """
    mean = samples.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov((samples - mean).T))
    values, vectors = values[-CHANNELS:].flip(0), vectors[:, -CHANNELS:].flip(1)
    spread = values ** (_FLAT / 2)
    gain = _SPREAD * spread / values.sqrt() / (spread**2).mean().sqrt()
    # Rounded here, so that training and the file mean the same numbers.
    weight = _bf16(vectors.T * gain[:, None])
    return weight, _bf16(-weight @ mean)


def encode(cells: Tensor, encoder: Encoder) -> Tensor:
    """Cells [...,16,16,3] as FLUX's packed latents [...,64]: channel, row, column."""
    weight, bias = encoder
    latents = patches(cells) @ weight.T + bias
    return latents.permute(*range(latents.dim() - 3), -1, -3, -2).flatten(-3)


def blocks_of_cells(dice: random.Random, count: int, side: int) -> Tensor:
    """Pieces of training pictures, some as stickers, some clouds of any colours.

    Returns:
        [count,side,side,16,16,3] float32 0..1.
    """
    scenes, sizes, cells = [], [], []
    inner = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
    for _ in range(count):
        scene = world.training_scene(dice)
        scenes.append(world.in_style(scene, "sticker") if dice.random() < 0.2 else scene)
        size = dice.choice((256, 384, 512, 768))
        sizes.append((size, size))
        # Near a thing, mostly: grounds are learned soon.
        thing = dice.choice(scene.things)
        corner = [
            min(
                max(int((at + dice.uniform(-0.25, 0.25)) * size / 16 - side / 2), 0),
                size // 16 - side,
            )
            for at in (thing.y, thing.x)
        ]
        cells.append(inner + torch.tensor(corner))
    cells_made = paint.paint(scenes, torch.tensor(sizes), torch.stack(cells)).cells
    painted = cells_made.view(count, side, side, 16, 16, 3)
    generator = torch.Generator().manual_seed(dice.getrandbits(40))
    clouds = max(count // 6, 1)
    painted[:clouds] = _clouds(clouds, side, generator)
    return painted


def _clouds(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Soft pictures of any colours, so that photographs survive as well."""
    grain = 4
    coarse = torch.rand((count, 3, grain, grain), generator=generator)
    soft = nn.functional.interpolate(coarse, size=(side * 16, side * 16), mode="bicubic").clamp(
        0, 1
    )
    return soft.view(count, 3, side, 16, side, 16).permute(0, 2, 4, 3, 5, 1)


def as_picture(cells: Tensor) -> Tensor:
    """[B,h,w,16,16,3] as [B,3,16h,16w]."""
    batch, rows, columns = cells.shape[:3]
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(batch, 3, rows * 16, columns * 16)


def unpack(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """FLUX's packed latents [B,rows*columns,64] as [B,16,2*rows,2*columns]."""
    grid = tokens.view(-1, rows, columns, CHANNELS, 2, 2)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, CHANNELS, 2 * rows, 2 * columns)


def as_file(encoder: Encoder, decoder_state: State) -> State:
    """The tensors of the VAE's file, by TAESD's names."""
    made: State = {"vae_scale": torch.tensor(SCALE), "vae_shift": torch.tensor(SHIFT)}
    made |= {f"taesd_decoder.{name}": value for name, value in decoder_state.items()}
    return made | {
        f"taesd_encoder.{name}": value for name, value in _encoder_file(*encoder).items()
    }


def from_file(state: State) -> Encoder:
    """The encoder in a file that `as_file` made."""
    name = "taesd_encoder.10.weight"
    part = state[name].float()[:CHANNELS, :48]
    bits = torch.empty(CHANNELS, 2, 2, 2, 2, 2, 2, 3)
    for row in (0, 1):
        for column in (0, 1):
            tap = part[:, :, 1 + row, 1 + column].reshape(CHANNELS, 2, 2, 2, 2, 3)
            bits[:, row, :, :, column] = tap.permute(0, 1, 3, 2, 4, 5)
    return bits.reshape(CHANNELS, PATCH * PATCH * 3), state["taesd_encoder.14.bias"].float()


def _encoder_file(weight: Tensor, bias: Tensor) -> State:
    """TAESD's encoder that projects patches: space goes to channels, 2 x 2 pixels at a time.

    Blocks of zeros pass on what is not negative, and pictures are 0..1. The projections that the
    last strided convolution makes can be negative: it makes each twice, with either sign.
    """
    made: State = {}
    for index in (1, 3, 4, 5, 7, 8, 9, 11, 12, 13):
        for conv in (0, 2, 4):
            made[f"{index}.conv.{conv}.weight"] = torch.zeros(WIDTH, WIDTH, 3, 3)
            made[f"{index}.conv.{conv}.bias"] = torch.zeros(WIDTH)
    first = torch.zeros(WIDTH, 3, 3, 3)
    first[[0, 1, 2], [0, 1, 2], 1, 1] = 1
    made |= {"0.weight": first, "0.bias": torch.zeros(WIDTH)}
    for index, channels in ((2, 3), (6, 12)):
        made[f"{index}.weight"] = gather = torch.zeros(WIDTH, WIDTH, 3, 3)
        for row in (0, 1):
            for column in (0, 1):
                for channel in range(channels):
                    out = (row * 2 + column) * channels + channel
                    # A window of stride 2 begins one pixel before the two that it gathers.
                    gather[out, channel, 1 + row, 1 + column] = 1
    made["10.weight"] = last = torch.zeros(WIDTH, WIDTH, 3, 3)
    # [16, row 4s, row 2s, row 1s, column 4s, 2s, 1s, colour]
    bits = weight.view(CHANNELS, 2, 2, 2, 2, 2, 2, 3)
    for row in (0, 1):
        for column in (0, 1):
            # What gather made: the 2s are its slow index, then the 1s, then the colours.
            part = bits[:, row, :, :, column].permute(0, 1, 3, 2, 4, 5).reshape(CHANNELS, 48)
            last[:CHANNELS, :48, 1 + row, 1 + column] = part
            last[CHANNELS : 2 * CHANNELS, :48, 1 + row, 1 + column] = -part
    merge = torch.zeros(CHANNELS, WIDTH, 3, 3)
    index = torch.arange(CHANNELS)
    merge[index, index, 1, 1], merge[index, CHANNELS + index, 1, 1] = 1, -1
    return made | {"14.weight": merge, "14.bias": bias}


def _bf16(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16).float()
