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
            await asyncio.wait_for(event.wait(), max(seconds, 0.0))
        except asyncio.TimeoutError:
            return
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(job_id, None)
