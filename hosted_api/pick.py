"""Which job goes to which worker. Pure.

Loading a model takes tens of seconds and a LoRA a fraction of one, so a worker is given what it has
loaded if that waits, and a job waits a little for the worker that has what it needs. The place in
the line (see `line`) is for that left aside, but not often: how often a job may be overtaken is
limited.

A model is loaded for a job where nobody has it, on a worker that has nothing yet, on one that
nobody has wanted for a while, or where the job was overtaken so often that it would have to wait
too long; then by one worker at a time, since the first may be enough.

**The bound.** Nobody is overtaken more than `2 x limit` times, where a job is overtaken when one
that stands behind it at that moment is started. For a job that was overtaken so often is one of
those of which `pick` starts the first in line, whatever has to be loaded; what is started then
stands before it or is the job itself. So its count cannot grow any more. That holds for whichever
order the line has, and however that changes. (If `limit` changes meanwhile, for its largest value.)
With `limit` = `AGE_LIMIT` x workers / seconds of a draw, all workers together take about
`2 x AGE_LIMIT` seconds to start so many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final

from .job import Kind, Waiting
from .line import Place

AGE_LIMIT: Final = 60.0
"""So many seconds' starts may overtake a job, until only such jobs are chosen from."""

PATIENCE: Final = 0.5
"""Seconds that a job waits for a busy worker that has its LoRA."""

MODEL_PATIENCE: Final = 30.0
"""Seconds that a job waits for a busy worker that has its model, and that a worker waits for a job
that wants its model, before that worker loads another one: about the time that takes. Waiting so
long costs at most twice what knowing the future would."""

HURRY: Final = 10.0
"""So many seconds' starts may overtake a job for a LoRA, until such jobs come first."""

UNKNOWN: Final = 10.0
"""Seconds that a draw is thought to take before the first."""


@dataclass(frozen=True)
class Standing:
    """A worker as the choice sees it.

    Attributes:
        name: its name.
        idle: whether it can take a job now.
        kind: what it drew last; None before its first job.
        since: when its last job ended, seconds since 1970.
        loads: whether it is busy with a job for which it had to load the model.
    """

    name: str
    idle: bool
    kind: Kind | None = None
    since: float = 0.0
    loads: bool = False


@dataclass(frozen=True)
class Limits:
    """How long a job waits for what it needs, and how often it may be overtaken.

    Attributes:
        patience: seconds that it waits for a busy worker that has its LoRA.
        model_patience: seconds that it waits for one that has its model, and a worker for it.
        hurry: overtaken so often, it is one of those that workers with its model take first.
        limit: overtaken so often, it is one of those that all workers take first, and load its
            model for one after another; at twice that they take these strictly in line.
    """

    patience: float = PATIENCE
    model_patience: float = MODEL_PATIENCE
    hurry: int = 1
    limit: int = 1

    @classmethod
    def of(cls, workers: int, seconds: float) -> Limits:
        """Return the limits for a number of workers whose draws take so many seconds."""
        rate = workers / max(seconds or UNKNOWN, 0.1)  # starts in a second
        return cls(hurry=max(round(HURRY * rate), 1), limit=max(round(AGE_LIMIT * rate), 1))


def pick(
    line: Sequence[Place], workers: Sequence[Standing], now: float, limits: Limits
) -> tuple[Waiting, Standing] | None:
    """Return the next job and who is to run it; None where nobody should begin anything now.

    Args:
        line: all that wait, as `Line.order` gives them.
        workers: all that are up.
        now: seconds since 1970.
        limits: see there.
    """
    idle = [worker for worker in workers if worker.idle]
    if not line or not idle:
        return None
    late = [place for place in line if place.overtaken >= limits.limit]
    for place in late:
        if place.overtaken >= 2 * limits.limit:
            return place.job, _nearest(place.job, idle)
    choice = _Choice(workers, idle, now, limits)
    found = choice.loaded(late) or choice.late(late)
    if found is not None:
        return found
    for _, same in groupby(line, key=_LEVEL):
        found = choice.of(list(same))
        if found is not None:
            return found
    return None


class _Choice:
    """What the workers have loaded, and what that means for jobs."""

    def __init__(
        self, workers: Sequence[Standing], idle: Sequence[Standing], now: float, limits: Limits
    ) -> None:
        busy = [worker.kind for worker in workers if not worker.idle and worker.kind is not None]
        self._idle = idle
        self._now = now
        self._limits = limits
        self._kinds = {worker.kind: worker for worker in reversed(idle) if worker.kind is not None}
        self._models = {kind[:2] for kind in self._kinds}
        self._busy = set(busy)
        self._busy_models = {kind[:2] for kind in busy}
        enough = now - limits.model_patience
        self._free = [each for each in idle if each.kind is None or each.since <= enough]
        self._coming = {each.kind[:2] for each in workers if each.loads and each.kind is not None}
        self._new = any(worker.kind is None for worker in idle)

    def of(self, places: Sequence[Place]) -> tuple[Waiting, Standing] | None:
        """Return the choice among jobs of one level; None where all of them wait for somebody."""
        own = [place for place in places if place.job.kind[:2] in self._models]
        hurried = [place for place in own if place.overtaken >= self._limits.hurry]
        found = self.loaded(hurried) if hurried else self._same(own)
        if found is not None:
            return found
        for place in places:
            workers = self._to_load(place.job)
            if workers:
                return place.job, _nearest(place.job, workers)
        return None

    def loaded(self, places: Sequence[Place]) -> tuple[Waiting, Standing] | None:
        """Return the first job that finds all loaded, else the first that finds its model."""
        found = self._whole(places)
        if found is not None:
            return found
        for place in places:
            if place.job.kind[:2] in self._models:
                return place.job, _nearest(place.job, self._idle)
        return None

    def late(self, places: Sequence[Place]) -> tuple[Waiting, Standing] | None:
        """Return the first job whose model is not being loaded just now."""
        for place in places:
            if place.job.kind[:2] not in self._coming:
                return place.job, _nearest(place.job, self._idle)
        return None

    def _whole(self, places: Sequence[Place]) -> tuple[Waiting, Standing] | None:
        """Return the first job that finds its model and its LoRA loaded."""
        for place in places:
            worker = self._kinds.get(place.job.kind)
            if worker is not None:
                return place.job, worker
        return None

    def _same(self, own: Sequence[Place]) -> tuple[Waiting, Standing] | None:
        """Return the choice among jobs whose model is loaded and that are in no hurry."""
        found = self._whole(own)
        if found is not None:
            return found
        for place in own:
            job = place.job
            if job.kind not in self._busy or self._now - job.created >= self._limits.patience:
                return job, _nearest(job, self._idle)
        return None

    def _to_load(self, job: Waiting) -> Sequence[Standing]:
        """Return the workers that may load a model for a job now."""
        model = job.kind[:2]
        if model in self._models:
            return []
        if model not in self._busy_models:
            return self._idle
        if self._new or self._now - job.created >= self._limits.model_patience:
            return self._free
        return []


_LEVEL: Final = attrgetter("level")


def _nearest(job: Waiting, idle: Sequence[Standing]) -> Standing:
    """Return the worker that has to load the least: a LoRA is less than a model.

    Of those that have another model, one that has none yet loses nothing.
    """

    def distance(worker: Standing) -> int:
        if worker.kind is None:
            return 2
        if worker.kind == job.kind:
            return 0
        return 1 if worker.kind[:2] == job.kind[:2] else 3

    return min(idle, key=distance)
