"""What is done with files on the disk, once for all: errors in words, hashes, whole writes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from ..errors import NoRoomError, StoreError

__all__ = ["BLOCK", "FLUSH", "Behind", "disk_errors", "hash_of", "write_whole"]

BLOCK: Final = 2**20
"""Bytes that are read at once."""

FLUSH: Final = 32 * 2**20
"""So many bytes are written before the disk is asked to keep them, beside the writing."""

_TRIES: Final = 20
_PAUSE: Final = 0.01
"""Seconds between two tries to replace a file that somebody reads."""

_FULL: Final = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextlib.contextmanager
def disk_errors(path: Path) -> Generator[None, None, None]:
    """Say what a failing disk means.

    Raises:
        NoRoomError: the disk or the quota is full.
        StoreError: anything else.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoRoomError(
                f"{path.parent} is full: {error.strerror}. Free some space, or run "
                "'python -m lora_fetch prune'."
            ) from error
        raise StoreError(
            f"{path} cannot be used: {error.strerror or error}. Check the folder's permissions."
        ) from error


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    buffer = bytearray(BLOCK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while got := file.readinto(buffer):
            digest.update(view[:got])
    return digest.hexdigest()


def write_whole(path: Path, text: str, *, by: Path) -> None:
    """Write a small file whole or not at all: whoever reads it finds the old one or the new one.

    Args:
        path: The file.
        text: What is to be in it.
        by: Where it is written first, on the same disk. Only the holder of a lock writes there.

    Raises:
        OSError: the disk does not let us.
    """
    by.write_text(text, encoding="utf-8")
    for _ in range(_TRIES):
        if _replaced(by, path):
            return
        time.sleep(_PAUSE)
    by.replace(path)


def _replaced(fresh: Path, target: Path) -> bool:
    """Windows refuses while somebody reads the old file, which takes a moment at most."""
    try:
        fresh.replace(target)
    except PermissionError:
        return False
    return True


class Behind:
    """Does one thing at a time in a thread while the caller goes on.

    Hashing and flushing let go of the interpreter, so they run beside the next read and write.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool: ThreadPoolExecutor | None = None
        self._last: Future[object] | None = None

    def start(self, call: Callable[..., object], *args: object) -> None:
        """Begin a call when the one before has ended; what that one raised is raised here."""
        self.wait()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, self._name)
        self._last = self._pool.submit(call, *args)

    def idle(self) -> bool:
        """Whether nothing runs."""
        return self._last is None or self._last.done()

    def wait(self) -> None:
        """Wait for the last call; what it raised is raised here."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Let the last call end, and the thread; what the call raised no longer matters."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = self._last = None
