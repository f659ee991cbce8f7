"""What the dispatcher asks of whoever draws: ComfyUIs here, or somewhere in a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from ..prediction.fill import Prompt
from .job import Job, Kind


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

    @property
    def loaded(self) -> Kind | None:
        """What it drew last, so what it need not load again; None where nothing is known."""
        ...

    @property
    def facts(self) -> Mapping[str, float]:
        """What it told of itself last: `vram_total` and `vram_free` in bytes, where it is known."""
        ...

    def draw(self, job: Job, prompt: Prompt) -> AsyncIterator[Told]:
        """Draw a job; `Drawn` comes last. It ends when the place is free again.

        Args:
            job: its id and attempt name what is drawn.
            prompt: ComfyUI's, filled with the job's request.

        Raises:
            WorkerLostError: it is gone.
            DrawError: the job cannot be drawn.
        """
        ...

    async def cancel(self, job: Job) -> None:
        """Stop drawing a job, without touching another; `draw` then ends by itself."""
        ...


class Pool(Protocol):
    """All workers of an API process; they come and go."""

    @property
    def workers(self) -> Sequence[Worker]:
        """Those that are known now, up or not."""
        ...

    @property
    def ready(self) -> bool:
        """Whether what is asked for now can be drawn."""
        ...

    async def run(self, told: Callable[[], None]) -> None:
        """Keep them up until cancelled: start them, watch them, start them again.

        Args:
            told: called when one can draw.
        """
        ...

    def waiting(self, jobs: int) -> None:
        """Hear how many jobs wait for a worker; a pool that can grow does."""
        ...
