"""Brings the bytes here: resumes, tries again, splits a slow transfer over several connections.

The caller holds the lock of the part. Sizes, hashes and the state of the remote file are compared
wherever they are known; a file that changed in between is begun again, never mixed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadFileError, FetchError, NoRoomError, OfflineError, RefusedError
from .addresses import origin
from .answer import Answer
from .explain import Asked
from .header import PAGE, looks_like
from .net import Client
from .note import Note
from .parallel import Pieces
from .part import FileSink, Part, Room
from .pump import Watch, pause, pump, wait
from .validators import content_range, length, validator

__all__ = ["Arrived", "Download", "Remote"]

PROGRESS = 64 * 1024
HEAD = 512
TELL_SECONDS = 0.1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remote:
    """Where the bytes of a file are, and what its source says about them."""

    url: str
    tar: bool = False
    """It is a tar. Size and hash are the tar's own, and rarely published."""
    size: int | None = None
    sha256: str | None = None
    revision: str | None = None
    """What tells one state of a moving name from the next."""


@dataclass(frozen=True)
class Arrived:
    """A file that is whole, still under its temporary name."""

    path: Path
    size: int
    sha256: str
    validator: str | None


class Download:
    """One file on its way."""

    def __init__(
        self,
        asked: Asked,
        remote: Remote,
        part: Part,
        *,
        client: Client,
        room: Room,
        progress: Callable[[int, int | None], None],
        cancelled: Callable[[], bool],
    ) -> None:
        """Prepare.

        Args:
            asked: What is fetched, for messages.
            remote: Where it is.
            part: Where its bytes go.
            client: Sends the requests.
            room: Makes sure that bytes can be written, or raises NoRoomError.
            progress: Told the bytes so far and in all, when that is known.
            cancelled: Asked often.
        """
        self._asked = asked
        self._remote = remote
        self._part = part
        self._client = client
        self._settings = client.settings
        self._room = room
        self._progress = progress
        self._cancelled = cancelled
        self._label = asked.shown
        self._ranges = False
        self._alone = False
        self._url = remote.url
        self._told = -TELL_SECONDS
        self._refusal: FetchError | None = None
        self._sink = FileSink(part, label=asked.shown, tar=remote.tar)

    def run(self) -> Arrived:
        """Fetch the whole file and compare it with what the source publishes.

        Raises:
            FetchError: it cannot be had, or is not what was promised.
        """
        try:
            resumed = self._adopt()
            size, digest = self._fetch()
            if resumed and self._wrong(size, digest):
                logger.warning("%s: what an earlier try left does not fit. Once more.", self._label)
                self._sink.restart()
                size, digest = self._fetch()
            why = self._wrong(size, digest)
            if why:
                raise BadFileError(f"{self._label}: {why} Try again later, or ask its author.")
        except (BadFileError, RefusedError, NoRoomError) as error:
            self._sink.close()
            if error is not self._refusal or not self._sink.position:
                self._part.remove()
            raise
        finally:
            self._sink.close()
        self._progress(self._sink.position, self._sink.position)
        state = self._part.note.validator
        self._part.forget_note()
        return Arrived(self._part.path, size, digest, state)

    def _adopt(self) -> bool:
        """Take over what an earlier try left, if it is surely of the same file."""
        have = self._part.load()
        note, remote = self._part.note, self._remote
        if note.sha256 != remote.sha256:
            same = False
        elif remote.sha256 or (remote.revision and note.revision == remote.revision):
            same = True
        else:
            same = note.validator is not None
        if not have or not same:
            self._part.remove()
            return False
        self._sink.resume(have)
        return self._sink.position > 0

    def _wrong(self, size: int, digest: str) -> str | None:
        """What is wrong with the whole file, or None."""
        expected = self._remote
        if expected.size is not None and size != expected.size:
            return f"it has {size} bytes and the source says {expected.size}."
        if expected.sha256 is not None and digest != expected.sha256:
            return f"its SHA-256 is {digest} and the source says {expected.sha256}."
        return None

    def _fetch(self) -> tuple[int, str]:
        failures = 0
        while True:
            before = self._sink.position
            try:
                self._attempt()
                return self._sink.finish()
            except OfflineError as error:
                gained = self._sink.position - before >= PROGRESS
                failures = 1 if gained else failures + 1
                seconds = pause(error, failures, self._settings)
                logger.info("%s Waiting %.1f s.", error, seconds)
            wait(seconds, sleep=self._settings.sleep, cancelled=self._cancelled)

    def _attempt(self) -> None:
        if self._stream():
            return
        try:
            self._split(self._part.note.total or 0)
        except OfflineError:
            self._alone = True
            raise

    def _stream(self) -> bool:
        """Take the rest over one connection.

        Returns:
            Whether it is complete; if not, several connections may be faster.
        """
        if self._sink.position and not self._known():
            self._sink.restart()
        watch: Watch | None = None
        with closing(pump([self._receive], cancelled=self._cancelled)) as items:
            for item in items:
                if isinstance(item, Answer):
                    if self._begin(item):
                        return True
                    watch = Watch(self._settings, self._label)
                elif watch is not None:
                    self._take(item or b"", watch)
                    if self._splittable() and watch.slow():
                        return False
        total = self._part.note.total
        if total is not None and self._sink.position < total:
            raise OfflineError(
                f"{self._label}: the transfer ended after {self._sink.position} of {total} bytes. "
                "Try again."
            )
        return True

    def _known(self) -> bool:
        """Whether it can be told if the rest belongs to what is here."""
        note = self._part.note
        return bool(note.validator or note.sha256 or note.revision)

    def _take(self, chunk: bytes, watch: Watch) -> None:
        if chunk:
            here, total = self._sink.position, self._part.note.total
            self._limit(here + len(chunk))
            if total is not None and here + len(chunk) > total:
                raise BadFileError(
                    f"{self._label}: the server sends more than it says. Try again later."
                )
            if total is None:
                self._unannounced(len(chunk), here)
            self._sink.write(chunk)
            self._tell(self._sink.position)
        watch.count(len(chunk))

    def _unannounced(self, size: int, here: int) -> None:
        """Judge bytes of a file of unknown length as they come."""
        published = self._remote.size
        if published is not None and here + size > published:
            raise BadFileError(
                f"{self._label}: the server sends more than the {published} bytes that the source "
                "says. Try again later, or ask its author."
            )
        self._room(size, here)

    def _tell(self, done: int) -> None:
        now = self._settings.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            self._progress(done, self._part.note.total)

    def _receive(self, stop: threading.Event) -> Iterator[Answer | bytes]:
        position, note = self._sink.position, self._part.note
        headers = {"Range": f"bytes={position}-"}
        if position and note.validator:
            headers["If-Range"] = note.validator
        try:
            with self._client.request("GET", self._remote.url, headers=headers) as answer:
                if answer.status not in (200, 206, 416):
                    raise self._failure(answer)
                kind = answer.header("Content-Type")
                if "html" in kind and looks_like(answer.peek(HEAD)) == PAGE:
                    raise self._asked.page(answer)
                yield answer
                yield from answer.chunks(stop)
        except FetchError as error:
            self._refusal = error  # of this answer: it says nothing against what is here
            raise

    def _begin(self, answer: Answer) -> bool:
        """Judge the head of the answer.

        Returns:
            Whether everything had arrived before.
        """
        position, total = self._sink.position, None
        span = content_range(answer)
        if answer.status == 416:
            return self._nothing_more(answer)
        if answer.status == 206 and span:
            total = span[2]
            self._same_or_restart(answer, span[0], total)
        else:
            if answer.status == 200:
                total = length(answer.header("Content-Length"))
            if position:
                self._sink.restart()
        self._ranges = answer.status == 206 and total is not None
        self._url = answer.url
        self._limit(total or 0)
        self._promised(total)
        self._room(max(0, (total or 0) - self._sink.position), self._sink.position)
        remote = self._remote
        self._part.note = Note(
            validator=validator(answer),
            revision=remote.revision,
            sha256=remote.sha256,
            total=total,
        )
        self._part.save()
        return False

    def _same_or_restart(self, answer: Answer, start: int, total: int | None) -> None:
        """The rest of a file must be of the very file whose start is here."""
        note, position = self._part.note, self._sink.position
        state = validator(answer)
        changed = (position and note.total not in (None, total)) or (
            position and note.validator and state and note.validator != state
        )
        if start != position or changed:
            self._sink.restart()
            raise OfflineError(f"{self._label}: the file changed at its source. Try again.")

    def _nothing_more(self, answer: Answer) -> bool:
        """The server says that there is nothing after what is here: right, or start again."""
        total = answer.header("Content-Range").rpartition("/")[2]
        if self._sink.position and total == str(self._sink.position):
            return True
        self._sink.restart()
        raise OfflineError(f"{self._label}: the server refuses to go on. Try again.")

    def _failure(self, answer: Answer) -> FetchError:
        moved = origin(answer.url) != origin(self._remote.url)
        if answer.status < 400 or (moved and answer.status in (400, 401, 403)):
            return self._asked.withheld(answer, self._settings)
        return self._asked.failure(answer, self._settings)

    def _promised(self, total: int | None) -> None:
        size = self._remote.size
        if size is not None and total is not None and total != size:
            raise BadFileError(
                f"{self._label}: the server has {total} bytes and the source says {size}. Try "
                "again later, or ask its author."
            )

    def _limit(self, size: int) -> None:
        if size > self._settings.max_bytes:
            raise RefusedError(
                f"{self._label} is larger than the limit of {self._settings.max_bytes} bytes. "
                "Raise FLUX_HOTSWAP_MAX_SIZE if you want it."
            )

    def _splittable(self) -> bool:
        """Whether the rest could come over several connections, and is worth it."""
        note, settings = self._part.note, self._settings
        return (
            self._ranges
            and not self._alone
            and settings.connections > 1
            and (note.validator or note.sha256) is not None
            and (note.total or 0) - self._sink.position >= settings.parallel_from
        )

    def _split(self, total: int) -> None:
        """Take the rest over several connections."""
        sink = self._sink
        pieces = Pieces(
            url=self._url,
            label=self._label,
            part=self._part,
            client=self._client,
            start=sink.position,
            end=total,
        )
        sink.begin()
        self._part.note.have = sink.position
        self._part.save()
        try:
            self._collect(pieces)
            if sink.position < total:
                raise OfflineError(f"{self._label}: the connections ended early. Try again.")
        finally:
            pieces.close()
            sink.resume(sink.position)

    def _collect(self, pieces: Pieces) -> None:
        """Wait for the pieces, and hash the file as its start grows."""
        note, sink = self._part.note, self._sink
        watch, arrived = Watch(self._settings, self._label), sink.position
        with closing(pump(pieces.workers(), cancelled=self._cancelled)) as items:
            for got in items:
                arrived += got or 0
                watch.count(got or 0)
                self._tell(arrived)
                if pieces.prefix() > sink.position:
                    sink.absorb(pieces.prefix())
                    note.have = sink.position
                    self._part.save()
