"""Stage 1: the hosted model's noise against this card's own generator."""

from __future__ import annotations

import torch
from runtime import inside
from torch import Tensor

from .kit import Kit

SIZES = ((64, 64), (128, 128), (96, 168), (152, 104), (180, 180))
"""Of the latent, height and width."""

SEEDS = (1, 42, 2**40 + 7)


def run(kit: Kit) -> None:
    """Count the values that differ, and by how many steps of bf16."""
    sizes, seeds = (SIZES[:2], SEEDS[:1]) if kit.small else (SIZES, SEEDS)
    for draw, batch in ((0, 1), (1, 1), (0, 4)):
        differ = total = most = 0
        for height, width in sizes:
            for seed in seeds:
                steps = apart(*both(kit, seed, batch, height, width, draw))
                differ += int((steps > 0).sum())
                most = max(most, int(steps.max()))
                total += steps.numel()
        share = differ / total
        kit.note(
            f"noise, draw {draw}, batch {batch}: values that differ",
            round(100 * share, 5),
            "%",
            predicted="below 0.1 %, by 1 step of bf16" if kit.device.type == "cuda" else "",
            holds=share < 0.001 and most <= 1,
            most_steps=most,
            values=total,
        )


def both(
    kit: Kit, seed: int, batch: int, height: int, width: int, draw: int
) -> tuple[Tensor, Tensor]:
    """Return our noise and the card's; on a CPU, which has another generator, ours twice."""
    noise = inside.pack("ops.noise")
    shape = {"batch": batch, "height": height, "width": width, "draw": draw}
    if kit.device.type != "cuda":
        ours = noise.hosted_noise(seed, **shape)
        return ours, ours
    about = torch.cuda.get_device_properties(kit.device)
    count = grid(about.multi_processor_count, about.max_threads_per_multi_processor)
    ours = noise.hosted_noise(seed, **shape, multiprocessors=count)
    generator = torch.Generator(kit.device).manual_seed(seed)
    options = {"generator": generator, "device": kit.device, "dtype": torch.bfloat16}
    for _ in range(draw):
        torch.randn(1, 16, height, width, **options)
    return ours, torch.randn(batch, 16, height, width, **options).float().cpu()


def grid(multiprocessors: int, threads: int) -> float:
    """Return how many multiprocessors of an H100 hold as many threads as a card's do."""
    return multiprocessors * threads / inside.pack("ops.noise").THREADS


def apart(one: Tensor, other: Tensor) -> Tensor:
    """Return how many steps of bf16 lie between values."""
    ranks = []
    for values in (one, other):
        bits = values.bfloat16().view(torch.int16).int()
        ranks.append(torch.where(bits < 0, -32768 - bits, bits))
    return (ranks[0] - ranks[1]).abs()
