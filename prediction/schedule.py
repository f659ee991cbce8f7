"""FLUX's noise levels.

The full schedule of n steps has n + 1 sigmas, from 1 down to 0. schnell's lie on a straight line;
dev's are shifted towards 1 by a factor that grows with the number of tokens (section 2 of "Scaling
Rectified Flow Transformers", with the constants of FLUX.1-dev's scheduler configuration).
"""

from __future__ import annotations

import math
import struct
from typing import Final

BASE_TOKENS: Final = 256
MAX_TOKENS: Final = 4096
BASE_SHIFT: Final = 0.5
MAX_SHIFT: Final = 1.15


def shift_exponent(tokens: int) -> float:
    """Return mu, the exponent of dev's shift: 0.5 at 256 tokens, 1.15 at 4096, not clamped."""
    slope = (MAX_SHIFT - BASE_SHIFT) / (MAX_TOKENS - BASE_TOKENS)
    return BASE_SHIFT + (tokens - BASE_TOKENS) * slope


def full_schedule(model: str, steps: int, tokens: int) -> tuple[float, ...]:
    """Return the steps + 1 sigmas of a whole run, the last one 0.

    They are rounded to float32 after each operation, as the hosted model's scheduler computes them:
    the model sees 1000 times a sigma, where the last bit shows.

    Args:
        model: "dev" or "schnell".
        steps: number of denoising steps, at least 1.
        tokens: latent tokens of the picture, see `Size.tokens`.
    """
    line = [_float32(1 - k / steps) for k in range(steps)]
    if model == "dev":
        factor = _float32(math.exp(shift_exponent(tokens)))
        line = [_float32(factor / _float32(factor + _float32(_float32(1 / u) - 1))) for u in line]
    return (*line, 0.0)


def start_step(steps: int, prompt_strength: float) -> int:
    """Return how many of the first steps an input picture skips.

    The float arithmetic is the hosted model's on purpose: it decides between neighbours such as
    n = 50, strength = 0.8.
    """
    return int(max(steps - min(steps * prompt_strength, steps), 0))


def _float32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]
