"""The replicas that take calls now, as Ray Serve tells this process's router of them."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

_routers: weakref.WeakSet[Any] = weakref.WeakSet()


def register(router: Any) -> None:
    """Take the word of a router, as long as it is in use."""
    _routers.add(router)


def replicas(app: str) -> dict[str, Mapping[str, Any]]:
    """Return the replicas of an application by id, and what each last told of itself."""
    return {
        replica_id.unique_id: replica.routing_stats
        for router in list(_routers)
        if router.app_name == app
        for replica_id, replica in list(router.curr_replicas.items())
    }
