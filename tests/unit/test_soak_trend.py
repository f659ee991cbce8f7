"""The soak's judgement of what grows: a leak is told, a warm-up and noise are not."""

from __future__ import annotations

import random

import pytest

from bench.soak_trend import grown, thinned, trend

Sample = tuple[float, int, int]


def samples(memory: float = 0.0, files: float = 0.0, threads: float = 0.0) -> list[Sample]:
    """400 samples that grow by so much each, after a warm-up of 50, with some noise."""
    draw = random.Random(1)
    made = []
    for index in range(400):
        warm = min(index, 50) / 50
        made.append(
            (
                500 * warm + 200 + memory * index + draw.uniform(-20, 20),
                8 + round(files * index) + draw.randint(0, 1),
                12 + round(threads * index),
            )
        )
    return made


def test_a_flat_run_has_grown_in_nothing() -> None:
    assert grown(samples()) == []


@pytest.mark.parametrize(
    ("leak", "name"),
    [({"memory": 0.5}, "MB"), ({"files": 0.02}, "open files"), ({"threads": 0.05}, "threads")],
    ids=["memory", "open files", "threads"],
)
def test_a_leak_is_named(leak: dict[str, float], name: str) -> None:
    (found,) = grown(samples(**leak))
    assert found.startswith(f"{name}: ")


def test_a_trend_leaves_the_warm_up_out() -> None:
    assert trend([0.0] * 20 + [5.0] * 80) == {
        "first_quarter": 5.0,
        "last_quarter": 5.0,
        "per_100_prompts": 0.0,
    }
    assert trend([float(value) for value in range(100)])["per_100_prompts"] == 100.0


def test_thinning_takes_medians() -> None:
    assert thinned([1, 9, 2, 4, 4, 4, 7], by=3) == [2, 4, 7]
