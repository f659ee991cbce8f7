"""The seed that the hosted model's fast engine draws with."""

from __future__ import annotations

from typing import Final

FAST_SEEDS: Final = 2**32 - 1
"""How many seeds the fast engine knows; one less than 32 bits hold."""


def fast_seed(seed: int) -> int:
    """Return the seed that the fast engine draws the noise of a seed with, 0..2^32-2.

    The bf16 engine takes the seed as it is.
    """
    return abs(seed) % FAST_SEEDS
