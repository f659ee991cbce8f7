"""OFT and BOFT against their formulas, row by row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flux_hotswap.ops.lora.turn import rotations, turned

N, K = 16, 5
GENERATOR = torch.Generator().manual_seed(3)
W = torch.randn(N, K, generator=GENERATOR)
OFT = 0.1 * torch.randn(4, 4, 4, generator=GENERATOR)
BOFT = 0.1 * torch.randn(3, 4, 4, 4, generator=GENERATOR)
SCALE = 1 + 0.1 * torch.randn(N, 1, generator=GENERATOR)


def cayley(block: Tensor) -> Tensor:
    """(1 + Q) (1 - Q)^-1 of the skew part, with a solver instead of an inverse."""
    skew, one = block - block.T, torch.eye(len(block))
    return torch.linalg.solve(one - skew, one + skew, left=False)


def turned_by_hand(weight: Tensor, turn: Tensor, rows: list[int]) -> Tensor:
    made = weight.clone()
    for index, row in enumerate(rows):
        made[row] = sum(turn[index, other] * weight[at] for other, at in enumerate(rows))
    return made


def butterfly_by_hand(weight: Tensor) -> Tensor:
    """Blocks of four: two rows, and those two that are 2, 4 or 8 rows further on."""
    for stage, blocks in enumerate(BOFT):
        apart = 2 * 2**stage
        order = [
            start + half * apart + step
            for start in range(0, N, 2 * apart)
            for step in range(apart)
            for half in (0, 1)
        ]
        for block, rows in zip(blocks, (order[at : at + 4] for at in range(0, N, 4)), strict=True):
            weight = turned_by_hand(weight, cayley(block), rows)
    return weight


def test_oft_turns_neighbours() -> None:
    wanted = W
    for index, block in enumerate(OFT):
        rows = list(range(4 * index, 4 * index + 4))
        wanted = turned_by_hand(wanted, cayley(block).T, rows)
    torch.testing.assert_close(turned(W, OFT, None, 0.0), wanted)
    torch.testing.assert_close(turned(W, OFT, SCALE, 0.0), SCALE * wanted)


def test_boft_turns_rows_ever_further_apart() -> None:
    wanted = butterfly_by_hand(W)
    torch.testing.assert_close(turned(W, BOFT, None, 0.0), wanted)
    torch.testing.assert_close(turned(W, BOFT, SCALE, 0.0), SCALE * wanted)


@pytest.mark.parametrize("blocks", [OFT, BOFT], ids=["OFT", "BOFT"])
def test_a_turn_leaves_lengths_and_angles(blocks: Tensor) -> None:
    made = turned(W, blocks, None, 0.0)
    torch.testing.assert_close(made.T @ made, W.T @ W)
    assert float((made - W).norm() / W.norm()) > 0.1


@pytest.mark.parametrize("blocks", [OFT, BOFT], ids=["OFT", "BOFT"])
def test_no_numbers_are_no_turn(blocks: Tensor) -> None:
    torch.testing.assert_close(turned(W, torch.zeros_like(blocks), None, 0.01), W)


@pytest.mark.parametrize("blocks", [OFT, BOFT], ids=["OFT", "BOFT"])
def test_a_constraint_is_by_the_row_and_limits_all_blocks_together(blocks: Tensor) -> None:
    length = float((blocks - blocks.mT).norm())
    shorter = turned(W, blocks / 4, None, 0.0)
    torch.testing.assert_close(turned(W, blocks, None, length / 4 / N), shorter)
    torch.testing.assert_close(
        turned(W, blocks, None, 2 * length / N), turned(W, blocks, None, 0.0)
    )


def test_rotations_are_turned_back_by_their_transposes() -> None:
    turns = rotations(BOFT, 0.0)
    torch.testing.assert_close(turns @ turns.mT, torch.eye(4).expand_as(turns))
