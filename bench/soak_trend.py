"""Whether what a server uses grows while it works. Standard library only."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

WARM_UP = 0.2
"""Share of the run that comes before the first sample that counts."""
NAMES = ("MB", "open files", "threads")
ROOM = (0.1, 0.3, 0.5)
"""How much more of each the end may have, as a share."""

LONG = 300
"""So many events show a leak; fewer are still warming up."""


def trend(values: Sequence[float]) -> dict[str, float]:
    """How a series goes on after the warm-up.

    Returns:
        The medians of its first and last quarter, and the slope of the line of least squares in
        units per 100 prompts.
    """
    kept = values[int(len(values) * WARM_UP) :]
    quarter = max(1, len(kept) // 4)
    slope = statistics.linear_regression(range(len(kept)), kept).slope if len(kept) > 1 else 0.0
    return {
        "first_quarter": round(statistics.median(kept[:quarter]), 1),
        "last_quarter": round(statistics.median(kept[-quarter:]), 1),
        "per_100_prompts": round(100 * slope, 2),
    }


def grown(samples: Sequence[tuple[float, int, int]]) -> list[str]:
    """What the last quarter of a run has clearly more of than the first one after the warm-up."""
    found: list[str] = []
    for name, values, room in zip(NAMES, zip(*samples, strict=True), ROOM, strict=True):
        ends = trend(values)
        if ends["last_quarter"] > ends["first_quarter"] * (1 + room):
            found.append(f"{name}: {ends}")
    return found


def thinned(values: Sequence[float], by: int) -> list[float]:
    """The medians of `by` values in turn."""
    return [round(statistics.median(values[i : i + by]), 1) for i in range(0, len(values), by)]
