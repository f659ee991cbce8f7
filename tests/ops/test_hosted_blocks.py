"""FLUX's blocks with two heads, summed portably, against the hosted engine's."""

from __future__ import annotations

import pytest
import torch
from hosted_vectors import PORTABLE, SAID, model, sha, tensors, turns
from torch import Tensor

from flux_hotswap.ops.hosted.blocks import (
    Block,
    double_block,
    final_layer,
    rms_norm,
    single_block,
)
from flux_hotswap.ops.hosted.linear import linear
from flux_hotswap.ops.hosted.primitives import PLAIN, Primitives
from flux_hotswap.ops.hosted.quantise import quantise_weight

BLOCK = SAID["block"]
HEADS, HEAD = BLOCK["heads"], 64


def block(case: str, kind: str, how: Primitives) -> Block:
    """The first block of a kind of the trained model, with heads of 64 channels."""
    start = f"{kind}_blocks.0."
    scales = BLOCK["cases"][case]["input_scales"]
    own = {k.removeprefix(start): v for k, v in model("dev").items() if k.startswith(start)}

    def apply(name: str, given: Tensor) -> Tensor:
        bias = tensors().get(f"block/{case}/{name}.bias", own[f"{name}.bias"])
        weight, scale = quantise_weight(own[f"{name}.weight"]), scales[f"{kind}.{name}"]
        return linear(how.product, given, weight, bias, torch.tensor(scale))

    return Block(apply, lambda name: own[f"{name}.scale"][:HEAD], HEADS, how.attention)


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    img, txt, vec = (tensors()[f"block/{name}"] for name in ("img", "txt", "vec"))
    rows, columns = BLOCK["grid"]
    table = turns(BLOCK["text_tokens"], rows, columns, BLOCK["axes"])
    assert sha(table) == SAID["rope"]["block"]
    return img, txt, vec, table


@pytest.mark.parametrize("case", BLOCK["cases"])
def test_double_blocks(case: str) -> None:
    img, txt = double_block(block(case, "double", PORTABLE), *inputs())
    said = BLOCK["cases"][case]
    assert (sha(img), sha(txt)) == (said["double/img"]["portable"], said["double/txt"]["portable"])


@pytest.mark.parametrize("case", BLOCK["cases"])
def test_single_blocks(case: str) -> None:
    img, txt, vec, table = inputs()
    made = single_block(block(case, "single", PORTABLE), torch.cat((txt, img), dim=1), vec, table)
    assert sha(made) == BLOCK["cases"][case]["single"]["portable"]


def test_the_final_layer() -> None:
    start = "final_layer."
    own = {k.removeprefix(start): v for k, v in model("dev").items() if k.startswith(start)}

    def apply(name: str, given: Tensor) -> Tensor:
        return PORTABLE.linear(given, own[f"{name}.weight"], own[f"{name}.bias"])

    img, _, vec, _ = inputs()
    assert sha(final_layer(apply, img, vec)) == BLOCK["final_layer"]["portable"]


def test_plain_sums_are_near() -> None:
    """In another order a sum can be another number of bf16, and then another one of fp8."""
    plain = double_block(block("plain", "double", PLAIN), *inputs())
    exact = double_block(block("plain", "double", PORTABLE), *inputs())
    for made, wanted in zip(plain, exact, strict=True):
        apart = (made.to(torch.float32) - wanted.to(torch.float32)).norm()
        assert 0 < apart <= 0.05 * wanted.to(torch.float32).norm()


def test_rms_norm() -> None:
    assert sha(rms_norm(tensors()["rms/x"], tensors()["rms/scale"])) == SAID["rms"]
