"""Tells whoever waits for a job that it has changed."""

from __future__ import annotations

import asyncio


class Changes:
    """Waiters by job, within one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def tell(self, job_id: str) -> None:
        """Wake everybody who waits for this job."""
        for event in self._waiting.get(job_id, ()):
            event.set()

    async def wait(self, job_id: str, seconds: float) -> None:
        """Wait until a job changes, at most so long."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault(job_id, set())
        waiting.add(event)
        try:
            await heard(event, seconds)
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(job_id, None)


async def heard(event: asyncio.Event, seconds: float | None) -> None:
    """Wait until an event is set, at most so long; None waits as long as it takes.

    `asyncio.wait_for` is not for this: before Python 3.12 it swallows a cancelling that comes
    together with the event, and the loop around it goes on.
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([waiting], timeout=seconds if seconds is None else max(seconds, 0.0))
    finally:
        waiting.cancel()
