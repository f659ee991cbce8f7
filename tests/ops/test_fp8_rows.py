"""Rounding to e4m3 with a scale for each row, against a list of all e4m3 values."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from flux_hotswap.ops.fp8.rows import (
    FP8,
    FP8_MAX,
    dequantise_rows,
    largest_of_rows,
    quantise_rows,
    quantise_rows_evenly,
    quantise_tokens,
    row_scales,
)

DTYPES = [torch.float32, torch.bfloat16]
CODES = torch.arange(256, dtype=torch.uint8)
GRID = CODES.view(FP8).to(torch.float64)
GRID = GRID[torch.isfinite(GRID)].unique()
"""Every finite number of e4m3, sorted."""


def seeded(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def nearest(values: Tensor) -> Tensor:
    """The distance from each value to the nearest number of e4m3; both in float64."""
    return (values[..., None] - GRID).abs().amin(-1)


def test_the_list_is_that_of_e4m3() -> None:
    assert len(GRID) == 253  # 256 codes, two of them NaN, and zero twice
    assert GRID.max() == FP8_MAX
    assert GRID[GRID > 0].min() == 2.0**-9


# --- scales ---


@pytest.mark.parametrize("factor", [1.0, 1 + 2**-7, 1.5, 1.75, 1.75 + 2**-7, 2 - 2**-7])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scales_are_the_smallest_powers_of_two(factor: float, dtype: torch.dtype) -> None:
    exponents = torch.arange(-90, 127)
    largest = (torch.exp2(exponents.double()) * factor)[:, None].to(dtype)
    scale = row_scales(largest)
    assert scale.dtype == torch.float32
    assert (torch.frexp(scale)[0] == 0.5).all(), "not powers of two"
    ratio = largest.double() / scale.double()
    assert (ratio <= FP8_MAX).all()
    assert (2 * ratio > FP8_MAX).all(), "half of it would do"


def test_scales_of_random_rows() -> None:
    chance = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(2))
    largest = torch.exp2(180 * chance - 80)
    ratio = largest.double() / row_scales(largest).double()
    assert (ratio <= FP8_MAX * (1 + 1e-5)).all(), "that much is rounded away, up to 464"
    assert (2 * ratio > FP8_MAX).all()


def test_the_scales_of_tiny_rows() -> None:
    """Rows below 2^-100 share the scale of a row of zeros, so that it has an inverse."""
    largest = torch.tensor([[0.0], [2.0**-140], [2.0**-101], [2.0**-100], [2.0**-99]])
    assert row_scales(largest)[:, 0].tolist() == [2.0**-108] * 4 + [2.0**-107]


def test_the_largest_of_rows() -> None:
    values = torch.tensor([[1.0, -3.0], [0.0, 0.0], [math.nan, 1.0], [-math.inf, 1.0]])
    made = largest_of_rows(values)
    assert made.shape == (4, 1)
    assert made[:2, 0].tolist() == [3.0, 0.0]
    assert torch.isnan(made[2])
    assert made[3] == math.inf


# --- rounding ---

ROWS = {
    "normal": seeded(64, 300) * 0.02,
    "outliers": seeded(64, 300) * torch.where(seeded(64, 300, seed=2) > 2.5, 100.0, 1.0),
    "log-uniform": torch.exp2(16 * seeded(64, 300).sigmoid() - 12),
    "halfway": ((GRID[1:] + GRID[:-1]) / 2).float()[None],
    "on the grid": GRID.float()[None],
    "1e-30": seeded(8, 300) * 1e-30,
    "1e30": seeded(8, 300) * 1e30,
    "one value": torch.tensor([[3.0], [-1e-3], [448.0], [449.0]]),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("values", ROWS.values(), ids=list(ROWS))
def test_rounding_is_to_the_nearest(values: Tensor, dtype: torch.dtype) -> None:
    values = values.to(dtype)
    before = values.clone()
    quantised, scale = quantise_rows(values)
    assert torch.equal(values, before)
    assert quantised.dtype == FP8
    exact = values.double() / scale.double()
    assert torch.equal((quantised.double() - exact).abs(), nearest(exact))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("values", ROWS.values(), ids=list(ROWS))
def test_dequantising_rounds_nothing(values: Tensor, dtype: torch.dtype) -> None:
    quantised, scale = quantise_rows(values)
    made = dequantise_rows(quantised, scale, dtype)
    assert made.dtype == dtype
    assert torch.equal(made.double(), quantised.double() * scale.double())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_quantising_twice_changes_nothing(dtype: torch.dtype) -> None:
    quantised, scale = quantise_rows(seeded(64, 300).to(dtype))
    made = dequantise_rows(quantised, scale, dtype)
    again, other = quantise_rows(made)
    assert torch.equal(dequantise_rows(again, other, dtype), made)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_of_zeros(dtype: torch.dtype) -> None:
    values = torch.zeros(2, 8, dtype=dtype)
    values[1, 3] = 2.0
    quantised, scale = quantise_rows(values)
    assert torch.isfinite(scale).all()
    assert torch.equal(dequantise_rows(quantised, scale, dtype), values)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan], ids=str)
@pytest.mark.parametrize("quantise", [quantise_rows, quantise_tokens])
def test_what_is_not_finite_shows(odd: float, dtype: torch.dtype, quantise: Any) -> None:
    values = seeded(3, 16).to(dtype)
    values[1, 5] = odd
    quantised, scale = quantise(values)
    made = dequantise_rows(quantised, scale, dtype)
    assert torch.isnan(made[1, 5])
    assert torch.isfinite(made[[0, 2]]).all()


# --- by chance ---


def evenly(values: Tensor, seed: int = 3) -> Tensor:
    scale = row_scales(largest_of_rows(values))
    return dequantise_rows(quantise_rows_evenly(values, scale, seed), scale, torch.float32)


@pytest.mark.parametrize("value", [0.0, 1e-3, 0.3, -0.3, 17.3, -100.1, 433.0, 447.9])
def test_the_mean_is_right(value: float) -> None:
    count = 40_000
    values = torch.full((1, count), value)
    values = torch.cat([values, torch.full((1, 1), FP8_MAX)], dim=1)  # the scale is 1
    made = evenly(values)[0, :count].double()
    low = GRID[GRID.le(value + 1e-6)].max()
    high = GRID[GRID.ge(value - 1e-6)].min()
    assert set(made.tolist()) <= {float(low), float(high)}, "not one of the two neighbours"
    spread = float(high - low) / 2 / count**0.5
    assert abs(float(made.mean()) - value) <= 5 * spread + 1e-6


def test_a_small_change_arrives_in_the_mean() -> None:
    """A thousandth of a step, which the nearest number would lose."""
    base, scale = quantise_rows(seeded(256, 1024))
    real = dequantise_rows(base, scale, torch.float32)
    change = real.abs() * 2.0**-3 * 1e-3
    made = dequantise_rows(quantise_rows_evenly(real + change, scale, 5), scale, torch.float32)
    assert float((made - real).sum() / change.sum()) == pytest.approx(1, abs=0.1)
    assert torch.equal(((real + change) / scale).to(FP8).float(), base.float()), "nothing arrives"


def test_what_lies_on_the_grid_stays() -> None:
    values = GRID.float().repeat(1, 20_000).reshape(-1, len(GRID))
    made = quantise_rows_evenly(values, torch.ones(len(values), 1), seed=1)
    assert torch.equal(made.float(), values)


def test_one_seed_rounds_alike() -> None:
    values = seeded(64, 300)
    assert torch.equal(evenly(values, 7), evenly(values, 7))
    assert not torch.equal(evenly(values, 7), evenly(values, 8))


def test_by_chance_nothing_leaves_the_range() -> None:
    values = seeded(8, 300)
    scale = row_scales(largest_of_rows(values)) / 4  # as after a patch that made the rows larger
    made = quantise_rows_evenly(values, scale, 1).float()
    assert made.abs().max() == FP8_MAX
    assert torch.isfinite(made).all()


# --- tokens ---


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tokens_largest_value_becomes_the_largest_of_e4m3(dtype: torch.dtype) -> None:
    tokens = seeded(32, 64).to(dtype) * torch.logspace(-20, 20, 32)[:, None].to(dtype)
    made, scale = quantise_tokens(tokens)
    assert made.to(torch.float32).abs().amax(dim=1).tolist() == [FP8_MAX] * 32
    real = made.to(torch.float64) * scale.to(torch.float64)
    step = torch.maximum(tokens.to(torch.float64).abs(), scale.to(torch.float64) * 2.0**-6)
    # Half a step of three bits of mantissa, and what the product of two bf16 numbers loses.
    assert ((real - tokens.to(torch.float64)).abs() <= step * (2.0**-4 + 2.0**-8)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("columns", [16, 64])
def test_columns_share_the_tokens_scales(columns: int, size: float, dtype: torch.dtype) -> None:
    tokens, beside = seeded(32, 64).to(dtype), (seeded(32, columns, seed=2) * size).to(dtype)
    made, scale = quantise_tokens(tokens, beside)
    alone, scales = quantise_tokens(tokens)
    real = dequantise_rows(made, scale, torch.float32)
    together = torch.cat([tokens, beside], dim=1).to(torch.float32)
    step = torch.maximum(together.abs(), scale * 2.0**-6)
    assert ((real - together).abs() <= step * (2.0**-4 + 2.0**-8)).all()
    assert torch.equal(torch.frexp(scale / scales)[0], torch.full_like(scale, 0.5))
    if size <= 1:  # the tokens round as they do alone
        assert torch.equal(real[:, :64], dequantise_rows(alone, scales, torch.float32))
    if size < 1:  # columns smaller than the tokens take no room from them
        assert torch.equal(scale, scales)


def test_tokens_of_ten_thousand_are_no_surprise() -> None:
    tokens = seeded(32, 64)
    tokens[:, 5] = 1e4
    made, scale = quantise_tokens(tokens.to(torch.bfloat16))
    real = dequantise_rows(made, scale, torch.float32)
    assert real[:, 5].tolist() == pytest.approx([1e4] * 32, rel=2**-4)
    assert (real - tokens).abs()[:, :5].max() <= 2.0**-4 * tokens[:, :5].abs().max()
