"""The log of a prediction. Its lines of progress are those that the clients read. Pure."""

from __future__ import annotations

from typing import Final

_BLOCKS: Final = 10


def seed_line(seed: int) -> str:
    """Return the line that tells the seed, as the hosted model writes it."""
    return f"Using seed: {seed}\n"


def step_line(step: int, steps: int, seconds: float) -> str:
    """Return a line of progress in the form that tqdm has, which the clients look for.

    Args:
        step: steps done.
        steps: steps in all.
        seconds: since the first of them began.
    """
    share = min(max(step / steps, 0.0), 1.0)
    full = int(share * _BLOCKS)
    bar = "█" * full + " " * (_BLOCKS - full)
    rate = step / seconds if seconds > 0 else 0.0
    left = (steps - step) / rate if rate > 0 else 0.0
    times = f"{_clock(seconds)}<{_clock(left)}, {rate:.2f}it/s"
    return f"{share:4.0%}|{bar}| {step}/{steps} [{times}]\n"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:02}:{rest:02}"
