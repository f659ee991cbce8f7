"""int8 with turned channels: the arithmetic, its errors, and that it is comfy-kitchen's format."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comfy_kitchen.tensor import TensorWiseINT8Layout
from torch import Tensor

from flux_hotswap.ops.int8 import (
    INT8_MAX,
    dequantise,
    group_of,
    hadamard,
    multiply_stored,
    quantise,
    quantise_evenly,
    rotate,
)

CPU = torch.device("cpu")
GROUPS = [4, 16, 64, 256]


def seeded(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(made: Tensor, wanted: Tensor) -> float:
    return float((made.float() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(
    ("width", "group"),
    [(3072, 256), (12288, 256), (15360, 256), (128, 64), (64, 64), (48, 16), (20, 4), (6, 1)],
)
def test_group(width: int, group: int) -> None:
    assert group_of(width) == group


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", GROUPS)
def test_the_matrix_is_its_own_inverse(size: int, dtype: torch.dtype) -> None:
    made = hadamard(size, dtype, CPU)
    assert made.dtype == dtype
    exact = made.double()
    assert torch.equal(exact.abs(), torch.full_like(exact, size**-0.5))
    assert torch.equal(exact @ exact, torch.eye(size, dtype=torch.float64))
    assert torch.equal(exact, exact.T)


@pytest.mark.parametrize("group", [1, *GROUPS])
def test_turning_twice_is_nothing(group: int) -> None:
    values = seeded(3, 5, 512)
    torch.testing.assert_close(rotate(rotate(values, group), group), values, rtol=0, atol=1e-5)
    assert group == 1 or error(rotate(values, group), values) > 1


@pytest.mark.parametrize("group", GROUPS)
def test_it_is_comfy_kitchens_format(group: int) -> None:
    """The same steps and scales, so that ComfyUI opens what is kept."""
    weight = seeded(96, 512)
    layout: Any = TensorWiseINT8Layout
    theirs, params = layout.quantize(
        weight, is_weight=True, per_channel=True, convrot=True, convrot_groupsize=group
    )
    values, scale = quantise(weight, group)
    torch.testing.assert_close(scale, params.scale.reshape(-1, 1), rtol=1e-6, atol=0)
    apart = (values.int() - theirs.int()).abs()
    assert apart.max() <= 1
    assert (apart > 0).float().mean() < 1e-4  # ties that another order of sums decides
    torch.testing.assert_close(
        dequantise(theirs, params.scale.reshape(-1, 1), group), layout.dequantize(theirs, params)
    )


def test_half_a_step_is_the_largest_error() -> None:
    weight = 0.02 * seeded(64, 768)
    values, scale = quantise(weight, 256)
    assert values.dtype == torch.int8 and scale.shape == (64, 1)
    assert int(values.abs().max()) == INT8_MAX
    off = rotate(dequantise(values, scale, 256) - weight, 256)
    assert float((off.abs() / scale).max()) <= 0.5 + 1e-3


@pytest.mark.parametrize("odd", [float("nan"), float("inf")], ids=str)
def test_what_is_not_finite_shows_in_the_scales(odd: float) -> None:
    weight = seeded(4, 64)
    weight[2, 3] = odd
    assert torch.isfinite(quantise(weight, 64)[1]).flatten().tolist() == [True, True, False, True]


def test_a_row_of_zeros_stays_one() -> None:
    weight = seeded(4, 64)
    weight[1] = 0
    values, scale = quantise(weight, 64)
    assert not dequantise(values, scale, 64)[1].any()
    assert (scale > 0).all(), "whoever divides by it would get NaN"


def test_loud_channels_do_not_drown_the_others() -> None:
    weight = 0.02 * seeded(64, 1024)
    weight[:, 7] *= 60
    turned = error(dequantise(*quantise(weight, 256), 256)[:, 8:], weight[:, 8:])
    plain = error(dequantise(*quantise(weight, 1), 1)[:, 8:], weight[:, 8:])
    assert turned < plain / 3


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_rounding_by_chance_keeps_small_changes(share: float) -> None:
    weight = 0.02 * seeded(256, 256)
    values, scale = quantise(weight, 256)
    base = dequantise(values, scale, 256)
    change = rotate(share * scale * seeded(256, 256, seed=2).sign(), 256)
    made = [
        dequantise(quantise_evenly(base + change, scale, 256, seed), scale, 256)
        for seed in (11, 12)
    ]
    gain = [float(((one - base) * change).sum() / (change * change).sum()) for one in made]
    chance = 1 / (share**0.5 * 256)  # the deviation of the gain over so many numbers
    assert gain == [pytest.approx(1, abs=4 * chance)] * 2
    assert not torch.equal(*made)
    kept = quantise_evenly(base, scale, 256, 11) == values  # turning back leaves 1e-6 of a step
    assert kept.float().mean() > 0.999


def test_what_is_beyond_the_scales_is_cut_on_both_sides_alike() -> None:
    weight = torch.tensor([[-500.0, 500.0, -126.0, 126.0]])
    values = quantise_evenly(weight, torch.ones(1, 1), 1, seed=1)
    assert values.tolist() == [[-127, 127, -126, 126]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_storage_multiplies_as_the_weight_it_stands_for(dtype: torch.dtype, bias: bool) -> None:
    tokens, weight = seeded(40, 512, seed=3), 0.02 * seeded(96, 512)
    offset = seeded(96, seed=4) if bias else None
    values, scale = quantise(weight, 256)
    real = dequantise(values, scale, 256)
    made = multiply_stored(
        tokens.to(dtype), values, scale, None if offset is None else offset.to(dtype), 256
    )
    assert made.dtype == dtype
    wanted = torch.nn.functional.linear(tokens, real, offset)
    assert error(made, wanted) < (1e-5 if dtype == torch.float32 else 0.01)


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("largest", [40, 300, 768], ids=str)
def test_storage_multiplies_outputs_as_large_as_flux_has(
    largest: float, dtype: torch.dtype, bias: bool
) -> None:
    """Sums of unscaled steps are a thousand times the outputs, and fp16 ends at 65504."""
    weight = 0.02 * seeded(96, 3072)
    weight[7] *= 1e-3  # a row whose scale fp16 would hold to few bits only
    values, scale = quantise(weight, 256)
    real = dequantise(values, scale, 256)
    tokens = seeded(24, 3072, seed=3)
    tokens *= largest / (tokens @ real.T).abs().max()
    offset = seeded(96, seed=4) if bias else None
    wanted = torch.nn.functional.linear(tokens, real, offset)
    made = multiply_stored(
        tokens.to(dtype), values, scale, None if offset is None else offset.to(dtype), 256
    )
    assert made.dtype == dtype
    assert torch.isfinite(made).all()
    assert error(made, wanted) < 0.01
    assert error(made[:, 7], wanted[:, 7]) < 0.01
