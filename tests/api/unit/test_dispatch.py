"""The loop that gives out jobs, with workers that take a moment for each."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest
from api.hooks import held

from flux_hotswap.hosted_api import dispatch
from flux_hotswap.hosted_api import store as store_of
from flux_hotswap.hosted_api.changes import Changes
from flux_hotswap.hosted_api.dispatch import Dispatcher
from flux_hotswap.hosted_api.job import Event, Job, Kind, Status
from flux_hotswap.hosted_api.links import Links
from flux_hotswap.hosted_api.metrics import Metrics
from flux_hotswap.hosted_api.options import Options
from flux_hotswap.hosted_api.outputs import Outputs
from flux_hotswap.hosted_api.store import Store
from flux_hotswap.hosted_api.worker import Drawn
from flux_hotswap.prediction.fill import Prompt


class Quick:
    """A worker that draws nothing, in 10 ms."""

    name, up, state = "quick", True, "draws nothing"
    loaded: Kind | None = None
    facts: Mapping[str, float] = {}

    def __init__(self, begun: list[Job]) -> None:
        self._begun = begun

    async def draw(self, job: Job, prompt: Prompt) -> AsyncIterator[Drawn]:
        assert prompt == {}
        self._begun.append(job)
        self.loaded = job.kind
        await asyncio.sleep(0.01)
        yield Drawn((), "")

    async def cancel(self, job: Job) -> None:
        assert job in self._begun


class One:
    """A pool of that worker."""

    ready = True

    def __init__(self, worker: Quick) -> None:
        self.workers: Sequence[Quick] = [worker]

    async def run(self, told: Callable[[], None]) -> None:
        told()

    def waiting(self, jobs: int) -> None:
        pass


class Quiet:
    """Tells nobody."""

    def poke(self) -> None:
        pass

    async def tell(self, job: Job, event: Event) -> None:
        pass


def begun(folder: Path, jobs: Sequence[Job], hold: int | None = None) -> list[str]:
    """The ids of jobs in the order in which one worker begins them.

    Args:
        folder: of the database.
        jobs: all of them.
        hold: another process holds the database for a while, once so many have been begun.
    """
    order: list[Job] = []

    async def prompt(_: Job) -> Prompt:
        return {}

    async def whole() -> None:
        options = Options(state=folder)
        store = Store(folder / "jobs.sqlite")
        outputs = Outputs(options, Links(b"secret", time.time), lambda: "")
        pool = One(Quick(order))
        dispatcher = Dispatcher(
            options, store, outputs, pool, Changes(), Quiet(), prompt, Metrics()
        )
        for job in jobs:
            store.add(job, digest="")
        running = asyncio.ensure_future(dispatcher.run())
        end = time.monotonic() + 20
        while hold is not None and len(order) <= hold:
            await asyncio.sleep(0.001)
        if hold is not None:
            with held(folder / "jobs.sqlite"):
                await asyncio.sleep(0.5)
        while store.count(Status.SUCCEEDED) < len(jobs):
            assert time.monotonic() < end, order
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        outputs.close()
        store.close()

    asyncio.run(whole())
    return [job.id for job in order]


@pytest.mark.parametrize("hold", [0, 1, 4])
def test_a_database_that_is_held_only_delays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold: int
) -> None:
    """As when the disk is full: whoever draws then draws it again, and the rest waits."""
    monkeypatch.setattr(store_of, "LOCKED", 0.01)
    monkeypatch.setattr(dispatch, "TICK", 0.05)
    jobs = [job(f"job{number}", "", 9 - number, "a/a") for number in range(5)]
    order = begun(tmp_path, jobs, hold)
    assert set(order) == {each.id for each in jobs}
    assert len(order) <= len(jobs) + 1, "one was being drawn"


def job(name: str, owner: str, age: float, lora: str, urgency: int = 3) -> Job:
    now = time.time()
    request = {"seed": 1, "model": "dev", "lora": lora}
    return Job(
        id=name, owner=owner, model="a/b", version="hidden", input={}, request=request,
        created=now - age, deadline=now + 60, urgency=urgency,
    )  # fmt: skip


def test_owners_take_turns(tmp_path: Path) -> None:
    """Twenty of one owner came first; each of another one's five waits for one or two of them."""
    greedy = [job(f"greedy{number}", "greedy", 30 - number / 10, "a/a") for number in range(20)]
    modest = [job(f"modest{number}", "modest", 1 - number / 10, "a/a") for number in range(5)]
    order = begun(tmp_path, [*greedy, *modest])
    owners = [name.rstrip("0123456789") for name in order]
    assert owners[:10].count("modest") == 5
    assert [name for name in order if name.startswith("modest")] == [each.id for each in modest]
    assert [name for name in order if name.startswith("greedy")] == [each.id for each in greedy]


def test_a_backlog_does_not_end_affinity(tmp_path: Path) -> None:
    """Jobs older than every limit, by turns for two LoRAs: the worker changes it a few times."""
    jobs = [job(f"job{number}", "", 900 - number, "ab"[number % 2]) for number in range(24)]
    order = begun(tmp_path, jobs)
    loras = [int(name.removeprefix("job")) % 2 for name in order]
    changes = sum(one != other for one, other in itertools.pairwise(loras))
    assert changes <= 6, loras


def test_the_urgent_one_is_next(tmp_path: Path) -> None:
    jobs = [job(f"job{number}", "", 9 - number, "a/a", 7) for number in range(3)]
    order = begun(tmp_path, [*jobs, job("urgent", "", 0, "a/b", 0)])
    assert order == ["urgent", "job0", "job1", "job2"]
