"""The product of the hosted engine."""

from __future__ import annotations

import pytest
import torch
from hosted_vectors import SAID, exactly, sha, tensors
from torch import Tensor

from flux_hotswap.ops.hosted import linear as module
from flux_hotswap.ops.hosted.linear import (
    by_device,
    by_float32,
    find_product,
    linear,
)
from flux_hotswap.ops.hosted.quantise import Quantised, quantise_input, quantise_weight

CASES = SAID["linears"]


def case(name: str) -> tuple[Tensor, Quantised, Tensor, Tensor]:
    x, weight, bias = (tensors()[f"linear/{name}/{n}"] for n in ("x", "weight", "bias"))
    return x, quantise_weight(weight), bias, torch.tensor(CASES[name]["input_scale"])


@pytest.mark.parametrize("name", CASES)
def test_operands(name: str) -> None:
    x, weight, _, scale = case(name)
    assert (sha(weight.data), float(weight.scale)) == (
        CASES[name]["e4m3"],
        CASES[name]["weight_scale"],
    )
    assert sha(quantise_input(x, scale)) == CASES[name]["e5m2"]


@pytest.mark.parametrize("name", CASES)
def test_sums(name: str) -> None:
    x, weight, bias, scale = case(name)
    assert sha(linear(exactly, x, weight, bias, scale)) == CASES[name]["output"]
    assert sha(linear(by_float32, x, weight, bias, scale)) == CASES[name]["output_float32"]


@pytest.mark.parametrize("name", CASES)
def test_the_device_agrees(name: str) -> None:
    x, weight, bias, scale = case(name)
    made = linear(by_device, x, weight, bias, scale).to(torch.float32)
    wanted = linear(exactly, x, weight, bias, scale).to(torch.float32)
    assert (made - wanted).norm() <= 0.004 * wanted.norm()


def test_leading_dimensions_and_no_bias() -> None:
    x, weight, bias, scale = case("a")
    made = linear(exactly, x.view(2, 16, -1), weight, bias, scale)
    assert torch.equal(made.view(32, -1), linear(exactly, x, weight, bias, scale))
    without = linear(exactly, x, weight, None, scale)
    assert torch.equal(without, linear(exactly, x, weight, torch.zeros_like(bias), scale))
    assert without.dtype == torch.bfloat16


def test_exact_sums_do_not_depend_on_the_order() -> None:
    x, weight, bias, scale = case("b")
    order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(4))
    data = weight.data.view(torch.uint8)[:, order].view(weight.data.dtype)
    shuffled = Quantised(data, weight.scale, weight.reciprocal)
    made = linear(exactly, x[:, order], shuffled, bias, scale)
    assert sha(made) == CASES["b"]["output"]


def test_which_product_a_device_gets() -> None:
    assert find_product(torch.device("cpu")) is by_float32
    assert module._works(by_device, torch.device("cpu"))


def fails(*_: object) -> Tensor:
    raise RuntimeError("no fp8 on this card")


def is_full(*_: object) -> Tensor:
    raise torch.OutOfMemoryError


def forgets_a_scale(x: Tensor, weight: Quantised, bias: Tensor | None, _: Tensor) -> Tensor:
    return by_float32(x, weight, bias, torch.tensor(1.1 / 9000))


def test_a_device_that_cannot_hold_the_operands_does_not_do_it() -> None:
    assert not module._works(by_device, torch.device("ipu"))  # none here


@pytest.mark.parametrize("product", [fails, forgets_a_scale])
def test_what_fails_a_trial_is_not_used(product: module.Product) -> None:
    assert not module._works(product, torch.device("cpu"))


def test_a_full_card_says_nothing_of_a_product() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        module._works(is_full, torch.device("cpu"))
