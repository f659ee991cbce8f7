"""OFT and BOFT: a weight's rows turned within blocks (arXiv 2306.07280 and 2311.06243).

Each block of numbers B makes a rotation, Cayley's (1 + Q) (1 - Q)^-1 of its skew part Q = B - B^T.
OFT turns neighbouring rows once; BOFT turns in stages, each of which pairs rows that lie twice as
far apart as those of the one before. All as LyCORIS does, which the core does in part: it leaves
OFT's `rescale` aside, limits turns to a constraint that is not multiplied by the rows, and
multiplies by the strength twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 1e-8
"""Beside a length that is divided by."""


def turned(weight: Tensor, blocks: Tensor, rescale: Tensor | None, constraint: float) -> Tensor:
    """Return a weight whose rows are turned.

    Args:
        weight: [N,K] float32.
        blocks: [N/size,size,size] of OFT, or [stages,N/size,size,size] of BOFT.
        rescale: [N,1] or [1], what rows are multiplied by in the end; None for nothing.
        constraint: how long all skew parts may be together, by the row; 0 for any length.
    """
    turns = rotations(blocks, constraint * len(weight))
    if blocks.ndim == 3:
        made = _within(turns.mT, weight)
    else:
        made = weight
        for stage, turn in enumerate(turns):
            made = _stage(turn, made, 2**stage * blocks.shape[-1] // 2)
    return made if rescale is None else made * rescale


def rotations(blocks: Tensor, limit: float) -> Tensor:
    """Return the rotations that blocks of numbers make.

    Args:
        blocks: [...,size,size] float32.
        limit: how long all their skew parts may be together; 0 for any length.
    """
    skew = blocks - blocks.mT
    if limit > 0:
        length = skew.norm() + _LEAST
        skew = skew * (limit / length).clamp_max(1.0)
    one = torch.eye(blocks.shape[-1]).to(blocks)
    return (one + skew) @ torch.linalg.inv(one - skew)


def _within(turns: Tensor, weight: Tensor) -> Tensor:
    """Turn rows that are neighbours: [count,size,size] and [N,K]."""
    rows = weight.reshape(len(turns), turns.shape[-1], -1)
    return (turns @ rows).reshape(weight.shape)


def _stage(turns: Tensor, weight: Tensor, apart: int) -> Tensor:
    """Turn rows that are paired with those so many rows further on."""
    pairs = weight.reshape(-1, 2, apart, weight.shape[-1])
    made = _within(turns, pairs.transpose(1, 2).reshape(weight.shape))
    return made.reshape(-1, apart, 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)
