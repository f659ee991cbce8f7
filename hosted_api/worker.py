"""What the dispatcher asks of whoever draws: one ComfyUI here, or one somewhere in a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from .job import Job


@dataclass(frozen=True)
class Progress:
    """A piece of log."""

    text: str


@dataclass(frozen=True)
class Drawn:
    """The end of a job that went well.

    Attributes:
        pictures: name and bytes of each, in order.
        text: the last of the log.
    """

    pictures: tuple[tuple[str, bytes], ...] = field(repr=False)
    text: str


Told: TypeAlias = "Progress | Drawn"


class Worker(Protocol):
    """One place that draws one job at a time."""

    @property
    def name(self) -> str:
        """What it is called in the log and the metrics."""
        ...

    @property
    def up(self) -> bool:
        """Whether it can draw now."""
        ...

    @property
    def state(self) -> str:
        """How it is, in words."""
        ...

    async def run(self, told: Callable[[], None]) -> None:
        """Keep it up until cancelled: start it, watch it, start it again.

        Args:
            told: called when it can draw.
        """
        ...

    def draw(self, job: Job, request: dict[str, Any]) -> AsyncIterator[Told]:
        """Draw a job; `Drawn` comes last. It ends when the place is free again.

        Args:
            job: its id and attempt name what is drawn.
            request: its fields, with pictures as data.

        Raises:
            WorkerLostError: it is gone.
            DrawError: the job cannot be drawn.
        """
        ...

    async def cancel(self, job: Job) -> None:
        """Stop drawing a job, without touching another; `draw` then ends by itself."""
        ...
