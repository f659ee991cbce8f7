"""How long an API is not ready after its last replica went: a script, since Ray is not here."""

# pyright: basic

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from flux_hotswap.hosted_api.cluster import board, pool
from flux_hotswap.hosted_api.cluster.settings import APP

LATE = 0.3
"""Seconds after the last replica that Ray still speaks of an update."""


@dataclass(frozen=True)
class Replica:
    """What a router knows of a replica."""

    unique_id: str = "one"
    routing_stats: Mapping[str, Any] = field(default_factory=dict, compare=False)


class Router:
    """Ray's, as far as the board reads it."""

    app_name = APP

    def __init__(self) -> None:
        self.curr_replicas = {Replica(): Replica()}


class Updated:
    """A cluster in the midst of an update."""

    said: str | None = "Updating"

    def join(self) -> None:
        """There is nothing to join."""

    leave = join

    def handle(self) -> Any:
        return self

    def options(self, *, stream: bool) -> None:
        assert stream

    def trouble(self) -> str | None:
        return self.said


async def main(word: str) -> float:
    cluster, router = Updated(), Router()
    board.register(router)
    made = pool.ClusterPool(cast("Any", cluster))
    running = asyncio.ensure_future(made.run(lambda: None))
    while not made.workers:
        await asyncio.sleep(0.01)
    if word == "before":
        cluster.said = None
    router.curr_replicas.clear()
    asyncio.get_running_loop().call_later(LATE, setattr, cluster, "said", None)
    while made.workers:
        await asyncio.sleep(0.01)
    begun = time.monotonic()
    while not made.ready:
        await asyncio.sleep(0.01)
    running.cancel()
    return time.monotonic() - begun


if __name__ == "__main__":
    sys.stdout.write(str(asyncio.run(main(sys.argv[1]))))
