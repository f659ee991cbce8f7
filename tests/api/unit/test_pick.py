"""Which job goes where."""

from __future__ import annotations

import pytest

from flux_hotswap.hosted_api.job import Waiting
from flux_hotswap.hosted_api.pick import AGE_LIMIT, Standing, pick

NOW = 1000.0


def job(
    name: str, lora: str = "a", age: float = 0.0, model: str = "dev", priority: int = 0
) -> Waiting:
    return Waiting(name, (model, True, lora), NOW - age, priority)


def worker(
    name: str, lora: str | None = None, *, idle: bool = True, model: str = "dev"
) -> Standing:
    return Standing(name, idle, None if lora is None else (model, True, lora))


CASES = [
    pytest.param([], [worker("w")], None, id="nothing waits"),
    pytest.param([job("1")], [worker("w", "a", idle=False)], None, id="nobody is free"),
    pytest.param([job("1"), job("2")], [worker("w")], ("1", "w"), id="the oldest first"),
    pytest.param(
        [job("1", "b"), job("2", "a")], [worker("w", "a")], ("2", "w"), id="what is loaded first"
    ),
    pytest.param(
        [job("1", "b", age=AGE_LIMIT), job("2", "a")], [worker("w", "a")], ("1", "w"),
        id="but nobody waits too long",
    ),
    pytest.param(
        [job("1", "a")], [worker("v", "b"), worker("w", "a")], ("1", "w"), id="to who has it"
    ),
    pytest.param(
        [job("1", "a")], [worker("w"), worker("v", "b")], ("1", "v"), id="else to who has the model"
    ),
    pytest.param(
        [job("1", "a")], [worker("v", "b", model="schnell"), worker("w")], ("1", "w"),
        id="else to who has nothing to lose",
    ),
    pytest.param(
        [job("1", "a")], [worker("v", "b"), worker("w", "a", idle=False)], None,
        id="it waits for who has it",
    ),
    pytest.param(
        [job("1", "a", age=3.0)], [worker("v", "b"), worker("w", "a", idle=False)], ("1", "v"),
        id="but not long",
    ),
    pytest.param(
        [job("1", "a"), job("2", "c")], [worker("v", "b"), worker("w", "a", idle=False)],
        ("2", "v"), id="another may go first meanwhile",
    ),
    pytest.param(
        [job("1", "b", priority=1), job("2", "a")], [worker("w", "a")], ("1", "w"),
        id="priority before what is loaded",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("jobs", "workers", "expected"), CASES)
def test_pick(
    jobs: list[Waiting], workers: list[Standing], expected: tuple[str, str] | None
) -> None:
    found = pick(jobs, workers, NOW, patience=2.0)
    assert (found and (found[0].id, found[1].name)) == expected
