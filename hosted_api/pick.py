"""Which job goes to which worker. Pure.

Loading a model takes minutes and a LoRA seconds, so a worker is given what it has loaded if that
waits, and a job waits a little for the worker that has its LoRA. Nobody waits longer than
`AGE_LIMIT` for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .job import Kind, Waiting

AGE_LIMIT: Final = 30.0
"""Seconds after which the job that waits longest is the next, whatever it needs."""


@dataclass(frozen=True)
class Standing:
    """A worker as the choice sees it.

    Attributes:
        name: its name.
        idle: whether it can take a job now.
        kind: what it drew last; None before its first job.
    """

    name: str
    idle: bool
    kind: Kind | None = None


def pick(
    jobs: Sequence[Waiting], workers: Sequence[Standing], now: float, patience: float
) -> tuple[Waiting, Standing] | None:
    """Return the next job and who is to run it; None where nobody should begin anything now.

    Args:
        jobs: those that wait, in their order.
        workers: all that are up.
        now: seconds since 1970.
        patience: seconds that a job waits for a busy worker that has its LoRA.
    """
    idle = [worker for worker in workers if worker.idle]
    if not jobs or not idle:
        return None
    first = [job for job in jobs if job.priority == jobs[0].priority]
    if now - first[0].created >= AGE_LIMIT:
        return first[0], _nearest(first[0], idle)
    for job in first:
        for worker in idle:
            if worker.kind == job.kind:
                return job, worker
    busy = {worker.kind for worker in workers if not worker.idle}
    for job in first:
        if job.kind not in busy or now - job.created >= patience:
            return job, _nearest(job, idle)
    return None


def _nearest(job: Waiting, idle: Sequence[Standing]) -> Standing:
    """Return the worker that has to load the least: a LoRA is less than a model.

    Of those that have another model, one that has none yet loses nothing.
    """

    def distance(worker: Standing) -> int:
        if worker.kind is None:
            return 2
        same = [own == wanted for own, wanted in zip(worker.kind, job.kind, strict=True)]
        return 0 if all(same) else 1 if all(same[:2]) else 3

    return min(idle, key=distance)
