"""Several connections for one file: pieces in order, each written to its own place.

A connection that fails gives its piece back and ends, so a server that allows only a few of them is
left with those. When the last one fails, its error is the caller's.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator

from ..errors import OfflineError, RefusedError
from .answer import Answer
from .disk import disk_errors
from .net import Client
from .part import Part
from .pump import Producer
from .validators import content_range, validator

__all__ = ["Pieces"]

MIN_PIECE = 512 * 1024

logger = logging.getLogger(__name__)


class Pieces:
    """The part of a file from ``start`` to ``end``, on its way over several connections."""

    def __init__(
        self, *, url: str, label: str, part: Part, client: Client, start: int, end: int
    ) -> None:
        self._url = url
        self._label = label
        self._part = part
        self._client = client
        self._total = end
        self._lock = threading.Lock()
        self._todo = deque([(start, end)])
        self._done: dict[int, int] = {}
        self._prefix = start
        self._alive = min(client.settings.connections, -(-(end - start) // MIN_PIECE))
        self._open = True

    def workers(self) -> list[Producer[int]]:
        """One producer a connection; they yield how many bytes they wrote."""
        return [self._work] * self._alive

    def prefix(self) -> int:
        """Up to where the file has no hole."""
        with self._lock:
            while self._prefix in self._done:
                self._prefix = self._done.pop(self._prefix)
            return self._prefix

    def close(self) -> None:
        """From now on nothing is written, whatever still arrives."""
        with self._lock:
            self._open = False

    def _work(self, stop: threading.Event) -> Iterator[int]:
        piece = self._claim()
        while piece is not None:
            at, end = piece
            try:
                for chunk in self._receive(at, end, stop):
                    self._write(at, chunk)
                    at += len(chunk)
                    yield len(chunk)
                if at < end:
                    raise OfflineError(f"{self._label}: a connection ended early. Try again.")
            except OfflineError as error:
                if self._give_back(piece[0], at, end):
                    raise
                logger.info("%s Going on with fewer connections.", error)
                return
            self._give_back(piece[0], at, end)
            piece = self._claim()

    def _receive(self, at: int, end: int, stop: threading.Event) -> Iterator[bytes]:
        headers = {"Range": f"bytes={at}-{end - 1}"}
        if self._part.note.validator:
            headers["If-Range"] = self._part.note.validator
        with self._request(headers) as answer:
            if not self._fits(answer, at, end):
                raise OfflineError(
                    f"{self._label}: the server does not send pieces (HTTP {answer.status}). Try "
                    "again."
                )
            yield from answer.chunks(stop)

    def _request(self, headers: dict[str, str]) -> Answer:
        try:
            return self._client.request("GET", self._url, headers=headers)
        except RefusedError as error:  # one connection alone is asked again, and says it
            raise OfflineError(str(error)) from None

    def _fits(self, answer: Answer, at: int, end: int) -> bool:
        state, expected = validator(answer), self._part.note.validator
        return (
            answer.status == 206
            and answer.header("Content-Length") == str(end - at)
            and content_range(answer) == (at, end, self._total)
            and state == expected
        )

    def _write(self, at: int, chunk: bytes) -> None:
        with self._lock:
            if not self._open:
                return
            with disk_errors(self._part.path), self._part.path.open("r+b", buffering=0) as file:
                file.seek(at)
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) :]

    def _claim(self) -> tuple[int, int] | None:
        """The next piece: a smaller one towards the end, so that all connections end together."""
        with self._lock:
            if not self._todo:
                return None
            left = sum(end - at for at, end in self._todo)
            size = left // (2 * self._alive)
            size = min(max(size, MIN_PIECE), self._client.settings.piece_bytes)
            at, end = self._todo.popleft()
            if at + size < end:
                self._todo.appendleft((at + size, end))
            return at, min(at + size, end)

    def _give_back(self, start: int, at: int, end: int) -> bool:
        """Note what of a piece is written; the rest, if any, is for another connection.

        Returns:
            Whether no connection is left for it.
        """
        with self._lock:
            if at > start:
                self._done[start] = at
            if at == end:
                return False
            self._todo.appendleft((at, end))
            self._alive -= 1
            return self._alive == 0
