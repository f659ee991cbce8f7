"""The loop and the 8 bit picture of the hosted engine."""

from __future__ import annotations

import pytest
import torch
from hosted_vectors import SAID, sha, tensors

from flux_hotswap.ops.hosted.step import euler, in_eight_bit_steps, to_eight_bit


def test_a_step() -> None:
    x, v = tensors()["euler/x"], tensors()["euler/v"]
    made = euler(x, v, SAID["euler"]["from"], SAID["euler"]["to"])
    assert sha(made) == SAID["euler"]["output"]


def test_eight_bits_of_every_number_of_bf16() -> None:
    codes = torch.arange(-32768, 32768).to(torch.int16).view(torch.bfloat16).clone()
    codes[~torch.isfinite(codes)] = 0
    assert sha(to_eight_bit(codes)) == SAID["eight_bit"]["every_code"]


@pytest.mark.parametrize("value", SAID["eight_bit"]["examples"])
def test_eight_bits_of_float32(value: str) -> None:
    assert int(to_eight_bit(torch.tensor(float(value)))) == SAID["eight_bit"]["examples"][value]


def test_pictures_at_the_levels_of_the_hosted_engine() -> None:
    images = torch.cat((torch.rand(5000), torch.tensor((-0.5, 0.0, 1.0, 1.5))))
    made = in_eight_bit_steps(images)
    assert torch.equal(made.mul(255).round().to(torch.uint8), to_eight_bit(2 * images - 1))
    assert (made.mul(255).round() != images.clamp(0, 1).mul(255).round()).sum() > 1000
    assert in_eight_bit_steps(torch.tensor((float("nan"), 0.5))).isnan().tolist() == [True, False]
