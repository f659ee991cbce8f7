"""DoRA's arithmetic against its formula, number by number, and against PEFT's own layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from flux_hotswap.ops.lora.dora import shares

N, K, RANK = 6, 5, 2


def seeded(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


W, D = seeded(N, K), 0.3 * seeded(N, K, seed=2)
ROWS, COLUMNS = 1 + 0.1 * seeded(N, seed=3), 1 + 0.1 * seeded(K, seed=4)


def by_hand(axis: int, delta: Tensor) -> Tensor:
    """The formula with loops."""
    made = torch.zeros(N, K)
    moved = W + delta
    for row in range(N):
        for column in range(K):
            line = moved[row] if axis == 0 else moved[:, column]
            length = (ROWS[row] if axis == 0 else COLUMNS[column]) / line.square().sum().sqrt()
            made[row, column] = moved[row, column] * length
    return made


def decomposed(
    weight: Tensor, delta: Tensor, magnitude: Tensor, axis: int, strength: float, *, inside: bool
) -> Tensor:
    more, times = shares(weight, delta, magnitude, axis, strength, inside=inside)
    return weight + more * weight + times * delta


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("inside", [True, False])
def test_it_is_the_formula(axis: int, inside: bool) -> None:
    lengths = COLUMNS if axis else ROWS
    made = decomposed(W, D, lengths, axis, 1.0, inside=inside)
    torch.testing.assert_close(made, by_hand(axis, D))


@pytest.mark.parametrize("strength", [-1.0, 0.5, 1.5, 3.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_strength_is_inside_or_around(axis: int, strength: float) -> None:
    lengths = COLUMNS if axis else ROWS
    inside = decomposed(W, D, lengths, axis, strength, inside=True)
    torch.testing.assert_close(inside, by_hand(axis, strength * D))
    around = decomposed(W, D, lengths, axis, strength, inside=False)
    torch.testing.assert_close(around, W + strength * (by_hand(axis, D) - W))


@pytest.mark.parametrize("inside", [True, False])
def test_nothing_is_nothing(inside: bool) -> None:
    assert decomposed(W, D, ROWS, 0, 0.0, inside=inside).equal(W)
    same = decomposed(W, torch.zeros(N, K), W.norm(dim=1), 0, 1.0, inside=inside)
    torch.testing.assert_close(same, W)


def test_a_row_of_zeros_stays_finite() -> None:
    weight = W.clone()
    weight[2] = 0
    made = decomposed(weight, torch.zeros(N, K), ROWS, 0, 1.0, inside=True)
    assert torch.isfinite(made).all()
    assert made[2].eq(0).all()


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_it_is_what_peft_makes(scale: float) -> None:
    """The weight that PEFT's own DoRA layer merges, alpha and scale included."""
    import peft

    base = torch.nn.Sequential(torch.nn.Linear(K, N, bias=False))
    base.load_state_dict({"0.weight": W})
    config = peft.LoraConfig(r=RANK, lora_alpha=4, use_dora=True, target_modules=["0"])
    adapted: Any = peft.get_peft_model(base, config)
    layer = adapted.base_model.model[0]
    layer.lora_B["default"].weight.data.copy_(seeded(N, RANK, seed=5))
    layer.lora_magnitude_vector["default"].weight.data.copy_(ROWS)
    layer.set_scale("default", scale)
    up, down = (layer.lora_B["default"].weight.data, layer.lora_A["default"].weight.data)
    layer.merge()
    made = decomposed(W, 4 / RANK * up @ down, ROWS, 0, scale, inside=True)
    torch.testing.assert_close(made, layer.get_base_layer().weight.data)
