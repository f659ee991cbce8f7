"""A replica that goes as a job is given to it: a script, since Ray is not where the tests are."""

# pyright: basic

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, cast

from flux_hotswap.errors import WorkerLostError
from flux_hotswap.hosted_api.cluster import pool
from flux_hotswap.hosted_api.job import Job

JOB = Job(id="j", model="a/b", version="c", input={}, request={}, created=0.0, deadline=9.0)


class Nowhere:
    """A call that no replica takes: Ray's router waits for one of that name for ever."""

    def __init__(self) -> None:
        self._canceled = asyncio.Event()
        self.draw = self

    def options(self, *, stream: bool) -> Nowhere:
        assert stream
        return self

    def remote(self, *_: Any, **__: Any) -> Nowhere:
        return self

    def cancel(self) -> None:
        self._canceled.set()

    def __aiter__(self) -> Nowhere:
        return self

    async def __anext__(self) -> None:
        await self._canceled.wait()
        raise asyncio.CancelledError


async def draw(worker: pool.ReplicaWorker) -> str:
    try:
        async for _ in worker.draw(JOB, {}):
            return "something was told"
    except WorkerLostError as error:
        return str(error)
    return "it ended well"


async def main(first: str) -> str:
    worker = pool.ReplicaWorker("r", cast("Any", Nowhere()))
    steps: list[Callable[[], Any]] = [lambda: asyncio.ensure_future(draw(worker)), worker.gone]
    drawing = None
    for step in steps if first == "call" else reversed(steps):
        drawing = step() or drawing
        await asyncio.sleep(0.01)
    assert drawing is not None
    return await asyncio.wait_for(drawing, 10)


if __name__ == "__main__":
    pool.ARRIVAL = 0.1
    sys.stdout.write(asyncio.run(main(sys.argv[1])))
