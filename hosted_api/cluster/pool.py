"""The API's side of a cluster: which replicas there are, and calls to each."""

# pyright: basic

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from ...errors import DrawError, HotswapError, WorkerLostError
from ...prediction.fill import Prompt
from ...texts import one_line
from ..job import Job, Kind
from ..worker import Told
from . import board
from .connect import Cluster
from .settings import APP

LOOK: Final = 0.25
"""Seconds between two looks at the replicas that Ray tells of."""

ASK: Final = 5.0
"""Seconds between two questions how the application is, where nothing has changed."""

AGAIN: Final = 5.0
"""Seconds before a cluster that was lost, or not found, is tried again."""

_AWAY: Final = ""
"""The trouble of a cluster that is not joined."""

_SAID: Final = 500
"""Most letters of what Ray says of it."""

SHUNNED: Final = 60.0
"""Seconds that Ray has to find out that a replica is gone which has lost a job."""

ARRIVAL: Final = 10.0
"""Seconds after which a call to a replica that has gone is given up, if it has not arrived."""

log = logging.getLogger(__name__)


class ReplicaWorker:
    """One replica.

    Args:
        name: its id.
        handle: calls the deployment.
    """

    def __init__(self, name: str, handle: DeploymentHandle[Any]) -> None:
        self.name = name
        self.loaded: Kind | None = None
        self.facts: Mapping[str, float] = {}
        self._place = ""
        self._handle = handle
        self._calls: dict[str, _Call] = {}
        self._shunned = 0.0
        self._gone = False

    @property
    def up(self) -> bool:
        """Whether it can draw now; one that has just lost a job waits until Ray has looked."""
        return time.monotonic() >= self._shunned

    @property
    def state(self) -> str:
        """How it is, in words."""
        return f"ready{self._place}"

    def hear(self, told: Mapping[str, Any]) -> None:
        """Take what the replica tells of itself; it is a second old or two."""
        if told:
            self._place = f" on {told['host']}, process {told['pid']}"
        self.facts = told.get("facts", {})
        if self.loaded is None and told.get("loaded") is not None:
            self.loaded = tuple(told["loaded"])

    def gone(self) -> None:
        """Hear that it takes no calls any more. What it draws it may still end."""
        self._gone = True
        for call in self._calls.values():
            asyncio.get_running_loop().call_later(ARRIVAL, call.give_up)

    async def draw(self, job: Job, prompt: Prompt) -> AsyncIterator[Told]:
        """Draw a job, see `Worker`."""
        self.loaded = job.kind
        # Pictures are in the prompt; addresses of webhooks are nobody's business there.
        plain = replace(job, input={}, logs="", webhook="")
        call = self._calls[job.id] = _Call(
            self._handle.options(stream=True).draw.remote(plain, prompt, replica=self.name)
        )
        if self._gone:  # since it was chosen for this job
            asyncio.get_running_loop().call_later(ARRIVAL, call.give_up)
        try:
            async for told in call.items():
                yield told
        except WorkerLostError:
            self._shunned = time.monotonic() + SHUNNED
            raise
        finally:
            del self._calls[job.id]

    async def cancel(self, job: Job) -> None:
        """Stop drawing a job, see `Worker`."""
        call = self._calls.get(job.id)
        if call is not None:
            call.cancel()


class _Call:
    """One call that draws."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._arrived = self._canceled = self._lost = False

    def cancel(self) -> None:
        self._canceled = True
        self._response.cancel()

    def give_up(self) -> None:
        """End it if its replica went before it arrived: nobody will ever take it."""
        if not self._arrived:
            self._lost = True
            self._response.cancel()

    async def items(self) -> AsyncIterator[Told]:
        """Yield what the replica tells.

        Raises:
            DrawError: the job cannot be drawn.
            WorkerLostError: the replica is gone.
        """
        try:
            async for told in self._response:
                self._arrived = True
                yield told
        except RayTaskError as error:
            if self._canceled:
                return
            cause: BaseException = error.cause
            if isinstance(cause, HotswapError):
                raise cause from None
            raise DrawError(
                f"The replica failed: {cause!r}. See its log, and run it again."
            ) from error
        except RayError as error:
            if not self._canceled:
                raise WorkerLostError(f"The replica is gone ({type(error).__name__}).") from error
        except asyncio.CancelledError:
            if self._lost:
                raise WorkerLostError("The replica was gone before the job reached it.") from None
            if not self._canceled:
                self._response.cancel()
                raise


class ClusterPool:
    """All replicas of the application.

    Args:
        cluster: joins or starts the cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._workers: dict[str, ReplicaWorker] = {}
        self._trouble: str | None = _AWAY
        self._jobs = 0
        self._wakes: set[asyncio.Future[None]] = set()

    @property
    def workers(self) -> Sequence[ReplicaWorker]:
        """The replicas that take calls."""
        return list(self._workers.values())

    @property
    def ready(self) -> bool:
        """Whether one can draw, or will be started for the first job."""
        return bool(self._workers) or self._trouble is None

    def waiting(self, jobs: int) -> None:
        """Hear how many jobs wait."""
        self._jobs = jobs

    async def run(self, told: Callable[[], None]) -> None:
        """Keep the replicas known, see `Pool`. What ends that is told, and tried again."""
        while True:
            try:
                await self._follow(told)
            except Exception as error:  # Ray lets through what its many libraries raise
                log.exception("the cluster is lost")
                self._trouble = one_line(str(error), _SAID)
            await asyncio.sleep(AGAIN)

    async def _follow(self, told: Callable[[], None]) -> None:
        """Join the cluster, and follow what happens there."""
        # One thread: Ray starts a cluster by itself when it is asked after it was left.
        thread = ThreadPoolExecutor(1, "ray")
        call = functools.partial(asyncio.get_running_loop().run_in_executor, thread)
        try:
            await call(self._cluster.join)
            _heed_signals_again()
            handle = await call(self._cluster.handle)
            handle.options(stream=True)  # makes the router, which hears of replicas from now on
            while True:
                self._hear(await call(self._cluster.trouble))
                for _ in range(round(ASK / LOOK)):
                    if self._look(handle):
                        told()
                    self._wake(handle)
                    await asyncio.sleep(LOOK)
                    if not self.ready or set(board.replicas(APP)) != set(self._workers):
                        break  # what Ray said may be of before: without a replica its word counts
        finally:
            for wake in self._wakes:
                wake.cancel()
            for name in list(self._workers):
                self._workers.pop(name).gone()
            self._trouble = _AWAY
            await call(self._cluster.leave)
            thread.shutdown(wait=False)

    def _hear(self, trouble: str | None) -> None:
        if trouble and trouble != self._trouble:
            log.warning("the cluster: %s", one_line(trouble, _SAID))
        self._trouble = trouble

    def _look(self, handle: DeploymentHandle[Any]) -> bool:
        """Take up what the router knows; whether there are new replicas."""
        found = board.replicas(APP)
        for name in set(self._workers) - set(found):
            log.info("replica %s takes no more jobs", name)
            self._workers.pop(name).gone()
        fresh = set(found) - set(self._workers)
        for name in fresh:
            log.info("replica %s is ready", name)
            self._workers[name] = ReplicaWorker(name, handle)
        for name, worker in self._workers.items():
            worker.hear(found[name])
        return bool(fresh)

    def _wake(self, handle: DeploymentHandle[Any]) -> None:
        """Keep calls waiting, so that Ray starts replicas for the jobs that wait here.

        Ray routes twice as many calls at a time as there are replicas, and each replica has one
        of ours; so there are no more of these than replicas.
        """
        wanted = min(self._jobs, max(len(self._workers), 1))
        for wake in list(self._wakes)[wanted:]:
            wake.cancel()
        while len(self._wakes) < wanted:
            wake = asyncio.ensure_future(_wait_for_one(handle))
            self._wakes.add(wake)
            wake.add_done_callback(self._wakes.discard)


def _heed_signals_again() -> None:
    """Put our handlers back: Ray has put its own before them, which end the process at once."""
    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.getsignal(each))


async def _wait_for_one(handle: DeploymentHandle[Any]) -> None:
    response = handle.wake.remote()
    try:
        # The replica died meanwhile, or no application can start one: the next look asks again.
        with suppress(RayError, RayServeException):
            await response
    except asyncio.CancelledError:
        response.cancel()
        raise
