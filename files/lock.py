"""A lock that holds between threads and between processes, and ends with its process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import StoreError
from .pump import cancel_check

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
    # One of its own each time: filelock's are held again by whoever holds them already.
    lock: Any = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StoreError(
            f"{path} cannot be locked: {reason}. Check the folder's permissions, or use another "
            "folder: this disk may not lock files."
        ) from error
    try:
        yield True
    finally:
        lock.release()
