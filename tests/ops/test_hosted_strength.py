"""How much of a LoRA is left in the hosted engine's weights: its own numbers, samples, bounds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hosted_vectors import SAID, tensors
from torch import Tensor

from flux_hotswap.ops.hosted.merge import Part
from flux_hotswap.ops.hosted.quantise import quantise_weight
from flux_hotswap.ops.hosted.strength import (
    Base,
    DenseChange,
    LoraChange,
    arriving,
    merged_largest,
)

CASES: dict[str, Any] = SAID["strength"]


def case(name: str) -> tuple[Base, LoraChange, Part]:
    weight, up, down = (tensors()[f"strength/{name}/{key}"] for key in ("weight", "up", "down"))
    part = Part(up, down)
    return Base.of(quantise_weight(weight)), LoraChange([part], *weight.shape), part


@pytest.mark.parametrize("name", CASES)
def test_every_number_of_the_hosted_code(name: str) -> None:
    base, change, _ = case(name)
    for coefficient, wanted in CASES[name]["at"].items():
        found = arriving(base, change, float(coefficient))
        assert found.strength == pytest.approx(wanted, abs=1e-5), coefficient
        assert found.error == 0
    assert arriving(base, change, 1.5).scale == pytest.approx(CASES[name]["scale_after"])


@pytest.mark.parametrize("name", CASES)
def test_a_dense_change_is_the_same(name: str) -> None:
    base, change, part = case(name)
    dense = DenseChange(part.up.float() @ part.down.float())
    found = arriving(base, dense, 1.5).strength
    assert found == pytest.approx(arriving(base, change, 1.5).strength, abs=0.01)


def large(kind: str, size: float) -> tuple[Tensor, Part]:
    """A weight of FLUX's width, and a LoRA of a size relative to it."""
    generator = torch.Generator().manual_seed(7)
    weight = 0.03 * torch.randn(3072, 3072, generator=generator)
    if kind == "heavy tails":
        weight *= torch.where(torch.randn(3072, 3072, generator=generator).abs() > 3.5, 20.0, 1.0)
    if kind == "loud rows":
        weight[::97] *= 8
    up = torch.randn(3072, 16, generator=generator)
    down = torch.randn(16, 3072, generator=generator)
    up *= size * float(weight.std()) / float((up @ down).std())
    return weight.to(torch.bfloat16), Part(up.to(torch.bfloat16), down.to(torch.bfloat16))


@pytest.mark.parametrize("size", [0.0075, 0.02])
@pytest.mark.parametrize("kind", ["even", "heavy tails", "loud rows"])
def test_a_sample_of_rows_is_within_a_hundredth(kind: str, size: float) -> None:
    weight, part = large(kind, size)
    base, change = Base.of(quantise_weight(weight)), LoraChange([part], 3072, 3072)
    sampled, whole = arriving(base, change, 1.5), arriving(base, change, 1.5, accuracy=0)
    assert whole.error == 0
    assert sampled.strength == pytest.approx(whole.strength, abs=0.012)
    assert sampled.elements < 3072 * 3072 / 2
    assert sampled.scale == whole.scale, "the scale is that of the whole sum"


@pytest.mark.parametrize("kind", ["even", "heavy tails", "loud rows"])
def test_the_largest_number_of_the_sum_is_found(kind: str) -> None:
    weight, part = large(kind, 0.05)
    base, change = Base.of(quantise_weight(weight)), LoraChange([part], 3072, 3072)
    rows = torch.arange(3072)
    delta = change.read(rows, 1.5)[1]
    wanted = (base.read(rows).bfloat16().float() + delta).bfloat16().abs().amax()
    assert float(merged_largest(base, change, 1.5)) == max(1.0, float(wanted))


def test_nothing_arrives_of_nothing() -> None:
    weight, _ = large("even", 0.01)
    base = Base.of(quantise_weight(weight))
    none = Part(torch.zeros(3072, 4), torch.zeros(4, 3072))
    assert arriving(base, LoraChange([none], 3072, 3072), 1.5).strength == 1.5
