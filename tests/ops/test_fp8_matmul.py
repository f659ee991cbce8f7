"""Weights that bring their scales along, and the product of fp8 numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from flux_hotswap.ops.fp8 import matmul
from flux_hotswap.ops.fp8.matmul import by_hand, by_rows, find_matmul, multiply
from flux_hotswap.ops.fp8.packed import TAIL, pack, unpack
from flux_hotswap.ops.fp8.rows import FP8, dequantise_rows, quantise_rows, quantise_tokens

CPU = torch.device("cpu")
WAYS = {"by rows": (by_rows, torch.bfloat16), "by hand": (by_hand, torch.bfloat16)}
WAYS |= {"by hand, float32": (by_hand, torch.float32)}


def seeded(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same_bits(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.contiguous().view(torch.uint8), second.contiguous().view(torch.uint8))


# --- packed ---


def every_code(height: int, width: int) -> Tensor:
    """All 256 codes, NaN and minus zero among them, in some order."""
    codes = torch.arange(height * width) * 37 % 256
    return codes.to(torch.uint8).view(FP8).reshape(height, width)


SCALES = torch.tensor([[2.0**-108], [2.0**-14], [1.0], [2.0**119]])


@pytest.mark.parametrize("columns", [0, 16, 48])
def test_packing_keeps_every_bit(columns: int) -> None:
    values = every_code(4, 80)
    beside = every_code(4, columns) if columns else None
    packed = pack(values, SCALES, beside)
    assert packed.shape == (4, 80 + columns + TAIL)
    assert packed.stride(0) % 16 == 0
    rows = unpack(packed, 80, torch.zeros(4, 1))  # the scale as loaded does not count any more
    assert same_bits(rows.base, values)
    assert same_bits(rows.scale, SCALES)
    if beside is not None:
        assert same_bits(rows.values[:, 80:], beside)
    assert rows.values.shape == (4, 80 + columns)


def test_a_weight_as_loaded_is_taken_as_it_is() -> None:
    values = every_code(4, 80)
    rows = unpack(values, 80, SCALES)
    assert rows.values.data_ptr() == values.data_ptr()
    assert rows.base.shape == values.shape
    assert torch.equal(rows.scale, SCALES)


def test_packing_is_a_copy() -> None:
    values = every_code(4, 80)
    pack(values, SCALES).view(torch.uint8).zero_()
    assert same_bits(values, every_code(4, 80))


# --- the product ---


def exact(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The product of the rounded numbers in float64, and the size of its parts."""
    rounded = [dequantise_rows(*quantise_tokens(tokens), torch.float32).double()]
    rounded += [dequantise_rows(*quantise_rows(weight), torch.float32).double()]
    made, size = rounded[0] @ rounded[1].T, rounded[0].abs() @ rounded[1].abs().T
    return (made, size) if bias is None else (made + bias.double(), size + bias.double().abs())


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("loud", [1.0, 1e4])
@pytest.mark.parametrize(("way", "dtype"), WAYS.values(), ids=list(WAYS))
def test_the_product_is_that_of_the_rounded_numbers(
    way: Any, dtype: torch.dtype, loud: float, bias: bool
) -> None:
    tokens, weight = seeded(48, 256).to(dtype), seeded(96, 256, seed=2).to(dtype) * 0.02
    tokens[:, 7] *= loud
    tokens[3] *= 1e-4
    weight[5] *= 100
    added = seeded(96, seed=3).to(dtype) if bias else None
    values, scale = quantise_rows(weight)
    made = multiply(way, tokens, unpack(values, 256, scale), added, None)
    wanted, size = exact(tokens, weight, added)
    assert made.dtype == dtype
    assert made.shape == (48, 96)
    # Sums are kept in float32 and rounded to the dtype once, twice with a bias by hand.
    step = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-22
    room = 2 * step * (wanted.abs() + (0 if added is None else added.double().abs()))
    assert ((made.double() - wanted).abs() <= room + 2.0**-20 * size).all()


@pytest.mark.parametrize(("way", "dtype"), WAYS.values(), ids=list(WAYS))
def test_columns_add_their_product(way: Any, dtype: torch.dtype) -> None:
    tokens, down = seeded(48, 256).to(dtype), (seeded(16, 256, seed=4) / 16).to(dtype)
    values, scale = quantise_rows(seeded(96, 256, seed=2))
    beside, _ = quantise_rows(seeded(96, 16, seed=5))
    weight = unpack(pack(values, scale, beside), 256, scale)
    made = multiply(way, tokens, weight, None, down)
    quantised, token_scale = quantise_tokens(tokens, torch.nn.functional.linear(tokens, down))
    whole = dequantise_rows(quantised, token_scale, torch.float32).double()
    wanted = whole @ dequantise_rows(weight.values, scale, torch.float32).double().T
    step = 2.0**-7 if dtype == torch.bfloat16 else 2.0**-16
    assert ((made.double() - wanted).abs() <= step * wanted.abs().clamp_min(1)).all()


@pytest.mark.parametrize("height", [96, 256], ids=["wide", "square"])
def test_columns_without_their_half_are_left_out(height: int) -> None:
    tokens = seeded(48, 256)
    values, scale = quantise_rows(seeded(height, 256, seed=2))
    beside, _ = quantise_rows(seeded(height, 16, seed=5))
    packed = unpack(pack(values, scale, beside), 256, scale)
    made = multiply(by_hand, tokens, packed, None, None)
    assert torch.equal(made, multiply(by_hand, tokens, unpack(values, 256, scale), None, None))


@pytest.mark.parametrize("odd", [math.inf, math.nan], ids=str)
@pytest.mark.parametrize(("way", "dtype"), WAYS.values(), ids=list(WAYS))
def test_what_is_not_finite_shows(way: Any, dtype: torch.dtype, odd: float) -> None:
    tokens = seeded(48, 64).to(dtype)
    tokens[5, 3] = odd
    values, scale = quantise_rows(seeded(32, 64, seed=2))
    made = multiply(way, tokens, unpack(values, 64, scale), None, None)
    assert torch.isnan(made[5]).all()
    assert torch.isfinite(made[torch.arange(48) != 5]).all()


def test_float32_tokens_are_not_rounded_to_bf16() -> None:
    """By rows torch gives bf16 only."""
    tokens = seeded(48, 256)
    values, scale = quantise_rows(seeded(96, 256, seed=2))
    weight = unpack(values, 256, scale)
    made = multiply(by_rows, tokens, weight, None, None)
    assert torch.equal(made, multiply(by_hand, tokens, weight, None, None))
    assert made.dtype == torch.float32


@pytest.mark.parametrize("way", [by_rows, by_hand])
def test_the_fast_sums_are_asked_for(monkeypatch: pytest.MonkeyPatch, way: Any) -> None:
    """A CPU has one way to sum; on a GPU the other one is slower."""
    asked: list[bool] = []
    real: Any = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage]

    def spy(*tensors: Tensor, use_fast_accum: bool = False, **options: Any) -> Tensor:
        asked.append(use_fast_accum)
        return real(*tensors, use_fast_accum=use_fast_accum, **options)

    monkeypatch.setattr(matmul, "_scaled_mm", spy)
    values, scale = quantise_rows(seeded(32, 64, seed=2))
    multiply(way, seeded(48, 64).to(torch.bfloat16), unpack(values, 64, scale), None, None)
    assert asked == [True]


# --- finding the way ---


@pytest.fixture(autouse=True)
def forget() -> Any:
    find_matmul.cache_clear()
    yield
    find_matmul.cache_clear()


def test_the_faster_way_is_taken_where_it_works() -> None:
    assert find_matmul(CPU) is by_rows


def broken(kind: type[Exception]) -> Any:
    def way(*_: Any) -> Tensor:
        raise kind("not compiled with fp8")

    return way


def wrong(*arguments: Any) -> Tensor:
    """A way that runs and does not apply the scales."""
    tokens, _, weight, *_ = arguments
    return tokens.to(torch.bfloat16) @ weight.values.to(torch.bfloat16).t()


def not_a_number(*arguments: Any) -> Tensor:
    return wrong(*arguments) * math.nan


@pytest.mark.parametrize(
    "bad",
    [
        *(broken(kind) for kind in (RuntimeError, ValueError, NotImplementedError, TypeError)),
        wrong,
        not_a_number,
    ],
)
def test_a_way_that_does_not_work_is_skipped(monkeypatch: pytest.MonkeyPatch, bad: Any) -> None:
    monkeypatch.setattr(matmul, "_WAYS", (bad, by_hand))
    assert find_matmul(CPU) is by_hand
    find_matmul.cache_clear()
    monkeypatch.setattr(matmul, "_WAYS", (bad, bad))
    assert find_matmul(CPU) is None


def test_a_failure_that_shows_at_the_next_copy_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU works behind the call; what went wrong is raised by the next copy that is not empty."""

    def copied(values: Tensor) -> Tensor:
        if values.numel():
            raise RuntimeError("an illegal instruction was encountered")
        return values

    monkeypatch.setattr(Tensor, "cpu", copied)
    assert find_matmul(CPU) is None


def test_one_that_is_wrong_in_the_bias_alone_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_bias(tokens: Any, scale: Any, weight: Any, _: Any, dtype: Any) -> Tensor:
        return by_hand(tokens, scale, weight, None, dtype) * 1.0

    monkeypatch.setattr(matmul, "_WAYS", (no_bias, by_hand))
    assert find_matmul(CPU) is by_hand
