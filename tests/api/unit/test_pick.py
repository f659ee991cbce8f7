"""Which job goes where."""

from __future__ import annotations

import pytest

from flux_hotswap.hosted_api.job import Kind, Waiting
from flux_hotswap.hosted_api.line import Place
from flux_hotswap.hosted_api.pick import MODEL_PATIENCE, PATIENCE, Limits, Standing, pick

NOW = 1000.0
LIMITS = Limits(hurry=3, limit=10)


def kind(lora: str, model: str = "dev") -> Kind:
    return model, True, lora


def job(
    name: str, lora: str = "a", age: float = 0.0, model: str = "dev", level: int = 3,
    overtaken: int = 0,
) -> Place:  # fmt: skip
    return Place(Waiting(name, kind(lora, model), NOW - age), level, 0.0, overtaken)


def worker(
    name: str, lora: str | None = None, *, idle: bool = True, model: str = "dev",
    free: float = 900.0, loads: bool = False,
) -> Standing:  # fmt: skip
    return Standing(name, idle, None if lora is None else kind(lora, model), NOW - free, loads)


BUSY = worker("busy", "a", idle=False)
OTHER = worker("other", "a", model="schnell")

CASES = [
    pytest.param([], [worker("w")], None, id="nothing waits"),
    pytest.param([job("1")], [BUSY], None, id="nobody is free"),
    pytest.param([job("1"), job("2")], [worker("w")], ("1", "w"), id="the first in line"),
    pytest.param(
        [job("1", "b"), job("2", "a")], [worker("w", "a")], ("2", "w"), id="what is loaded first"
    ),
    pytest.param(
        [job("1", "b", age=900.0), job("2", "a")], [worker("w", "a")], ("2", "w"),
        id="however long another waits",
    ),
    pytest.param(
        [job("1", "b", overtaken=3), job("2", "a")], [worker("w", "a")], ("1", "w"),
        id="but nobody is overtaken often for a LoRA",
    ),
    pytest.param(
        [job("1", "b", overtaken=3), job("2", "c", overtaken=3)], [worker("w", "c")], ("2", "w"),
        id="of those in a hurry the loaded one",
    ),
    pytest.param(
        [job("1", model="schnell", overtaken=9), job("2", "b")], [worker("w", "a")], ("2", "w"),
        id="a model is not loaded as soon as that",
    ),
    pytest.param(
        [job("1", model="schnell", overtaken=10), job("2", "a")], [worker("w", "a")], ("1", "w"),
        id="but it is at the limit",
    ),
    pytest.param(
        [job("1", model="schnell", overtaken=10), job("2", "a", overtaken=10), job("3", "a")],
        [worker("w", "a")], ("2", "w"), id="of those at the limit the loaded one",
    ),
    pytest.param(
        [job("1", model="schnell", overtaken=20), job("2", "a", overtaken=19)],
        [worker("w", "a")], ("1", "w"), id="at twice the limit in line",
    ),
    pytest.param(
        [job("1", "a", overtaken=10), job("2", "b")], [BUSY, OTHER], ("1", "other"),
        id="at the limit nobody waits",
    ),
    pytest.param(
        [job("1", "a")], [worker("v", "b"), worker("w", "a")], ("1", "w"), id="to who has it"
    ),
    pytest.param(
        [job("1", "a")], [worker("w"), worker("v", "b")], ("1", "v"), id="else to who has the model"
    ),
    pytest.param([job("1")], [OTHER, worker("w")], ("1", "w"), id="else to who loses nothing"),
    pytest.param([job("1")], [BUSY, worker("w")], ("1", "w"), id="to that one at once"),
    pytest.param([job("1")], [worker("v", "b"), BUSY], None, id="it waits for who has it"),
    pytest.param(
        [job("1", age=PATIENCE)], [worker("v", "b"), BUSY], ("1", "v"), id="but not long"
    ),
    pytest.param(
        [job("1", "b", age=MODEL_PATIENCE - 1)], [BUSY, OTHER], None, id="longer for a model"
    ),
    pytest.param(
        [job("1", "b", age=MODEL_PATIENCE)], [BUSY, OTHER], ("1", "other"), id="not for ever"
    ),
    pytest.param(
        [job("1", "b", age=900)], [BUSY, worker("w", "a", model="schnell", free=5)], None,
        id="nor is a model loaded by who may be wanted again",
    ),
    pytest.param([job("1", "b")], [OTHER], ("1", "other"), id="nobody has the model"),
    pytest.param(
        [job("1", "b")], [worker("w", "a", model="schnell", free=0)], ("1", "w"),
        id="nobody has it, so at once",
    ),
    pytest.param(
        [job("1", overtaken=10), job("2", "a", model="schnell")],
        [OTHER, worker("w", "b", idle=False, loads=True)], ("2", "other"),
        id="one loads it, so no other one",
    ),
    pytest.param(
        [job("1", overtaken=20), job("2", "a", model="schnell")],
        [OTHER, worker("w", "b", idle=False, loads=True)], ("1", "other"),
        id="at twice the limit all the same",
    ),
    pytest.param(
        [job("1", "a"), job("2", "c")], [worker("v", "b"), BUSY], ("2", "v"),
        id="another may go first meanwhile",
    ),
    pytest.param(
        [job("1", "a", level=2), job("2", "c")], [worker("v", "b"), BUSY], ("2", "v"),
        id="a less urgent one too",
    ),
    pytest.param(
        [job("1", "b", level=2), job("2", "a")], [worker("w", "a")], ("1", "w"),
        id="urgency before what is loaded",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("line", "workers", "expected"), CASES)
def test_pick(line: list[Place], workers: list[Standing], expected: tuple[str, str] | None) -> None:
    found = pick(line, workers, NOW, LIMITS)
    assert (found and (found[0].id, found[1].name)) == expected


@pytest.mark.parametrize(
    ("workers", "seconds", "expected"),
    [(1, 0.0, (1, 6)), (2, 0.5, (40, 240)), (64, 16.0, (40, 240)), (1, 200.0, (1, 1))],
)
def test_limits(workers: int, seconds: float, expected: tuple[int, int]) -> None:
    """They are what starts in so many seconds, and one at least."""
    limits = Limits.of(workers, seconds)
    assert (limits.hurry, limits.limit) == expected
