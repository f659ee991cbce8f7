"""A simulated day of 64 workers: which job goes where, by our rules, Ray's default, and in line.

    python3 dev.py bench dispatch_sim

The clock is simulated, everything else of ours is what runs: `Line`, `pick`, the limits. All get
the same calls. Ray Serve's default router gives the one that waits longest to a replica that is
free, by chance (the better of two by chance, where both are free); "in line" gives it to the free
one that has to load the least. Loading a model takes 30 s, a LoRA 0.3 s. The second part is a few
callers who ask two workers for eight kinds of picture, each anew as soon as it has its answer.
Writes bench/results/dispatch_sim.json. Standard library only.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

from common import RESULTS, machine, write
from sim_traffic import GREEDY, Call, Load, calls

from flux_hotswap.hosted_api.job import Kind, Waiting
from flux_hotswap.hosted_api.line import Line
from flux_hotswap.hosted_api.pick import PATIENCE, Limits, Standing, pick

MODEL_SECONDS, LORA_SECONDS = 30.0, 0.3
QUEUE = 500
"""So many may wait; what comes then is refused, as with --queue."""

USUAL = 20
"""Draws of which the usual time is the mean, as in `Store.usual_seconds`."""

Found = tuple[Waiting, Standing]


class Rule(Protocol):
    """Decides who is next, and where."""

    waiting: list[Waiting]

    def next(self, workers: Sequence[Standing], now: float, usual: float) -> Found | None:
        """Return the next start; None where nobody is to begin now. It leaves `waiting`."""
        ...


@dataclass
class Ours:
    """The rules of the API.

    Attributes:
        worst: how often anybody was overtaken, and `bound` how often one may have been.
    """

    waiting: list[Waiting] = field(default_factory=list[Waiting])
    line: Line = field(default_factory=Line)
    worst: int = 0
    bound: int = 0

    def next(self, workers: Sequence[Standing], now: float, usual: float) -> Found | None:
        """Return the next start, as the dispatcher finds it."""
        limits = Limits.of(len(workers), usual)
        self.bound = max(self.bound, 2 * limits.limit)
        line = self.line.order(self.waiting, now)
        found = pick(line, workers, now, limits)
        if found is None:
            return None
        for place in line:
            if place.job is found[0]:
                break
            self.worst = max(self.worst, place.overtaken + 1)
        self.line.start(line, found[0], now)
        self.waiting = [job for job in self.waiting if job is not found[0]]
        return found


@dataclass
class InLine:
    """Whoever waits longest, to whom `choose` says of those that are free."""

    choose: Callable[[Waiting, Sequence[Standing]], Standing]
    waiting: list[Waiting] = field(default_factory=list[Waiting])

    def next(self, workers: Sequence[Standing], now: float, usual: float) -> Found | None:  # noqa: ARG002, as the others
        """Return the next start: there is one where anybody waits and anybody is free."""
        idle = [worker for worker in workers if worker.idle]
        if not idle or not self.waiting:
            return None
        job = self.waiting.pop(0)
        return job, self.choose(job, idle)


def nearest(job: Waiting, idle: Sequence[Standing]) -> Standing:
    """Return the worker that has to load the least."""
    return min(idle, key=lambda worker: loading(worker.kind, job.kind))


def loading(before: Kind | None, wanted: Kind) -> float:
    """Return the seconds that a worker loads for a job."""
    if before is None or before[:2] != wanted[:2]:
        return MODEL_SECONDS
    return 0.0 if before == wanted else LORA_SECONDS


def rules(seed: int) -> dict[str, Rule]:
    """Return the rules that are compared, new."""
    rng = Random(seed)
    return {"ours": Ours(), "ray": InLine(lambda _, idle: rng.choice(idle)),
            "in_line": InLine(nearest)}  # fmt: skip


@dataclass
class Seen:
    """What a simulation counts. Times in seconds."""

    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    models: int = 0
    loras: int = 0
    refused: int = 0
    drawing: float = 0.0
    loading: float = 0.0
    end: float = 0.0

    def report(self, workers: int, rule: Rule) -> dict[str, Any]:
        """Return it in numbers."""
        every = sorted(wait for waits in self.waits.values() for wait in waits)
        greedy = sorted(self.waits.get(GREEDY, []))
        modest = sorted(x for who, waits in self.waits.items() if who != GREEDY for x in waits)
        whole = workers * self.end
        told: dict[str, Any] = {
            "drawn": len(every),
            "refused": self.refused,
            "model_switches": self.models,
            "lora_switches": self.loras,
            "drawing": round(self.drawing / whole, 4),
            "loading": round(self.loading / whole, 4),
            "drawn_a_minute": round(len(every) / self.end * 60, 2),
            "wait": quantiles(every),
        }
        if greedy and modest:
            told |= {"wait_of_the_greedy": quantiles(greedy), "wait_of_others": quantiles(modest)}
        if isinstance(rule, Ours):
            told |= {"overtaken_at_most": rule.worst, "bound": rule.bound}
        return told


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return mean, middle, 99 of 100 and the largest of sorted values."""
    return {
        "mean": round(statistics.fmean(values), 3),
        "p50": round(values[len(values) // 2], 3),
        "p99": round(values[len(values) * 99 // 100], 3),
        "worst": round(values[-1], 3),
    }


class Simulation:
    """Workers that draw by a rule.

    Args:
        rule: which.
        workers: so many; they have nothing loaded.
        again: gives the call that a caller makes when its call has ended.
    """

    def __init__(
        self, rule: Rule, workers: int, again: Callable[[Waiting, float], Call | None] | None = None
    ) -> None:
        self.seen = Seen()
        self._rule = rule
        self._again = again
        self._workers = [Standing(str(number), True) for number in range(workers)]
        self._seconds: dict[str, float] = {}
        self._ends: list[tuple[float, int, Waiting]] = []
        self._usual: deque[float] = deque([0.0], maxlen=USUAL)
        self._look = float("inf")

    def run(self, coming: Iterable[Call]) -> Seen:
        """Return what is seen until everything has ended."""
        arriving = iter(coming)
        call = next(arriving, None)
        while call is not None or self._ends or self._rule.waiting:
            arrival = call.waiting.created if call is not None else float("inf")
            end = self._ends[0][0] if self._ends else float("inf")
            now = min(arrival, end, self._look)
            if now == arrival and call is not None:
                self._come(call)
                call = next(arriving, None)
            elif now == end:
                self._end()
            self._start(now)
            self.seen.end = now
        return self.seen

    def _come(self, call: Call) -> None:
        if len(self._rule.waiting) >= QUEUE:
            self.seen.refused += 1
            return
        self._rule.waiting.append(call.waiting)
        self._seconds[call.waiting.id] = call.seconds

    def _end(self) -> None:
        now, number, job = heapq.heappop(self._ends)
        self._workers[number] = Standing(str(number), True, job.kind, now)
        call = self._again(job, now) if self._again is not None else None
        if call is not None:
            self._come(call)

    def _start(self, now: float) -> None:
        """Start what is to start, and look again when somebody's patience may end."""
        seen = self.seen
        while len(self._ends) < len(self._workers) and self._rule.waiting:
            usual = statistics.fmean(self._usual)
            found = self._rule.next(self._workers, now, usual)
            if found is None:
                break
            job, worker = found
            before, number = worker.kind, int(worker.name)
            loads = loading(before, job.kind)
            draws = self._seconds.pop(job.id)
            if before is not None:
                seen.models += before[:2] != job.kind[:2]
                seen.loras += before[:2] == job.kind[:2] and before != job.kind
            seen.loading += loads
            seen.drawing += draws
            seen.waits[job.owner].append(now - job.created)
            self._usual.append(loads + draws)
            self._workers[number] = Standing(
                worker.name, False, job.kind, loads=loads >= MODEL_SECONDS
            )
            heapq.heappush(self._ends, (now + loads + draws, number, job))
        idle = len(self._ends) < len(self._workers)
        self._look = now + PATIENCE if idle and self._rule.waiting else float("inf")


def day(load: Load, hours: float, seed: int, start: float = 0.0) -> dict[str, Any]:
    """Return what each rule makes of the same calls."""
    told: dict[str, Any] = {}
    for name, rule in rules(seed).items():
        begun = time.process_time()
        seen = Simulation(rule, load.workers).run(calls(load, hours, seed, start))
        told[name] = seen.report(load.workers, rule)
        told[name]["cpu_seconds_to_simulate"] = round(time.process_time() - begun, 1)
    return told


def callers(many: int, jobs: int, seed: int) -> dict[str, Any]:
    """Return what each rule makes of the few callers.

    They ask for eight kinds of picture, each of which takes 0.1 s to 1 s.
    """
    told: dict[str, Any] = {}
    for name, rule in rules(seed).items():
        asked = asks(jobs, Random(seed))

        def again(
            _: Waiting, now: float, asked: Iterator[tuple[Kind, float]] = asked
        ) -> Call | None:
            found = next(asked, None)
            return None if found is None else made(found, now)

        first = [made(next(asked), 0.0) for _ in range(many)]
        told[name] = Simulation(rule, 2, again).run(first).report(2, rule)
    return told


_NUMBERS = iter(range(10**12))


def made(asked: tuple[Kind, float], now: float) -> Call:
    """Return a call of a moment."""
    kind, seconds = asked
    return Call(Waiting(f"c{next(_NUMBERS)}", kind, now), seconds)


def asks(jobs: int, rng: Random) -> Iterator[tuple[Kind, float]]:
    """Yield what callers want, one after another: kind, and seconds to draw."""
    for _ in range(jobs):
        kind: Kind = (rng.choice(("dev", "schnell")), True, f"lora{rng.randrange(4)}")
        yield kind, rng.uniform(0.1, 1.0)


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, and write the file of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--start", type=float, default=0.0, help="hours after midnight")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="nine minutes before noon")
    parser.add_argument("--output", type=Path, default=RESULTS / "dispatch_sim.json")
    options = parser.parse_args(argv)
    hours, start, jobs = options.hours, options.start, 2000
    if options.short:
        hours, start, jobs = 0.15, 11.9, 300
    load = Load()
    report = {
        "machine": machine(),
        "setup": {"workers": load.workers, "hours": hours, "queue": QUEUE, "seed": options.seed},
        "load": asdict(load),
        "day": day(load, hours, options.seed, start),
        "callers": {str(many): callers(many, jobs, options.seed) for many in (4, 16, 64)},
    }
    write(options.output, report)


if __name__ == "__main__":
    main()
