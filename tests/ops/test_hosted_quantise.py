"""Weights and inputs in fp8, as the hosted engine rounds them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hosted_vectors import SAID, model, sha, tensors

from flux_hotswap.errors import CheckpointError
from flux_hotswap.ops.hosted.quantise import (
    E4M3,
    E4M3_MAX,
    E5M2_MAX,
    Calibration,
    has_fp8,
    quantise,
    quantise_input,
    quantise_weight,
    scale_for,
)

LAYERS = [(name, layer) for name in ("dev", "schnell") for layer in SAID["layers"][name]]


@pytest.mark.parametrize("case", SAID["weights"])
def test_weights(case: str) -> None:
    weight, said = tensors()[f"weight/{case}"], SAID["weights"][case]
    before = weight.clone()
    made = quantise_weight(weight)
    assert sha(made.data) == said["e4m3"]
    assert (float(made.scale), float(made.reciprocal)) == (said["scale"], said["reciprocal"])
    assert sha(made.dequantised().to(torch.bfloat16)) == said["dequantised"]
    assert torch.equal(weight, before)


@pytest.mark.parametrize("case", SAID["weights"])
def test_weights_on_the_grid_stay_there(case: str) -> None:
    made = quantise_weight(tensors()[f"weight/{case}"])
    again = quantise_weight(made.dequantised().to(torch.bfloat16))
    assert torch.equal(again.data.view(torch.uint8), made.data.view(torch.uint8))


@pytest.mark.parametrize(("name", "layer"), LAYERS, ids=lambda value: value)
def test_layers_of_a_trained_model(name: str, layer: str) -> None:
    made = quantise_weight(model(name)[f"{layer}.weight"])
    found = [sha(made.data), float(made.scale), float(made.reciprocal)]
    assert found == SAID["layers"][name][layer][:3]


@pytest.mark.parametrize(
    "said", SAID["inputs"], ids=lambda said: f"{said['input']}, largest {said['largest']}"
)
def test_inputs(said: dict[str, Any]) -> None:
    inputs = tensors()[f"input/{said['input']}"]
    scale = scale_for(torch.tensor(said["largest"]), E5M2_MAX)
    assert (float(scale), float(scale.reciprocal())) == (said["scale"], said["reciprocal"])
    assert sha(quantise_input(inputs, scale)) == said["e5m2"]
    beyond = (inputs.to(torch.float32) * scale).abs() > E5M2_MAX
    assert int(beyond.sum()) == said["clamped"]


def test_the_product_is_rounded_before_the_cast() -> None:
    """1.0625 + 2^-9 lies above the middle of two numbers of e4m3; bf16 rounds it to the middle."""
    value = torch.tensor([1.0625 + 2**-9])
    assert float(value.to(E4M3)) == 1.125
    assert float(quantise(value, torch.tensor(1.0), E4M3_MAX, E4M3)) == 1.0


def test_calibration() -> None:
    layer = Calibration()
    for largest, scale, settled in SAID["calibration"]:
        inputs = torch.tensor([[largest / 3, -largest]], dtype=torch.bfloat16)
        before = layer.settled
        assert float(layer.observe(inputs)) == scale
        assert (before, float(layer.scale)) == (settled, scale)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_damaged_weight_is_refused(bad: float) -> None:
    weight = torch.ones(4, 4, dtype=torch.bfloat16)
    weight[2, 1] = bad
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        quantise_weight(weight)


@pytest.mark.parametrize(("device", "has"), [("cpu", True), ("ipu", False)])
def test_which_device_holds_fp8(device: str, has: bool) -> None:
    """An ipu is none that torch has here, and fails as one does that casts to no fp8."""
    assert has_fp8(torch.device(device)) is has
