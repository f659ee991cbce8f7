"""The loop that gives jobs to workers and ends them: each job once, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from ..errors import DrawError, HotswapError, WorkerLostError
from ..prediction.fill import Prompt
from .changes import Changes, heard
from .job import Event, Job, Kind, Status, Waiting
from .line import Line
from .logs import seed_line
from .metrics import Metrics
from .options import Options
from .outputs import Outputs
from .pick import PATIENCE, Limits, Standing, pick
from .store import Store
from .webhooks import message_id
from .worker import Drawn, Pool, Worker

TICK: Final = 1.0
"""Seconds between two looks at deadlines."""

LOG_PAUSE: Final = 0.25
"""Seconds between two writes of a job's log."""

Write = Callable[[], object]
"""Writes into the store what became of a job."""

log = logging.getLogger(__name__)


class Teller(Protocol):
    """Who tells the webhooks."""

    def poke(self) -> None:
        """Look for messages that are to be delivered."""
        ...

    async def tell(self, job: Job, event: Event) -> None:
        """Tell of something that is told once."""
        ...


@dataclass(frozen=True)
class _Busy:
    """A worker that draws, and whether it had to load the model for that."""

    worker: Worker
    job: Job
    task: asyncio.Task[None]
    loads: bool


class Dispatcher:
    """Runs jobs on workers.

    Args:
        options: how often, how long.
        store: where jobs are.
        outputs: where pictures go.
        pool: who draws.
        changes: told of every change.
        teller: tells the webhooks.
        prompt: gives ComfyUI's prompt for a job, with its pictures in it.
        metrics: counts.
    """

    def __init__(
        self, options: Options, store: Store, outputs: Outputs, pool: Pool,
        changes: Changes, teller: Teller, prompt: Callable[[Job], Awaitable[Prompt]],
        metrics: Metrics,
    ) -> None:  # fmt: skip
        self._options = options
        self._store = store
        self._outputs = outputs
        self.pool = pool
        self._changes = changes
        self._teller = teller
        self._prompt = prompt
        self._metrics = metrics
        self._busy: dict[str, _Busy] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self._wake = asyncio.Event()
        self._line = Line()
        self._ended_at: dict[str, float] = {}
        self._unwritten: list[Write] = []

    # --- what handlers call ---

    def added(self) -> None:
        """Look at the queue: something came."""
        self._wake.set()

    def cancel(self, job_id: str, why: str = "") -> Job | None:
        """Cancel a job that has not ended; it has ended at once. None where it had before."""
        job = self._store.cancel(job_id, time.time(), message=message_id(), text=why)
        if job is None:
            return None
        for busy in self._busy.values():
            if busy.job.id == job_id:
                self._later(self._stop(busy.worker, busy.job))
        self._ended(job)
        return job

    @property
    def busy(self) -> Collection[str]:
        """The names of the workers that draw."""
        return self._busy.keys()

    # --- the loop ---

    async def run(self) -> None:
        """Give out jobs until cancelled."""
        try:
            while True:
                self._wake.clear()
                try:
                    jobs = self._turn()
                except sqlite3.Error as error:  # the disk is full, or somebody holds the file
                    log.error("the database cannot be used now: %s", error)
                    await asyncio.sleep(TICK)
                else:
                    await heard(self._wake, min(TICK, PATIENCE) if jobs else TICK)
        finally:
            tasks = [busy.task for busy in self._busy.values()]
            for task in tasks:
                task.cancel()
            if tasks:  # each takes back what it has left in its ComfyUI
                await asyncio.wait(tasks)

    def _turn(self) -> int:
        """Do what is to be done now; how many jobs wait after that."""
        while self._unwritten:
            self._unwritten[0]()
            del self._unwritten[0]
        for job in self._store.late(time.time()):
            self.cancel(job.id, "Its time was over.\n")
        self._give()
        jobs = self._store.count(Status.QUEUED)
        self.pool.waiting(jobs)
        return jobs

    def _give(self) -> None:
        """Give what waits to whom is free, as far as it is to begin now."""
        up = {worker.name: worker for worker in self.pool.workers if worker.up}
        if up.keys() <= self._busy.keys():
            return
        self._ended_at = {name: at for name, at in self._ended_at.items() if name in up}
        limits = Limits.of(len(up), self._store.usual_seconds())
        waiting = self._store.queued()
        while begun := self._give_one(up, waiting, limits):
            waiting = [job for job in waiting if job is not begun]

    def _give_one(
        self, up: Mapping[str, Worker], waiting: Sequence[Waiting], limits: Limits
    ) -> Waiting | None:
        now = time.time()
        standing = [self._standing(worker) for worker in up.values()]
        line = self._line.order(waiting, now)
        found = pick(line, standing, now, limits)
        job = found and self._store.lease(found[0].id, found[1].name, now)
        if not found or job is None:
            return None
        self._line.start(line, found[0], now)
        worker = up[found[1].name]
        self._count(worker.loaded, job)
        loads = worker.loaded is None or worker.loaded[:2] != job.kind[:2]
        task = asyncio.ensure_future(self._attempt(worker, job))
        self._busy[worker.name] = _Busy(worker, job, task, loads)
        self._changes.tell(job.id)
        return found[0]

    def _standing(self, worker: Worker) -> Standing:
        busy = self._busy.get(worker.name)
        if busy is None:
            ended = self._ended_at.get(worker.name, 0.0)
            return Standing(worker.name, True, worker.loaded, ended)
        # What was given it just now it may not have begun yet.
        return Standing(worker.name, False, busy.job.kind, loads=busy.loads)

    def _count(self, before: Kind | None, job: Job) -> None:
        """Count what the worker has to load for a job, and how long that has waited."""
        if before is not None and before[:2] != job.kind[:2]:
            self._metrics.switches.add(what="model")
        if before is not None and before[2] != job.kind[2]:
            self._metrics.switches.add(what="lora")
        if job.attempt == 1:
            self._metrics.seconds.observe(time.time() - job.created, phase="queue")

    # --- one attempt ---

    async def _attempt(self, worker: Worker, job: Job) -> None:
        log.info("attempt %d on %s", job.attempt, worker.name, extra=_whose(job))
        try:
            self._write(await self._outcome(worker, job))
        finally:
            del self._busy[worker.name]
            self._ended_at[worker.name] = time.time()
            self._wake.set()

    async def _outcome(self, worker: Worker, job: Job) -> Write | None:
        """Draw a job; what is to be written of it then, None where its end is written."""
        try:
            await self._draw(worker, job)
        except WorkerLostError as error:
            return self._lost(job, str(error))
        except HotswapError as error:
            return partial(self._end, job, Status.FAILED, error=str(error))
        except sqlite3.Error as error:
            self._later(self._stop(worker, job))
            return self._lost(job, f"The API's database could not be written ({error}).")
        except Exception:  # whatever it is, the job ends, and whoever waits for it is told
            log.exception("a fault of the API", extra=_whose(job))
            return partial(self._end, job, Status.FAILED, error="The API failed; its log says why.")
        return None

    def _write(self, write: Write | None) -> None:
        """Write what became of a job, or keep that for when it can be written."""
        if write is None:
            return
        try:
            write()
        except sqlite3.Error as error:
            log.error("the end of an attempt cannot be written yet: %s", error)
            self._unwritten.append(write)

    async def _draw(self, worker: Worker, job: Job) -> None:
        self._store.log(job.id, job.attempt, seed_line(int(job.request["seed"])))
        prompt = await self._prompt(job)
        if not self._is_running(job):
            return  # canceled before its worker heard of it
        writing = _Log(self._store, job, self._told)
        drawn = False
        async for told in worker.draw(job, prompt):
            if isinstance(told, Drawn):
                writing.flush()
                await self._keep(job, told)
                drawn = True
            elif not writing.add(told.text):
                await worker.cancel(job)
        writing.flush()
        if not drawn and self._is_running(job):
            raise DrawError("The prompt was interrupted in ComfyUI. Run it again.")

    def _is_running(self, job: Job) -> bool:
        current = self._store.get(job.id)
        return current is not None and current.status is Status.RUNNING

    async def _keep(self, job: Job, drawn: Drawn) -> None:
        """Keep the pictures; they count only if this end is the first one."""
        names: list[str] = []
        ended = None
        try:
            for number, (name, data) in enumerate(drawn.pictures):
                names.append(await self._outputs.keep(job.id, job.attempt, number, name, data))
                self._metrics.stored.add(len(data), what="outputs")
            await self._outputs.publish(job.id, tuple(names))
            ended = self._end(job, Status.SUCCEEDED, files=tuple(names), text=drawn.text)
        finally:
            if ended is None:
                await asyncio.to_thread(self._outputs.drop, job.id, job.attempt)

    def _lost(self, job: Job, why: str) -> Write:
        self._metrics.lost.add()
        log.warning("attempt %d is lost: %s", job.attempt, why, extra=_whose(job))
        if job.attempt < self._options.attempts:
            return partial(self._again, job, f"{why} It is drawn again.\n")
        told = f"Given up after {job.attempt} tries: {why}"
        return partial(self._end, job, Status.FAILED, error=told)

    def _again(self, job: Job, text: str) -> None:
        if self._store.requeue(job.id, job.attempt, text):
            self._changes.tell(job.id)

    def _end(
        self, job: Job, status: Status, *, files: tuple[str, ...] = (), error: str = "",
        text: str = "",
    ) -> Job | None:  # fmt: skip
        ended = self._store.finish(
            job.id, job.attempt, status, time.time(), message=message_id(), files=files,
            error=error, text=text,
        )  # fmt: skip
        if ended is not None:
            if ended.files:
                self._later(self._teller.tell(ended, Event.OUTPUT))
            self._ended(ended)
        return ended

    def _ended(self, job: Job) -> None:
        log.info("%s", job.status.value, extra=_whose(job))
        self._metrics.ended.add(status=job.status.value)
        if job.started is not None and job.completed is not None:
            self._metrics.seconds.observe(job.completed - job.started, phase="run")
        self._changes.tell(job.id)
        self._teller.poke()

    async def _stop(self, worker: Worker, job: Job) -> None:
        try:
            await worker.cancel(job)
        except HotswapError as error:
            log.warning("%s cannot be asked to stop: %s", worker.name, error, extra=_whose(job))

    def _told(self, job: Job) -> None:
        self._changes.tell(job.id)
        self._later(self._tell_logs(job))

    async def _tell_logs(self, job: Job) -> None:
        current = self._store.get(job.id)
        if current is not None and not current.status.ended:
            await self._teller.tell(current, Event.LOGS)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _whose(job: Job) -> dict[str, str]:
    return {"prediction": job.id}


class _Log:
    """Writes the log of an attempt, not more often than clients look."""

    def __init__(self, store: Store, job: Job, told: Callable[[Job], None]) -> None:
        self._store = store
        self._job = job
        self._told = told
        self._text = ""
        self._written = 0.0

    def add(self, text: str) -> bool:
        """Take a piece; whether the attempt still counts."""
        self._text += text
        if time.monotonic() - self._written < LOG_PAUSE:
            return True
        return self.flush()

    def flush(self) -> bool:
        """Write what there is."""
        self._written = time.monotonic()
        running = self._store.log(self._job.id, self._job.attempt, self._text)
        if running and self._text:
            self._told(self._job)
        self._text = ""
        return running
