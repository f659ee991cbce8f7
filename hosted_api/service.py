"""What can be done with predictions, whichever API asks for it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ..errors import CallError
from ..prediction.data_uri import is_data_uri, read_data_uri
from ..prediction.spec import RANDOM_SEED_LIMIT
from .ask import PICTURES, Asked, refused
from .changes import Changes
from .dispatch import Dispatcher
from .job import API, Job, Status, new_id
from .links import Links
from .metrics import Metrics
from .options import Options
from .outputs import Outputs
from .present import Presenter
from .refused import Call, Refused
from .sources import Sources
from .store import Store
from .uploads import Uploads
from .urgency import granted, read_priority
from .webhooks import Webhooks, message_id

REPEAT_SECONDS: Final = 300.0
"""So long a repeated call is known for one."""

LONGEST_KEY: Final = 255
LONGEST_PAUSE: Final = 60
INLINE: Final = 16 * 2**10
"""Letters of the longest picture that stays within a job; a larger one becomes a file."""


@dataclass
class Service:
    """Everything that answers need. Made once, by `app`.

    Attributes:
        faulty: whether something has ended that goes on as long as the API.
        stopping: whether the API ends.
    """

    options: Options
    store: Store
    links: Links
    outputs: Outputs
    present: Presenter
    uploads: Uploads
    sources: Sources
    webhooks: Webhooks
    changes: Changes
    dispatcher: Dispatcher
    metrics: Metrics
    webhook_key: Callable[[str], str]
    clock: Callable[[], float] = time.time
    faulty: bool = False
    stopping: bool = False
    _refused: Refused = field(default_factory=Refused)

    # --- making one ---

    def create(
        self, asked: Asked, owner: str, *, source: str = API, job_id: str = "",
        seconds: float | None = None, again: bool = False, key: str | None = None,
        priority: str = "",
    ) -> Job:  # fmt: skip
        """Return the job of a call: a new one, or the first where the call is a repeated one.

        Args:
            asked: the call.
            owner: who calls.
            source: through which API.
            job_id: the id that the caller wants.
            seconds: after which it is to be canceled.
            again: whether the client says that it repeats the call.
            key: the client's own name of the call.
            priority: what the header of that name says.

        Raises:
            CallError: the queue is full, or the key belongs to another call.
        """
        now = self.clock()
        known = self._known(asked, owner, now, again=again, key=key)
        if known is not None:
            return known
        self._check_room((owner, asked.digest), now)
        self.sources.check(asked.request, owner)
        if asked.webhook:
            self.webhooks.check(asked.webhook)
        seconds = self.options.deadline if seconds is None else seconds
        files = self._as_files(asked, owner, seconds)
        urgency, note = granted(read_priority(priority), owner, self._levels())
        notes = (*asked.notes, *([note] if note else []))
        seed = secrets.randbelow(RANDOM_SEED_LIMIT)
        job = Job(
            id=job_id or new_id(),
            owner=owner,
            source=source,
            model=asked.model,
            version=asked.version,
            input=asked.input | files,
            request={"seed": seed} | asked.request | files,
            created=now,
            deadline=now + seconds,
            logs="".join(f"{each}\n" for each in notes),
            webhook=asked.webhook,
            events=asked.events,
            urgency=urgency,
        )
        self.store.add(job, digest=asked.digest, key=key, message=message_id())
        self.webhooks.poke()
        self.dispatcher.added()
        return job

    def _levels(self) -> dict[str, int] | None:
        """Return how urgent each owner's calls are; None where they need no token."""
        tokens = self.options.tokens
        return {owner_of(token): level for token, level in tokens.items()} or None

    def _known(
        self, asked: Asked, owner: str, now: float, *, again: bool, key: str | None
    ) -> Job | None:
        if key is not None:
            if not 0 < len(key) <= LONGEST_KEY or not key.isprintable():
                raise CallError(
                    422, f"Idempotency-Key: give 1 to {LONGEST_KEY} printable characters."
                )
            found = self.store.keyed(owner, key)
            if found is not None and found[1] not in ("", asked.digest):
                raise CallError(422, "Idempotency-Key: it belongs to another call; use a new one.")
            return found and found[0]
        since = now - REPEAT_SECONDS
        if not again or self._refused.take((owner, asked.digest), since):
            return None
        return self.store.repeated(owner, asked.digest, since)

    def _check_room(self, call: Call, now: float) -> None:
        waiting = self.store.count(Status.QUEUED)
        if waiting < self.options.queue:
            return
        self._refused.add(call, now)
        # One place gets free when the next job of any worker ends.
        up = sum(worker.up for worker in self.dispatcher.pool.workers) or 1
        seconds = min(max(math.ceil(self.store.usual_seconds() / up), 1), LONGEST_PAUSE)
        raise CallError(
            429,
            f"{waiting} predictions wait already. Ask again in {seconds} s.",
            title="Queue is full",
            retry_after=seconds,
        )

    def _as_files(self, asked: Asked, owner: str, seconds: float) -> dict[str, str]:
        """Return the addresses of pictures that are kept as files now, as long as the job.

        Those that came as data, and those that were drawn here, which go with their own job.

        Raises:
            CallError: one is broken, or there is no room.
        """
        found: dict[str, str] = {}
        for name in PICTURES:
            data = self._data_of(name, str(asked.request.get(name) or ""))
            if data is not None:
                found[name] = self.uploads.keep(owner, name, data, seconds)
        return found

    def _data_of(self, name: str, text: str) -> bytes | None:
        drawn = self.outputs.find(text)
        if drawn is not None:
            return drawn.read_bytes()
        if not is_data_uri(text) or len(text) <= INLINE:
            return None
        try:
            return read_data_uri(text)
        except ValueError as error:
            raise refused([(name, str(error))]) from None

    # --- looking and waiting ---

    def get(self, job_id: str, owner: str) -> Job:
        """Return an owner's job.

        Raises:
            CallError: there is none.
        """
        job = self.store.get(job_id)
        if job is None or not hmac.compare_digest(job.owner, owner):
            raise CallError(
                404, "There is no such prediction. Check its id and the token.", title="Not found"
            )
        return job

    async def wait(self, job: Job, seconds: float) -> Job:
        """Return a job when it has ended, or as it is after so long."""
        end = time.monotonic() + seconds
        while not job.status.ended and (left := end - time.monotonic()) > 0:
            await self.changes.wait(job.id, min(left, 5.0))
            job = self.store.get(job.id) or job
        return job

    def cancel(self, job: Job) -> Job:
        """Cancel a job; one that has ended stays as it is."""
        return self.dispatcher.cancel(job.id) or self.store.get(job.id) or job

    def measured(self) -> str:
        """Return the counts as Prometheus reads them."""
        metrics, now = self.metrics, self.clock()
        first = self.store.queued()
        metrics.queued.set(self.store.count(Status.QUEUED))
        metrics.running.set(self.store.count(Status.RUNNING))
        metrics.oldest.set(now - min(job.created for job in first) if first else 0.0)
        workers = self.dispatcher.pool.workers
        metrics.workers.set(sum(worker.up for worker in workers), state="up")
        metrics.workers.set(len(self.dispatcher.busy), state="busy")
        metrics.drawing.clear()
        metrics.memory.clear()
        for worker in workers:
            metrics.drawing.set(worker.name in self.dispatcher.busy, worker=worker.name)
            for what, size in worker.facts.items():
                metrics.memory.set(size, worker=worker.name, what=what)
        return metrics.text()

    async def sweep(self) -> None:
        """Remove what is too old."""
        now = self.clock()
        for job_id in self.store.forget(now - self.options.keep):
            await asyncio.to_thread(self.outputs.drop, job_id)
        self.store.drop(now - self.options.keep_rows)
        self.uploads.sweep(now)


def owner_of(token: str) -> str:
    """Return whose token it is: a name that does not tell the token."""
    return hashlib.sha256(f"flux-hotswap owner {token}".encode()).hexdigest()[:16]
