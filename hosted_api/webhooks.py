"""Telling a client's server what becomes of its prediction.

Messages that must arrive lie in the store: of the start, which is sent once, and of the end, which
is sent again until somebody takes it or `PAUSES` are over. What happens in between is told as it
comes, at most twice a second for a job. Signed as Standard Webhooks; redirects are not followed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

from ..errors import HotswapError, OfflineError
from ..files.addresses import origin
from ..files.settings import Settings
from .changes import heard
from .job import Event, Job, Status
from .links import PREFIX
from .post import check_form, post
from .store import Message, Store

PAUSES: Final = (1.0, 3.0, 8.0, 20.0, 45.0, 90.0)
"""Seconds from each try of the end's message to the next; after the last it is given up."""

THROTTLE: Final = 0.5
"""Seconds from one message of what happens in between to the next of the same job."""

_AT_ONCE: Final = 16
_AT_ONE_PLACE: Final = 2
"""So many messages are on their way to one origin, so that a slow one does not hold the others."""

_READ: Final = 100
"""Messages that are looked at, those to origins left out that have as many as they get."""

_AGAIN: Final = 1.0
"""Seconds until the store is asked again where it could not be."""

_GONE: Final = 410
_DELIVERED, _FAILED, _REFUSED, _GIVEN_UP = "delivered", "failed", "refused", "given_up"

log = logging.getLogger(__name__)


def message_id() -> str:
    """Return an id for a message; it is the same at every try."""
    return f"msg_{secrets.token_urlsafe(18)}"


def signature(secret: str, id: str, timestamp: int, body: bytes) -> str:  # noqa: A002 - the header's
    """Return what proves that a message is ours.

    Args:
        secret: `whsec_` and base64.
        id: of the message.
        timestamp: seconds since 1970.
        body: as it is sent.
    """
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.digest(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


class Webhooks:
    """Everything that goes to webhooks.

    Args:
        store: holds the messages that must arrive.
        settings: which addresses are allowed.
        key_of: gives the key that signs an owner's messages; `whsec_` and base64.
        view: gives what a job looks like.
        clock: seconds since 1970.
        count: told of each try: the event, and delivered, failed, refused or given_up.
    """

    def __init__(
        self, store: Store, settings: Settings, key_of: Callable[[str], str],
        view: Callable[[Job], dict[str, Any]],
        clock: Callable[[], float], count: Callable[[str, str], None] | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._settings = settings
        self._key_of = key_of
        self._view = view
        self._clock = clock
        self._told = count
        self._wake = asyncio.Event()
        self._busy: Counter[str] = Counter()
        self._places: Counter[str] = Counter()
        self._between: dict[str, tuple[Job, Event]] = {}
        self._telling: set[str] = set()
        self._unwritten: dict[str, float | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def check(self, url: str) -> None:
        """Make sure that an address may be told, as far as its form tells.

        Raises:
            RefusedError: it may not.
        """
        check_form(url, self._settings)

    def poke(self) -> None:
        """Look for messages now: one was added."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver messages until it is cancelled; what is on its way then is sent again later."""
        try:
            while True:
                self._wake.clear()
                try:
                    self._begin()
                    pause = self._pause()
                except sqlite3.Error as error:
                    log.error("messages cannot be looked up now: %s", error)
                    pause = _AGAIN
                await heard(self._wake, pause)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def tell(self, job: Job, event: Event) -> None:
        """Tell of what happens in between; it does not wait for that.

        Of what comes within `THROTTLE` only the newest is told, and nothing is told twice.
        """
        if not job.webhook or event.value not in job.events:
            return
        self._between[job.id] = (job, event)
        if job.id not in self._telling:
            self._telling.add(job.id)
            self._start(self._tell(job.id))

    # --- messages that must arrive ---

    def _begin(self) -> None:
        """Send what is due and can be sent now."""
        for message, due in list(self._unwritten.items()):
            self._write(message, due)  # else nothing goes: it would be sent again and again
        begun = True
        while begun and self._busy.total() < _AT_ONCE:
            full = [place for place, many in self._places.items() if many >= _AT_ONE_PLACE]
            messages = self._store.messages(self._clock(), _READ, full)
            begun = sum(self._begin_one(message) for message in messages) > 0

    def _begin_one(self, message: Message) -> bool:
        """Send a message if it can be sent now: one of a job at a time, in order.

        Returns:
            Whether it is out of the way of those behind it.
        """
        if message.job in self._busy or message.job in self._between:
            return False
        job = self._store.get(message.job)
        if job is None or not job.webhook:
            self._write(message.id, None)
            return True
        if self._busy.total() >= _AT_ONCE or self._places[origin(job.webhook)] >= _AT_ONE_PLACE:
            return False
        self._take(job)
        self._start(self._deliver(message, job))
        return True

    def _write(self, message: str, due: float | None) -> None:
        """Write when a message is to be sent again, or for None that it is not."""
        self._unwritten[message] = due
        if due is None:
            self._store.delivered(message)
        else:
            self._store.postpone(message, due)
        del self._unwritten[message]

    def _pause(self) -> float | None:
        """Return the seconds until there is something to do that nobody pokes for."""
        due = self._store.next_due()
        # One that is due waits for another that is on its way, which pokes; a second is for safety.
        return None if due is None else max(due - self._clock(), 0.0) or 1.0

    async def _deliver(self, message: Message, job: Job) -> None:
        event = Event(message.event)
        told = job if event is Event.COMPLETED else _at_start(job)
        try:
            outcome = await self._send(told, event, message.id)
        finally:
            self._give(job)
        again = event is Event.COMPLETED and outcome == _FAILED
        left = again and message.tries < len(PAUSES)
        outcome = _GIVEN_UP if again and not left else outcome
        try:
            self._write(message.id, self._clock() + PAUSES[message.tries] if left else None)
        except sqlite3.Error as error:
            log.error("what became of a message cannot be written now: %s", error)
        self._count(event, outcome)
        self.poke()

    # --- what happens in between ---

    async def _tell(self, job_id: str) -> None:
        try:
            while (newest := self._between.get(job_id)) is not None:
                await self._tell_one(*newest)
                if self._between[job_id] is newest:
                    del self._between[job_id]
                self.poke()  # the end's message may have waited for this one
                await asyncio.sleep(THROTTLE)
        finally:
            self._between.pop(job_id, None)
            self._telling.discard(job_id)

    async def _tell_one(self, job: Job, event: Event) -> None:
        current = self._store.get(job.id)
        ended = current is None or current.status.ended
        if ended and not job.status.ended:
            return  # the end's message says more
        self._take(job)
        try:
            self._count(event, await self._send(job, event, message_id()))
        finally:
            self._give(job)

    # --- parts ---

    async def _send(self, job: Job, event: Event, message: str) -> str:
        """Send one message and return how it went; nothing is raised but the end of the program."""
        place, whose = origin(job.webhook), {"prediction": job.id}
        try:
            body = json.dumps(self._view(job)).encode()
            now = int(self._clock())
            headers = {
                "webhook-id": message,
                "webhook-timestamp": str(now),
                "webhook-signature": signature(self._key_of(job.owner), message, now, body),
            }
            status = await post(job.webhook, body, headers, self._settings)
        except OfflineError as error:
            log.warning("%s could not be told of %s: %s", place, event.value, error, extra=whose)
            return _FAILED
        except HotswapError as error:
            log.warning("%s is not told of %s: %s", place, event.value, error, extra=whose)
            return _REFUSED
        except Exception:  # it is tried again, and the others are told meanwhile
            log.exception("a webhook's message of %s failed", event.value, extra=whose)
            return _FAILED
        if 200 <= status < 300:
            return _DELIVERED
        log.warning("%s answered %d to %s", place, status, event.value, extra=whose)
        return _REFUSED if status < 400 or status == _GONE else _FAILED

    def _count(self, event: Event, outcome: str) -> None:
        if self._told is not None:
            self._told(event.value, outcome)

    def _take(self, job: Job) -> None:
        self._busy[job.id] += 1
        self._places[origin(job.webhook)] += 1

    def _give(self, job: Job) -> None:
        for counter, key in ((self._busy, job.id), (self._places, origin(job.webhook))):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _at_start(job: Job) -> Job:
    """Return a job as it was when it began: its message may be late."""
    return replace(
        job, status=Status.QUEUED, started=None, completed=None, files=(), error="", logs=""
    )
