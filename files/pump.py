"""Runs something that waits (a connection, a read) beside a caller that must not.

The caller gets each item as it comes and a tick in between, so it can count, hash, write, notice a
stall and stop at once when it is told to, however long the other side keeps silent.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from ..errors import CancelledError, FetchError, OfflineError
from .settings import Settings

__all__ = ["Producer", "Watch", "ask", "cancel_check", "pump", "wait"]

T = TypeVar("T")
Producer: TypeAlias = Callable[[threading.Event], Iterator[T]]
"""Makes the items; the event tells it that nobody listens any more."""

TICK = 0.05
AHEAD = 2
"""Items that each thread may be ahead: few, so that what is handed on is still in the caches."""


@dataclass(frozen=True)
class _Item(Generic[T]):
    value: T


class _Pump(Generic[T]):
    """The queue between the threads and the caller."""

    def __init__(self, producers: Sequence[Producer[T]]) -> None:
        self.items: queue.Queue[_Item[T] | FetchError | None] = queue.Queue(AHEAD * len(producers))
        self.stop = threading.Event()
        self.running = len(producers)
        for produce in producers:
            threading.Thread(
                target=self._run, args=(produce,), name="lora-fetch", daemon=True
            ).start()

    def get(self) -> _Item[T] | FetchError | None:
        """The next item; None when none came within a tick. A thread's end counts as no item."""
        try:
            item = self.items.get(timeout=TICK)
        except queue.Empty:
            return None
        if item is None:
            self.running -= 1
        return item

    def _run(self, produce: Producer[T]) -> None:
        try:
            for value in produce(self.stop):
                self._put(_Item(value))
        except FetchError as error:
            self._put(error)
        finally:
            self._put(None)

    def _put(self, item: _Item[T] | FetchError | None) -> None:
        while not self.stop.is_set():
            if self._offer(item):
                return

    def _offer(self, item: _Item[T] | FetchError | None) -> bool:
        try:
            self.items.put(item, timeout=TICK)
        except queue.Full:
            return False
        return True


def pump(
    producers: Sequence[Producer[T]], *, cancelled: Callable[[], bool]
) -> Generator[T | None, None, None]:
    """Run generators in threads and yield their items as they come, and None while none comes.

    Args:
        producers: One thread runs each.
        cancelled: Asked at every step.

    Raises:
        CancelledError: ``cancelled`` said so.
        FetchError: the first that a generator raised.
    """
    source = _Pump(producers)
    try:
        while source.running:
            cancel_check(cancelled)
            item = source.get()
            if isinstance(item, FetchError):
                raise item
            yield item.value if item is not None else None
    finally:
        source.stop.set()


def ask(call: Callable[[], T], *, seconds: float, cancelled: Callable[[], bool]) -> T:
    """Call something that may wait long, and stop waiting when cancelled.

    Args:
        call: What is called, in a thread of its own.
        seconds: So long it may take.
        cancelled: Asked meanwhile.

    Raises:
        CancelledError: ``cancelled`` said so.
        OfflineError: it takes longer.
        FetchError: the one that the call raised.
    """
    end = time.monotonic() + seconds

    def once(_: threading.Event) -> Iterator[_Item[T]]:
        yield _Item(call())

    for value in pump([once], cancelled=cancelled):
        if value is not None:
            return value.value
        if time.monotonic() > end:
            raise OfflineError(f"There was no whole answer in {seconds:.0f} s. Try again later.")
    raise AssertionError("the call ended without an answer")


def wait(seconds: float, *, sleep: Callable[[float], None], cancelled: Callable[[], bool]) -> None:
    """Sleep in short steps, so that a cancel is heard.

    Raises:
        CancelledError: ``cancelled`` said so.
    """
    while seconds > 0:
        cancel_check(cancelled)
        step = min(seconds, 0.2)
        sleep(step)
        seconds -= step
    cancel_check(cancelled)


def cancel_check(cancelled: Callable[[], bool]) -> None:
    """Raise when the caller wants to stop.

    Raises:
        CancelledError: ``cancelled`` said so.
    """
    if cancelled():
        raise CancelledError("The fetch was cancelled. What has arrived is kept for the next try.")


def pause(error: OfflineError, failures: int, settings: Settings) -> float:
    """Seconds to wait before the next try; raises the error when there is none.

    Raises:
        OfflineError: the one given.
    """
    asked = error.retry_after or 0.0
    if not error.transient or failures >= settings.attempts or asked > settings.max_wait:
        raise error
    return max(asked, min(settings.backoff * 2 ** (failures - 1), settings.max_wait))


class Watch:
    """Measures a transfer, and notices one that only drips."""

    def __init__(self, settings: Settings, label: str) -> None:
        self._settings = settings
        self._label = label
        self._began = self._window = settings.monotonic()
        self._bytes = self._recent = 0

    def count(self, got: int) -> None:
        """Note the bytes that came since the last call.

        Raises:
            OfflineError: too few came for too long.
        """
        self._bytes += got
        self._recent += got
        now = self._settings.monotonic()
        if now - self._window >= self._settings.stall_seconds:
            if self._recent < self._settings.stall_bytes:
                raise OfflineError(
                    f"{self._label}: the transfer has all but stopped. Try again later."
                )
            self._window, self._recent = now, 0

    def slow(self) -> bool:
        """Whether it has run long enough to be judged, and more connections may help."""
        passed = self._settings.monotonic() - self._began
        return passed >= self._settings.probe_seconds and (
            self._bytes < passed * self._settings.fast_enough
        )
