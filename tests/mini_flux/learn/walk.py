"""States that a model reaches itself when it draws, to learn from.

Trained on pictures with noise alone, a model takes every edge that it sees for the true one: its
own errors of the first steps stay, and grow. Here it sees them, and the prompt says what was meant.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import torch
from torch import Tensor

from . import batches
from .model import noised

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Of states [B,N,64] at noise levels [B]."""

SHARE = 0.7
"""Share of the pictures that are drawn some way by the model, of those that obey their prompt."""

BEGUN = (0.85, 0.97)
"""Noise levels from which it draws: what the prompt leaves open can still be seen there."""

ENDED = (0.08, 0.92)
"""Noise levels at which it stops."""

EVEN = 0.5
"""Below this level its errors, which its velocity has to make up for in what is left of the way,
count as much as here."""


def error(
    velocity: Velocity,
    batch: batches.Batch,
    dice: random.Random,
    seed: int,
    share: float = SHARE,
) -> Tensor:
    """How wrong the velocity is on the model's own way to the pictures of a batch: [].

    With a share of 0 on the straight one.
    """
    way = levels(dice, batch.guidance, share)
    walked = (way[0] > way[-1])[:, None, None]
    begun, _ = noised(torch.where(walked, batch.before, batch.latents), way[0], seed)
    with batches.quick():
        x = arrive(velocity, begun, way)
        made = velocity(x, way[-1])
    wanted = (x - batch.latents) / way[-1][:, None, None]
    each = ((made - wanted) ** 2).mean(dim=-1) * batch.weight
    return (each.mean(dim=1) * weights(way)).mean()


def levels(dice: random.Random, guidance: Tensor, share: float = SHARE) -> Tensor:
    """Noise levels on the way to the one that is learned from, the last: [3,B]."""
    plain = batches.sigmas(dice, len(guidance)).tolist()
    ways = [_way(dice, share, *one) for one in zip(plain, guidance.tolist(), strict=True)]
    return torch.tensor(ways).T


def _way(
    dice: random.Random, share: float, plain: float, guidance: float
) -> tuple[float, float, float]:
    if guidance < batches.OBEYED or dice.random() >= share:
        return plain, plain, plain
    end = dice.uniform(*ENDED)
    begin = dice.uniform(max(end, BEGUN[0]), BEGUN[1])
    return begin, dice.uniform(end, begin), end


@torch.no_grad()
def arrive(velocity: Velocity, x: Tensor, way: Tensor) -> Tensor:
    """Where `x` [B,N,64] gets to on the levels of `way` [K,B]."""
    for now, then in itertools.pairwise(way):
        if not torch.equal(now, then):
            x = x + (then - now)[:, None, None] * velocity(x, now)
    return x


def weights(way: Tensor) -> Tensor:
    """What the error of each picture's velocity counts: [B]."""
    walked, end = way[0] > way[-1], way[-1]
    return torch.where(walked, (end / EVEN).clamp(max=1) ** 2, 1.0)
