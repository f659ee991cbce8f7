"""A lock that holds between threads and between processes, and ends with its process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import BinaryIO

from ..errors import StoreError
from .pump import cancel_check

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _take(file: BinaryIO) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _give(file: BinaryIO) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _take(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _give(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


__all__ = ["locked", "try_lock"]

POLL = 0.05


@contextlib.contextmanager
def locked(
    path: Path, *, sleep: Callable[[float], None], cancelled: Callable[[], bool]
) -> Generator[None, None, None]:
    """Hold the lock of this name; wait for it as long as it takes.

    The file stays behind: removing it would let two holders each lock a file of that name.

    Raises:
        CancelledError: ``cancelled`` said so while waiting.
        StoreError: this disk cannot lock files.
    """
    with contextlib.ExitStack() as stack:
        while not stack.enter_context(try_lock(path)):
            stack.pop_all().close()
            cancel_check(cancelled)
            sleep(POLL)
        yield


@contextlib.contextmanager
def try_lock(path: Path) -> Generator[bool, None, None]:
    """Hold the lock if nobody else does; tell whether it is held.

    Raises:
        StoreError: this disk cannot lock files.
    """
    try:
        file = path.open("ab")
    except OSError as error:
        raise StoreError(
            f"{path} cannot be opened: {error.strerror or error}. Check the folder's permissions."
        ) from error
    with file:
        try:
            _take(file)
        except (BlockingIOError, PermissionError):  # held: POSIX says the first, Windows the second
            yield False
            return
        except OSError as error:
            raise StoreError(
                f"{path.parent}: this disk cannot lock files ({error.strerror or error}). Use "
                "another folder."
            ) from error
        try:
            yield True
        finally:
            _give(file)
