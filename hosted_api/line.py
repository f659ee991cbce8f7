"""The order in which predictions wait, and how often each was overtaken. No I/O.

Three things make the order, the first counts most:

- urgency, 0 to 7, the lower first; whoever waits moves up a step each `STEP` seconds, as far as the
  most urgent that waits: so the least urgent one is among the most urgent after seven of them, and
  among equals time changes nothing;
- fairness: the work that the owner's token has had lately, and that of the owner's predictions
  before this one. Who has had less goes first, so a hundred predictions of one owner are not all
  before one of another, and with two who want everything each gets half;
- when it was made.

Without tokens there is one owner, and the order is that of making.

`pick` may start a prediction before others that stand in front of it, to load less. `Line` counts
that. What it knows is lost by a restart, which does no harm: everybody starts anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple

from .job import Waiting

STEP: Final = 180.0
"""Seconds of waiting that make a prediction more urgent by one."""

HALF_LIFE: Final = 120.0
"""Seconds after which work that was had counts half."""

_MADE: Final = attrgetter("created")
_NOTHING: Final = 1e-6
"""Work that is as good as forgotten."""


class Place(NamedTuple):
    """A prediction's place in the line.

    Attributes:
        job: what waits.
        level: its urgency, with what it has moved up.
        share: work that its owner has had, or has in the line before it.
        overtaken: how often one behind it was started before it.
    """

    job: Waiting
    level: int
    share: float
    overtaken: int


@dataclass
class _Had:
    """Work that an owner has had, as it counted at a moment."""

    work: float = 0.0
    at: float = 0.0

    def now(self, now: float) -> float:
        return self.work * 0.5 ** (max(now - self.at, 0.0) / HALF_LIFE)


class Line:
    """Orders what waits, and remembers who was overtaken and who has had how much."""

    def __init__(self) -> None:
        self._overtaken: dict[str, int] = {}
        self._had: dict[str, _Had] = {}

    def order(self, jobs: Sequence[Waiting], now: float) -> list[Place]:
        """Return everybody's place, the first first.

        Args:
            jobs: all that wait.
            now: seconds since 1970.
        """
        self._forget(jobs, now)
        shares = {owner: had.now(now) for owner, had in self._had.items()}
        top = min((job.urgency for job in jobs), default=0)
        levels: list[list[Waiting]] = [[] for _ in range(8)]
        for job in sorted(jobs, key=_MADE):
            levels[max(job.urgency - int(max(now - job.created, 0.0) / STEP), top)].append(job)
        line: list[Place] = []
        counts = self._overtaken
        for level, same in enumerate(levels):
            places: list[Place] = []
            for job in same:
                share = shares.get(job.owner, 0.0)
                places.append(Place(job, level, share, counts.get(job.id, 0)))
                shares[job.owner] = share + job.work
            line += sorted(places, key=_SHARE)  # it keeps the order of those that are alike
        return line

    def start(self, line: Sequence[Place], job: Waiting, now: float) -> None:
        """Count what the start of one means to the others.

        Args:
            line: as `order` gave it.
            job: the one that starts.
            now: seconds since 1970.
        """
        for place in line:
            if place.job.id == job.id:
                break
            self._overtaken[place.job.id] = place.overtaken + 1
        self._overtaken.pop(job.id, None)
        had = self._had.get(job.owner, _Had())
        self._had[job.owner] = _Had(had.now(now) + job.work, now)

    def _forget(self, jobs: Sequence[Waiting], now: float) -> None:
        """Forget those that wait no more, and work that was long ago."""
        if self._overtaken:
            here = {job.id for job in jobs}
            self._overtaken = {k: n for k, n in self._overtaken.items() if k in here}
        self._had = {k: had for k, had in self._had.items() if had.now(now) > _NOTHING}


_SHARE: Final = attrgetter("share")
