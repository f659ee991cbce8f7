"""The folder of all that the API keeps: one process's at a time, and nobody else's to read."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..errors import SettingsError
from ..files.disk import disk_errors
from ..files.lock import try_lock


@contextmanager
def claimed(state: Path) -> Generator[None, None, None]:
    """Hold the state folder, which is made if it is not there.

    Raises:
        SettingsError: another process uses it.
        StoreError: it cannot be made, or this disk cannot lock files.
    """
    with disk_errors(state):
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with try_lock(state / "lock") as mine:
        if not mine:
            raise SettingsError(
                f"--state {state} is used by another API process. Use another folder, or end that "
                "one."
            )
        yield
