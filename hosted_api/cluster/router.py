"""Which replica gets a call: the one that it names. The API's dispatcher has chosen it.

Ray Serve makes one router in each process that calls a deployment. It takes the class from here as
bytes, not by its name: so nothing of a process is kept in this module, see `board`.
"""

# pyright: basic

from __future__ import annotations

from typing import Any, Final

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from . import board

REPLICA: Final = "replica"
"""The argument of a call that names its replica; a call without it goes to any."""


class Named(RequestRouter):
    """Sends a call to the replica that it names, as soon as that takes one."""

    def initialize_state(self, **kwargs: Any) -> None:
        """Begin, see `RequestRouter`."""
        board.register(self)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return who may get a call, see `RequestRouter`."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        wanted = pending_request.kwargs.get(REPLICA)
        if wanted is None:
            return [candidate_replicas]
        return [[each for each in candidate_replicas if each.replica_id.unique_id == wanted]]
