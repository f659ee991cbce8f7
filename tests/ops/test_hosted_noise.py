"""The noise of the fast engine's seeds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hosted_vectors import SAID, sha

from flux_hotswap.ops.noise import hosted_noise
from flux_hotswap.prediction.seed import fast_seed


@pytest.mark.parametrize("said", SAID["seeds"], ids=lambda said: str(said["seed"]))
def test_noise(said: dict[str, Any]) -> None:
    for side in (64, 128):
        noise = hosted_noise(fast_seed(said["seed"]), batch=1, height=side, width=side)
        assert sha(noise.to(torch.bfloat16)) == said[f"sha256_bf16_1x16x{side}x{side}"]
        if side == 64:
            assert noise.flatten()[:8].tolist() == said["first_8"]
            assert float(noise.flatten()[-1]) == said["last"]
