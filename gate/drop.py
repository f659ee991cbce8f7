"""Removes the pictures of the API from the output folder once it has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, TypeGuard

from ..prediction.fill import API_FOLDER

_PREFIX: Final = re.compile(r"[a-z0-9]{12}-[A-Za-z0-9_-]{0,96}")


def is_prefix(text: object) -> TypeGuard[str]:
    """Whether a text can start the names of such files: with the mark of the API that asks."""
    return isinstance(text, str) and _PREFIX.fullmatch(text) is not None


def drop(prefix: str) -> int:
    """Remove the files of a prefix below the API's own folder, and return how many there were.

    Args:
        prefix: see `is_prefix`.
    """
    import folder_paths

    folder = Path(folder_paths.get_output_directory(), API_FOLDER)
    if not folder.is_dir():
        return 0
    found = [path for path in folder.iterdir() if path.name.startswith(prefix)]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)
