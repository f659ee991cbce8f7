"""The order of what waits, and that nobody is overtaken for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_hotswap.hosted_api.job import Waiting
from flux_hotswap.hosted_api.line import HALF_LIFE, STEP, Line
from flux_hotswap.hosted_api.pick import Limits, Standing, pick

NOW = 10_000.0


def job(
    name: str, age: float = 0.0, owner: str = "", urgency: int = 3, work: float = 1.0
) -> Waiting:
    return Waiting(name, ("dev", True, ""), NOW - age, owner, urgency, work)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        pytest.param([], "", id="nothing"),
        pytest.param([job("a", 1), job("b", 3), job("c", 2)], "bca", id="the oldest first"),
        pytest.param([job("a", 2), job("b", 1, urgency=1)], "ba", id="the urgent first"),
        pytest.param(
            [job("a", STEP * 7, urgency=7), job("b", 5, urgency=0)], "ab", id="after seven steps"
        ),
        pytest.param(
            [job("a", STEP * 7 - 1, urgency=7), job("b", 5, urgency=0)], "ba", id="but not before"
        ),
        pytest.param(
            [job("a", 900, "x"), job("b", 890, "x"), job("c", 1, "y")], "acb", id="not among equals"
        ),
        pytest.param([job("a", -60), job("b", 5)], "ba", id="made by a clock that was set back"),
        pytest.param(
            [job("a", 9, "x"), job("b", 8, "x"), job("c", 7, "x"), job("d", 6, "y"),
             job("e", 5, "y")],
            "adbec", id="owners take turns",
        ),
        pytest.param(
            [job("a", 9, "x", work=2), job("b", 8, "x"), job("c", 7, "y"), job("d", 6, "y"),
             job("e", 5, "y")],
            "acdbe", id="by their work",
        ),
        pytest.param(
            [job("a", 9, "x"), job("b", 8, "x", urgency=1), job("c", 7, "y")], "bca",
            id="urgent work counts as well",
        ),
    ],
)  # fmt: skip
def test_order(jobs: list[Waiting], expected: str) -> None:
    assert "".join(place.job.id for place in Line().order(jobs, NOW)) == expected


def test_work_that_was_had_counts_for_a_while() -> None:
    line = Line()
    first, second, other = job("1", 9, "x", work=4), job("2", 8, "x"), job("3", 7, "y", work=3)
    line.start(line.order([first, second, other], NOW), first, NOW)
    assert [place.job.id for place in line.order([second, other], NOW)] == ["3", "2"]
    shares = [place.share for place in line.order([second, other], NOW + HALF_LIFE)]
    assert shares == [0.0, 2.0]
    line.start(line.order([other], NOW), other, NOW)
    assert [place.job.id for place in line.order([job("4", 0, "y"), second], NOW)] == ["4", "2"]


def test_who_is_overtaken() -> None:
    """Those before the one that starts; a start ends the count."""
    line = Line()
    jobs = [job(name, 9 - number) for number, name in enumerate("abc")]
    line.start(line.order(jobs, NOW), jobs[1], NOW)
    left = [jobs[0], jobs[2]]
    assert [place.overtaken for place in line.order(left, NOW)] == [1, 0]
    line.start(line.order(left, NOW), jobs[0], NOW)
    assert [place.overtaken for place in line.order(jobs, NOW)] == [0, 0, 0]


Arrival = tuple[int, str, bool, str, str, int, float]
ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from((0, 0, 0, 1, 9)),  # turns since the one before
        st.sampled_from(("dev", "dev", "dev", "schnell")),
        st.just(True) | st.booleans(),
        st.sampled_from(("a", "b", "c")),
        st.sampled_from(("x", "y", "z")),
        st.integers(0, 7),
        st.floats(1, 50),
    ),
    min_size=20,
    max_size=50,
)


@given(ARRIVALS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.randoms())
@settings(max_examples=50, deadline=None)
def test_nobody_is_overtaken_too_often(
    arrivals: Sequence[Arrival], count: int, hurry: int, limit: int, chance: Random
) -> None:
    """Whatever comes: the bound holds, and everybody is started in the end."""
    limits = Limits(hurry=hurry, limit=limit)
    line, now, waiting, started = Line(), NOW, [], []
    standing = {str(number): Standing(str(number), True) for number in range(count)}
    overtaken: Counter[str] = Counter()
    at, coming = NOW, []
    for number, (pause, model, fast, lora, owner, urgency, work) in enumerate(arrivals):
        at += pause
        coming.append(Waiting(str(number), (model, fast, lora), at, owner, urgency, work))
    for _ in range(2000):
        waiting += [each for each in coming if each.created <= now]
        coming = [each for each in coming if each.created > now]
        while True:
            order = line.order(waiting, now)
            found = pick(order, list(standing.values()), now, limits)
            if found is None:
                break
            chosen, worker = found
            assert worker.idle
            line.start(order, chosen, now)
            loads = worker.kind is None or worker.kind[:2] != chosen.kind[:2]
            standing[worker.name] = Standing(worker.name, False, chosen.kind, loads=loads)
            ids = [place.job.id for place in order]
            overtaken.update(ids[: ids.index(chosen.id)])
            waiting.remove(chosen)
            started.append(chosen.id)
        if not waiting and not coming:
            break
        for name, worker in standing.items():  # some of them end, later where they load a model
            if not worker.idle and chance.random() < (0.1 if worker.loads else 0.7):
                standing[name] = Standing(name, True, worker.kind, now)
        now += 1.0
    assert sorted(started, key=int) == [str(number) for number in range(len(arrivals))]
    assert max(overtaken.values(), default=0) <= 2 * limit
