"""What is done with files on the disk, once for all: errors in words, hashes, whole writes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from ..errors import NoRoomError, StoreError

__all__ = ["BLOCK", "disk_errors", "hash_of", "write_whole"]

BLOCK: Final = 2**20
"""Bytes that are read at once."""

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
